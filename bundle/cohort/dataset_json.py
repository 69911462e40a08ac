"""Folders that a dataset.json describes: the Medical Segmentation Decathlon and nnU-Net raw, version 1 or 2."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bundle.cohort.tasks import FolderLayout, Task
from scripts.data.case_files import Case
from scripts.data.nifti import nifti_stem
from scripts.errors import InputError


def read_described_layout(root: Path, tasks: Sequence[Task], chosen: Task | None = None) -> FolderLayout | None:
    """The layout that the folder's dataset.json describes; None where there is none, or one of another program.

    Raises:
        InputError: the file cannot be read, is incomplete, or does not match `chosen` or the files of the folder.
    """
    description = _read_description(root)
    if description is None:
        return None
    try:
        return _described(root.resolve(), description, tasks, chosen)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{root / 'dataset.json'} has neither the Decathlon's form nor nnU-Net's ({error!r}): correct it, or give"
            " --channels, --label and --labels."
        ) from error


def _read_description(root: Path) -> dict[str, Any] | None:
    """The dataset.json of the Decathlon or of nnU-Net, None if there is none, or one of another program."""
    path = root / "dataset.json"
    if not path.is_file():
        if any((root / "imagesTr").glob("*_0000.*")):
            raise InputError(
                f"{root} looks like nnU-Net raw but has no dataset.json to name channels and labels: add it, or give"
                ' --channels "T1={case}_0000.nii.gz,..." --label "labelsTr/{case}.nii.gz" --labels "name=1,...".'
            )
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict) or not ({"modality", "channel_names"} & content.keys()):
        return None
    if "labels" not in content:
        raise InputError(f"{path} has no 'labels', which name the values of the label: add them.")
    return content


def _described(root: Path, description: Mapping[str, Any], tasks: Sequence[Task], chosen: Task | None) -> FolderLayout:
    own = _task_of(root, description)
    if chosen and _plain(own) != _plain(chosen):
        raise InputError(
            f"{root / 'dataset.json'} has channels {', '.join(own.channels)} and labels {own.scheme()}; task"
            f" {chosen.name} has {', '.join(chosen.channels)} and {chosen.scheme()}: leave --task out, or give"
            " --channels, --label and --task."
        )
    task = chosen or next((task for task in tasks if _plain(own) == _plain(task)), own)
    note = f"channels and labels of dataset.json are those of task {task.name}."
    if task == own:
        note = f"no task of configs/tasks/ has these channels and labels: scheme {own.scheme()} is dataset.json's own."
    if own.ignore is not None:
        task = replace(task, ignore=own.ignore)
    ending = str(description.get("file_ending", ".nii.gz"))
    listed = [*(description.get("training") or []), *(description.get("test") or [])]
    if any((root / _image_of(entry)).is_file() for entry in listed):
        name, cases = "Medical Segmentation Decathlon", _decathlon_cases(root, description, len(task.channels) > 1)
    else:
        name, cases = "nnU-Net raw", _nnunet_cases(root, task.channels, ending)
    cases.sort(key=lambda case: case.case)
    if not cases:
        raise InputError(f"{root} has a dataset.json but no image in imagesTr or imagesTs ending in {ending}.")
    if twice := [name for name, count in Counter(case.case for case in cases).items() if count > 1]:
        raise InputError(f"{root} has two cases called {twice[0]} (imagesTr and imagesTs?): rename one of them.")
    return FolderLayout(name, replace(task, label_files=[], channel_files={}), cases, [note])


def _task_of(root: Path, description: Mapping[str, Any]) -> Task:
    """The task that a dataset.json describes; nnU-Net 2 maps names to values, the older form values to names."""
    channels = description.get("channel_names") or description["modality"]
    channels = [str(channels[key]) for key in sorted(channels, key=int)]
    labels = description["labels"]
    if all(str(key).isdigit() for key in labels):
        labels = {name: int(key) for key, name in labels.items()}
    labels = {name: _whole_numbers(value) for name, value in labels.items()}
    labels = {name: value for name, value in labels.items() if value != 0}
    ignore = labels.pop("ignore", None)  # nnU-Net's
    scheme = str(description.get("name") or root.name)
    regions = {name: sorted(value) if isinstance(value, list) else [value] for name, value in labels.items()}
    if all(isinstance(value, int) for value in labels.values()):
        return Task(scheme, scheme, labels, channels, regions, dict(labels), ignore=ignore)
    # The regions overlap, so that a single value has no name of its own
    values = sorted({value for region in regions.values() for value in region})
    order = [_whole_numbers(value) for value in description.get("regions_class_order") or []]
    labels_out = dict(zip(regions, order, strict=False)) if order else None
    named = {f"label {value}": value for value in values}
    return Task(scheme, scheme, named, channels, regions, labels_out, ignore=ignore)


def _whole_numbers(value: Any) -> Any:
    """A label's value or values as integers: some files have them as text or as 1.0."""
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    if int(float(value)) != float(value):
        raise ValueError(f"label value {value}, expected a whole number")
    return int(float(value))


def _plain(task: Task) -> tuple[list[str], dict[str, int]]:
    """Channels and labels with names in lower case, to compare."""
    return [name.lower() for name in task.channels], {name.lower(): value for name, value in task.labels.items()}


def _image_of(entry: Any) -> str:
    return str(entry["image"] if isinstance(entry, dict) else entry)


def _decathlon_cases(root: Path, description: Mapping[str, Any], stacked: bool) -> list[Case]:
    cases = []
    for part in ("training", "test"):
        for entry in description.get(part) or []:
            image = root / _image_of(entry)
            label = root / str(entry["label"]) if isinstance(entry, dict) and "label" in entry else None
            case = Case(nifti_stem(image), [image], label, stacked)
            if part == "training" and label is None:
                case.problems.append(f"dataset.json lists {image} for training without a label: add it.")
            for path in (image, label):
                if path and not path.is_file():
                    case.problems.append(
                        f"{path} is listed in dataset.json but does not exist: add it, or remove its entry."
                    )
            cases.append(case)
    return cases


def _nnunet_cases(root: Path, channels: Sequence[str], ending: str) -> list[Case]:
    cases, numbered = [], re.compile(r"(?P<case>[^.].*)_(?P<channel>\d{4})")
    for folder, labels in (("imagesTr", "labelsTr"), ("imagesTs", None)):
        found: dict[str, dict[int, Path]] = defaultdict(dict)
        drawn = _files_by_stem(root / labels, ending) if labels else {}
        for stem, path in _files_by_stem(root / folder, ending).items():
            if match := numbered.fullmatch(stem):
                found[match["case"]][int(match["channel"])] = path
        for name, images in found.items():
            case = Case(name, [images[i] for i in range(len(channels)) if i in images])
            for i, channel in enumerate(channels):
                if i not in images:
                    wanted = root / folder / f"{name}_{i:04d}{ending}"
                    case.problems.append(f"case {name} lacks channel {channel}: expected {wanted}; add the file.")
            if max(images) >= len(channels):
                case.problems.append(
                    f"{images[max(images)]} is a channel that dataset.json does not name: add its name or remove the"
                    " file."
                )
            if labels:
                case.label = drawn.get(name, root / labels / f"{name}{ending}")
                if not case.label.is_file():
                    case.problems.append(f"{case.label} does not exist: a case of {folder} needs its label; add it.")
            cases.append(case)
    return cases


def _files_by_stem(folder: Path, ending: str) -> dict[str, Path]:
    """The files of a folder with this ending, in capitals too, by their name without it."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name[: -len(ending)]: path for path in files if path.name.lower().endswith(ending.lower())}
