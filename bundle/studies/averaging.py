"""Several configurations as one: their probabilities averaged on each scan's own grid, one network at a time."""

import contextlib
import gc
import io
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser, run
from monai.data import MetaTensor

from bundle.studies.members import name_weights
from scripts.data import datalist as lists
from scripts.data.images import is_nifti, read_stored
from scripts.errors import EXIT_SOME_FAILED, InputError
from scripts.files import write_json
from scripts.inference.mask_records import MaskRecords
from scripts.inference.mask_saver import MaskSaver
from scripts.inference.scans import find_input_scans, print_refused_cases, unsegmented_cases
from scripts.network.ensemble import read_run_settings
from scripts.network.weights import MODEL, read_min_component, settings_file
from scripts.progress import progress_bar
from scripts.scoring.run import evaluate_run

WORKFLOW = "configs/inference.yaml"
OF_EVALUATION = ("datalist", "dataset_dir", "output_dir", "part", "fold", "score_workers", "resume", "requeue")
WORK = ".configurations"  # in the folder of masks: the probabilities of each, until all are there


def segment_with_several(
    configurations: Sequence[Sequence[Path]],
    settings: Mapping[str, Any],
    masks: Path,
    entries: Sequence[Mapping[str, Any]] | None = None,
    resume: bool = False,
    stacks: bool = False,
) -> tuple[dict[str, str], int]:
    """Segment cases by the mean of the probabilities of several configurations, each of which counts the same.

    The configurations run one after the other and leave their probabilities in a folder of `masks`, which is removed
    at the end; a call that is repeated with `resume` uses what is there.

    Args:
        configurations: the runs of each (`bundle.studies.members.find_configurations`).
        settings: of configs/inference.yaml, for all of them, `input` included if there are no `entries`.
        masks: the folder to write to.
        entries: the cases, with `case` and `image`; None: those of `input`.
        resume: skip the cases whose mask was made of the same files, weights and settings.
        stacks: combine the masks of all pages of a TIFF into one TIFF.

    Returns:
        the refused cases with the reason, and the number of cases that were to be segmented.

    Raises:
        InputError: masks exist and `resume` is off, the disk is too small, or all cases are refused.
    """
    if "RANK" in os.environ:
        raise InputError(
            "several configurations, and stages, are run by one process: start the command without torchrun."
        )
    parsers = [_read_config(runs, settings) for runs in configurations]
    each = [parser.get_parsed_content("records") for parser in parsers]
    checkpoints = [file for records in each for file in records.checkpoints]
    first = parsers[0]
    made_of: dict[str, Any] = {"configurations": [records.settings for records in each]}
    for kind in ("ml", "probability"):
        if (name := f"min_component_{kind}") not in settings:
            first[name] = read_min_component(checkpoints, kind)
        made_of[name] = first.get_parsed_content(name)
    records = MaskRecords(masks, checkpoints, made_of)
    if entries is None:
        names = ("input", "channels", "channel_files", "dataset_dir")
        entries = find_input_scans(*(first.get_parsed_content(name) for name in names))
    left = unsegmented_cases(entries, records, resume)
    refused = {entry["case"]: entry["refused"] for entry in left if "refused" in entry}
    sound = [entry for entry in left if "refused" not in entry]
    outputs, axes = (len(first.get_parsed_content(name)) for name in ("outputs", "patch_size"))
    require_disk_space(sound, masks, len(configurations) * outputs, axes)
    folders = [masks / WORK / str(number) for number in range(1, len(configurations) + 1)]
    if sound:
        with tempfile.TemporaryDirectory() as temporary:
            source = _write_list(sound, Path(temporary, "cases.json"), first)
            for runs, folder in zip(configurations, folders, strict=True):
                print(f"configuration {folder.name} of {len(folders)}: {', '.join(map(str, runs))}", flush=True)
                _write_probabilities(runs, {**settings, **source}, folder)
    labelling, keep = first.get_parsed_content("labelling"), bool(settings.get("save_probabilities"))
    saver = MaskSaver(masks, stacks=stacks, records=records, entries=sound)
    for entry in progress_bar(sound, desc="averaging", unit="case", show=bool(sound)):
        files = [folder / "probabilities" / f"{entry['case']}.nii.gz" for folder in folders]
        if not all(file.is_file() for file in files):
            refused[entry["case"]] = "a configuration could not segment it, see above"
            continue
        mean = average_probabilities(files, axes)
        maps = {"probabilities": np.moveaxis(mean.numpy(), 0, -1).copy(order="F")} if keep else {}
        maps["pred"] = np.moveaxis(labelling({"pred": mean})["pred"].numpy(), 0, -1)
        image = entry["image"] if isinstance(entry["image"], str) else entry["image"][0]
        saver.save_case(entry["case"], image, maps)
    saver.finish()
    shutil.rmtree(masks / WORK, ignore_errors=True)
    return refused, len(left)


def evaluate_with_several(configurations: Sequence[Sequence[Path]], settings: Mapping[str, Any]) -> None:
    """Segment and score cases of a data list by the mean of the probabilities of several configurations.

    Args:
        configurations: the runs of each (`bundle.studies.members.find_configurations`).
        settings: of configs/evaluate.yaml, for all of them, with `datalist`, `dataset_dir` and `output_dir`.

    Raises:
        InputError: as `segment_with_several`, or the data list does not fit.
        SystemExit: some cases failed.
    """
    parser = _read_config(configurations[0], settings, "configs/evaluate.yaml")
    names = (
        "data",
        "dataset_dir",
        "evaluated_part",
        "fold",
        "masks",
        "output_dir",
        "score_workers",
        "resume",
        "requeue",
    )
    of = {name: parser.get_parsed_content(name) for name in names}
    task = (parser.get_parsed_content(name) for name in ("channels", "label_scheme", "labels"))
    lists.require_same_task(of["data"], *task)
    lists.check_datalist(of["data"], of["dataset_dir"])
    entries = lists.select_cases(of["data"], of["dataset_dir"], of["evaluated_part"], of["fold"])
    shared = {name: value for name, value in settings.items() if name not in OF_EVALUATION}
    masks, resume = Path(of["masks"]), of["resume"] or of["requeue"]
    refused, cases = segment_with_several(configurations, shared, masks, entries, resume)
    print_refused_cases(refused, cases)
    checkpoints = [(run / MODEL).as_posix() for runs in configurations for run in runs]
    where = (of["dataset_dir"], masks, of["output_dir"], of["evaluated_part"], of["fold"])
    by_class = parser.get_parsed_content("decision") == "classes"
    evaluate_run(of["data"], *where, checkpoints, workers=of["score_workers"], by_class=by_class)


def average_probabilities(files: Sequence[Path], axes: int) -> MetaTensor:
    """The mean [K, ...], float32, of the probabilities in files [..., K] on one grid, with its affine.

    `axes` are those of the scan; a file of a single map need not have the last axis.
    """
    images = [read_stored(file)[0] for file in files]
    images = [im._replace(voxels=im.voxels[..., None]) if im.voxels.ndim == axes else im for im in images]
    mean = np.mean([image.voxels for image in images], axis=0, dtype=np.float32)
    affine = images[0].affine
    return MetaTensor(torch.from_numpy(np.moveaxis(mean, -1, 0).copy()), affine=torch.from_numpy(np.asarray(affine)))


def require_disk_space(entries: Sequence[Mapping[str, Any]], folder: Path, maps: int, axes: int) -> None:
    """Refuse to write more probabilities than the disk may hold.

    Args:
        entries: the cases, with `image`.
        folder: to write to; it need not exist.
        maps: float32 numbers for each voxel of a scan.
        axes: of a scan.

    Raises:
        InputError: says how much may be needed, without compression, and how much is free.
    """
    needed = sum(_count_voxels(entry["image"], axes) for entry in entries) * maps * 4
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise InputError(
            f"{folder} may need {needed / 1e6:,.1f} MB for the probabilities of {len(entries)} cases, and"
            f" {free / 1e6:,.1f} MB are free: free space there, choose another --out, or segment fewer cases at once."
        )


def _count_voxels(image: str | Sequence[str], axes: int) -> int:
    first = image if isinstance(image, str) else image[0]
    with contextlib.suppress(Exception):  # a damaged file is refused, with the reason, when it is segmented
        shape = nib.load(first).shape if is_nifti(first) else read_stored(first)[0].voxels.shape
        return math.prod(shape[:axes])
    return 0


def _read_config(runs: Sequence[Path], settings: Mapping[str, Any], workflow: str = WORKFLOW) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([workflow, settings_file(runs[0]).as_posix()])
    parser.update({**_own(settings, runs), **name_weights(runs)})
    parser.parse()
    return parser


def _own(settings: Mapping[str, Any], runs: Sequence[Path]) -> dict[str, Any]:
    """The settings without that of a first stage, for a configuration that has none."""
    masks = "first_stage_masks"
    return {name: value for name, value in settings.items() if name != masks or masks in read_run_settings(runs[0])}


def _write_list(entries: Sequence[Mapping[str, Any]], path: Path, parser: ConfigParser) -> dict[str, str]:
    """Write the cases as a data list whose paths start at the root of the file system; the settings that name it."""
    names = ("channels", "label_scheme", "labels", "regions")
    header = {name: parser.get_parsed_content(name) for name in names}
    cases = [
        {"image": _from_root(entry["image"]), "case": entry["case"], "patient": entry["case"]} for entry in entries
    ]
    write_json(path, json.loads(json.dumps({**header, "hashes": {}, "training": [], "testing": cases}, default=list)))
    return {"input": path.as_posix(), "dataset_dir": "/"}


def _from_root(image: str | Sequence[str]) -> str | list[str]:
    if not isinstance(image, str):
        return [str(_from_root(name)) for name in image]
    file = Path(image)
    return (file.parent.resolve() / file.name).relative_to("/").as_posix()


def _write_probabilities(runs: Sequence[Path], settings: Mapping[str, Any], folder: Path) -> None:
    own = {"output_dir": folder.as_posix(), "resume": True, "save_probabilities": True, "min_component_ml": {}}
    own["min_component_probability"] = {}
    files = [WORKFLOW, settings_file(runs[0]).as_posix()]
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it would name the folder of probabilities
            run("inferring", config_file=files, **{**_own(settings, runs), **name_weights(runs), **own})
    except SystemExit as ended:  # some cases were refused
        if ended.code != EXIT_SOME_FAILED:
            raise
    gc.collect()  # the network, before the next one
