"""What does nnU-Net learn in so many minutes? Run by the Python of its environment, without this project.

    OMP_NUM_THREADS=1 nnunet/bin/python bundle/benchmarks/nnunet_training.py brats2015.json ../shared/data/brats2015 \
        runs/nnunet --fold 0 --minutes 3 --spacing 2 --patch 48 --filters 16 32 64 128

It plans, preprocesses, samples and augments as nnU-Net does, with its loss and optimiser, and writes masks of a fold's
patients for `python -m bundle score`. Given from outside are the data list with its folds, spacing, patch, batch and
features; the learning rate falls along the minutes, as it does along 1000 epochs. Air of another constant is set to 0,
as this project does, since nnU-Net looks for 0 as well.
"""

import argparse
import json
import os
import random
import time
from contextlib import nullcontext
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

NAME = "Dataset001_minutes"
CONFIGURATION = "3d_fullres"


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalist", type=Path, help="made by `python -m bundle prepare`")
    parser.add_argument("dataset_dir", type=Path, help="where its paths start")
    parser.add_argument("folder", type=Path, help="gets the prepared data, and masks/<fold>-<seed>")
    parser.add_argument("--fold", type=int, default=0, help="judged; the others teach")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=3.0, help="of the processor, all threads together")
    parser.add_argument("--spacing", type=float, default=2.0, help="mm")
    parser.add_argument("--patch", type=int, default=48, help="voxels a side; two of them are a batch")
    parser.add_argument("--filters", type=int, nargs="+", default=[16, 32, 64, 128], help="features by level")
    parser.add_argument("--half", action="store_true", help="bfloat16 on the CPU, which nnU-Net does not do by itself")
    parser.add_argument(
        "--mirror", action="store_true", help="also write masks of eight mirrored predictions, its default"
    )
    return parser.parse_args()


def prepare(asked: argparse.Namespace, content: dict) -> None:
    """Its raw data set, fingerprint, plans (with our sizes) and preprocessed cases."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )

    raw = asked.folder / "raw" / NAME
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for entry in content["training"]:
        for channel, file in enumerate(entry["image"]):
            source = nib.load(asked.dataset_dir / file)
            image = np.asarray(source.dataobj, dtype=np.float32)
            made = nib.Nifti1Image(image - image[0, 0, 0], source.affine)
            nib.save(made, raw / "imagesTr" / f"{entry['case']}_{channel:04d}.nii.gz")
        source = nib.load(asked.dataset_dir / entry["label"])
        label = np.rint(np.asarray(source.dataobj)).astype(np.uint8)
        nib.save(nib.Nifti1Image(label, source.affine), raw / "labelsTr" / f"{entry['case']}.nii.gz")
    described = {
        "channel_names": dict(enumerate(content["channels"])),
        "labels": {"background": 0, **content["regions"]},
        "regions_class_order": list(content["labels_out"].values()),
        "numTraining": len(content["training"]),
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
    numbers = sorted({entry["fold"] for entry in content["training"]})
    splits = [
        {
            "train": [entry["case"] for entry in content["training"] if entry["fold"] != number],
            "val": [entry["case"] for entry in content["training"] if entry["fold"] == number],
        }
        for number in numbers
    ]
    (made / "splits_final.json").write_text(json.dumps(splits))


def main() -> None:
    """Prepare once, train for the minutes, write the masks."""
    asked = arguments()
    folders = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "results"}
    os.environ.update({name: str(asked.folder.resolve() / folder) for name, folder in folders.items()})
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    content = json.loads(asked.datalist.read_text())
    made = asked.folder / "preprocessed" / NAME
    if not (made / "splits_final.json").exists():
        prepare(asked, content)
    os.environ.update(nnUNet_n_proc_DA="0")  # augment in this process, so that its time counts
    random.seed(asked.seed)
    np.random.seed(asked.seed)
    torch.manual_seed(asked.seed)
    plans = json.loads((made / "nnUNetPlans.json").read_text())
    described = json.loads((made / "dataset.json").read_text())
    trainer = nnUNetTrainer(
        plans | {"continue_training": False}, CONFIGURATION, asked.fold, described, torch.device("cpu")
    )
    trainer.on_train_start()
    trainer.network.train()
    half = torch.autocast("cpu", torch.bfloat16) if asked.half else nullcontext()
    began, steps, share = time.process_time(), 0, 0.0
    while share < 1:
        trainer.optimizer.param_groups[0]["lr"] = trainer.initial_lr * (1 - share) ** 0.9
        batch = next(trainer.dataloader_train)
        with half:
            trainer.train_step(batch)
        steps += 1
        share = (time.process_time() - began) / (60 * asked.minutes)
    print(f"{steps} steps")
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    judged = [entry["case"] for entry in content["training"] if entry["fold"] == asked.fold]
    for name, mirror in {"masks": False, "mirrored": True}.items() if asked.mirror else {"masks": False}.items():
        predictor = nnUNetPredictor(
            use_mirroring=mirror, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
        )
        predictor.manual_initialization(
            trainer.network, trainer.plans_manager, trainer.configuration_manager, [trainer.network.state_dict()],
            described, "nnUNetTrainer", trainer.inference_allowed_mirroring_axes,
        )  # fmt: skip
        target = asked.folder / name / f"{asked.fold}-{asked.seed}"
        target.mkdir(parents=True, exist_ok=True)
        files = asked.folder / "raw" / NAME / "imagesTr"
        channels = [[str(files / f"{case}_{k:04d}.nii.gz") for k in range(len(content["channels"]))] for case in judged]
        predictor.predict_from_files_sequential(channels, [str(target / case) for case in judged])


if __name__ == "__main__":
    main()
