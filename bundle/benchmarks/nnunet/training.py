"""Training of nnU-Net in a given number of minutes, run by the Python of its environment, without this project.

    OMP_NUM_THREADS=1 nnunet/bin/python bundle/benchmarks/nnunet/training.py brats2015.json ../shared/data/brats2015 \
        runs/nnunet --fold 0 --minutes 3 --spacing 2 --patch 48 --filters 16 32 64 128

It plans, preprocesses, samples and augments as nnU-Net does, with its loss and optimiser, and writes masks of a fold's
patients for `python -m bundle score`. The data list with its folds, spacing, patch, batch and features are given; the
learning rate decays over the minutes as it does over 1000 epochs. A constant background other than 0 is set to 0, as in
this project, since nnU-Net crops to voxels that are not 0. The minutes are those of its steps alone.
"""

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from tqdm import tqdm

NAME = "Dataset001_minutes"
CONFIGURATION = "3d_fullres"


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalist", type=Path, help="made by `python -m bundle prepare`")
    parser.add_argument("dataset_dir", type=Path, help="where its paths start")
    parser.add_argument("folder", type=Path, help="for the prepared data, and masks/<fold>-<seed>")
    parser.add_argument("--fold", type=int, default=0, help="scored; the others are trained on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=3.0, help="CPU time of all threads")
    parser.add_argument("--spacing", type=float, default=2.0, help="mm")
    parser.add_argument("--patch", type=int, default=48, help="voxels per side; a batch is two")
    parser.add_argument("--filters", type=int, nargs="+", default=[16, 32, 64, 128], help="features by level")
    parser.add_argument("--half", action="store_true", help="bfloat16 on the CPU, which nnU-Net does not use by itself")
    parser.add_argument("--mirror", action="store_true", help="also write masks with mirroring, its default")
    return parser.parse_args()


def require_possible(asked: argparse.Namespace, content: dict, entries: list[dict]) -> None:
    """Refuse a data list that nnU-Net cannot use."""
    folds = sorted({entry["fold"] for entry in entries})
    regions = content["regions"]
    if asked.fold not in folds or len(folds) < 2:
        sys.exit(f"error: fold is {asked.fold}: the data list has {folds}, and two are needed.")
    if any(isinstance(entry["image"], str) for entry in entries):
        sys.exit("error: the data list has all channels in one file: expected one file per channel.")
    if list(content.get("labels_out", {})) != list(regions) or all(len(values) == 1 for values in regions.values()):
        sys.exit("error: expected regions of several labels, and labels_out in the same order, which nnU-Net needs.")


def zero_background(image: np.ndarray) -> np.ndarray:
    """The image minus the value of its corners, if they are equal."""
    corners = image[np.ix_(*((0, size - 1) for size in image.shape))]
    return image - image[0, 0, 0] if (corners == image[0, 0, 0]).all() else image


def prepare_dataset(asked: argparse.Namespace, content: dict, entries: list[dict]) -> None:
    """Write its raw data set, fingerprint, plans (with the given sizes) and preprocessed cases."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )

    raw = asked.folder / "raw" / NAME
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for entry in entries:
        for channel, file in enumerate(entry["image"]):
            source = nib.load(asked.dataset_dir / file)
            image = zero_background(np.asarray(source.dataobj, dtype=np.float32))
            nib.save(nib.Nifti1Image(image, source.affine), raw / "imagesTr" / f"{entry['case']}_{channel:04d}.nii.gz")
        source = nib.load(asked.dataset_dir / entry["label"])
        label = np.rint(np.asarray(source.dataobj)).astype(np.uint8)
        nib.save(nib.Nifti1Image(label, source.affine), raw / "labelsTr" / f"{entry['case']}.nii.gz")
    described = {
        "channel_names": dict(enumerate(content["channels"])),
        "labels": {"background": 0, **content["regions"]},
        "regions_class_order": list(content["labels_out"].values()),
        "numTraining": len(entries),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(described))
    extract_fingerprint_dataset(1, num_processes=1, verbose=False)
    plan_experiment_dataset(1, overwrite_target_spacing=(asked.spacing,) * 3)
    levels, made = len(asked.filters), asked.folder / "preprocessed" / NAME
    plans = json.loads((made / "nnUNetPlans.json").read_text())
    configuration = plans["configurations"][CONFIGURATION]
    configuration.update(patch_size=[asked.patch] * 3, batch_size=2)
    configuration["architecture"]["arch_kwargs"].update(
        n_stages=levels,
        features_per_stage=asked.filters,
        kernel_sizes=[[3] * 3] * levels,
        strides=[[1] * 3] + [[2] * 3] * (levels - 1),
        n_conv_per_stage=[2] * levels,
        n_conv_per_stage_decoder=[2] * (levels - 1),
    )
    (made / "nnUNetPlans.json").write_text(json.dumps(plans))
    preprocess_dataset(1, configurations=(CONFIGURATION,), num_processes=(1,))
    splits = [
        {
            "train": [entry["case"] for entry in entries if entry["fold"] != number],
            "val": [entry["case"] for entry in entries if entry["fold"] == number],
        }
        for number in range(max(entry["fold"] for entry in entries) + 1)
    ]
    (made / "splits_final.json").write_text(json.dumps(splits))


def forward_in_half(forward: Callable, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
    """The network's heads, computed in bfloat16, and returned in single precision for the loss."""
    with torch.autocast("cpu", torch.bfloat16):
        heads = forward(image)
    return [head.float() for head in heads] if isinstance(heads, list | tuple) else heads.float()


def train_network(asked: argparse.Namespace) -> Any:
    """Train for the given minutes, and return the trainer."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    os.environ.update(nnUNet_n_proc_DA="0")  # augment in this process, so that its time counts
    random.seed(asked.seed)
    np.random.seed(asked.seed)
    torch.manual_seed(asked.seed)
    made = asked.folder / "preprocessed" / NAME
    plans, described = (json.loads((made / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    plans["continue_training"] = False
    trainer = nnUNetTrainer(plans, CONFIGURATION, asked.fold, described, torch.device("cpu"))
    trainer.on_train_start()
    trainer.network.train()
    if asked.half:
        trainer.network.forward = partial(forward_in_half, trainer.network.forward)
    began, steps, share = time.process_time(), 0, 0.0
    with tqdm(total=1.0, desc="training", bar_format="{l_bar}{bar}| {elapsed}<{remaining}") as shown:
        while share < 1:
            trainer.optimizer.param_groups[0]["lr"] = trainer.initial_lr * (1 - share) ** 0.9
            trainer.train_step(next(trainer.dataloader_train))
            steps += 1
            share = min(1.0, (time.process_time() - began) / (60 * asked.minutes))
            shown.update(share - shown.n)
    print(f"{steps} steps")
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    return trainer


def write_masks(asked: argparse.Namespace, trainer: Any, entries: list[dict], mirror: bool) -> None:
    """Write the masks of the fold's patients."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=mirror, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager, [trainer.network.state_dict()],
        trainer.dataset_json, "nnUNetTrainer", trainer.inference_allowed_mirroring_axes,
    )  # fmt: skip
    target = asked.folder / ("mirrored" if mirror else "masks") / f"{asked.fold}-{asked.seed}"
    target.mkdir(parents=True, exist_ok=True)
    scans = asked.folder / "raw" / NAME / "imagesTr"
    scored = [entry for entry in entries if entry["fold"] == asked.fold]
    files = [[str(scans / f"{e['case']}_{k:04d}.nii.gz") for k in range(len(e["image"]))] for e in scored]
    predictor.predict_from_files_sequential(files, [str(target / entry["case"]) for entry in scored])


def main() -> None:
    """Prepare once, train for the minutes, write the masks."""
    asked = parse_arguments()
    if not asked.datalist.is_file():
        sys.exit(f"error: {asked.datalist} does not exist: make it with `python -m bundle prepare`.")
    folders = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "results"}
    os.environ.update({name: str(asked.folder.resolve() / folder) for name, folder in folders.items()})
    content = json.loads(asked.datalist.read_text())
    entries = [entry for entry in content["training"] if "fold" in entry]  # held-out patients have none
    require_possible(asked, content, entries)
    record = asked.folder / "prepared.json"
    settings = {"spacing": asked.spacing, "patch": asked.patch, "filters": asked.filters, "entries": entries}
    if not record.exists():
        for folder in folders.values():  # left by an interrupted preparation
            shutil.rmtree(asked.folder / folder, ignore_errors=True)
        prepare_dataset(asked, content, entries)
        record.write_text(json.dumps(settings))
    elif json.loads(record.read_text()) != settings:
        sys.exit(f"error: {asked.folder} was prepared with another list or other sizes: give another folder.")
    trainer = train_network(asked)
    for mirror in (False, True) if asked.mirror else (False,):
        write_masks(asked, trainer, entries, mirror)


if __name__ == "__main__":
    main()
