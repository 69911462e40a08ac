"""Recognition of a folder's layout: the files of each case, and their task.

No data set is hard-coded here: the task files of `configs/tasks/` have the patterns of file and case names, and a
`dataset.json` of the Decathlon or nnU-Net describes itself.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.cohort.dataset_json import read_described_layout
from bundle.cohort.tasks import FolderLayout, Task
from scripts.data import pictures as pages
from scripts.data.case_files import Case, CaseFiles, find_cases, image_entry, require_channels
from scripts.data.images import is_volume
from scripts.data.tensor_files import is_tensor_file
from scripts.errors import InputError
from scripts.files import walk_files


def recognise_folder(folder: str | os.PathLike, tasks: Sequence[Task], task: Task | None = None) -> FolderLayout:
    """The cases of a folder: Decathlon or nnU-Net raw by its dataset.json, else files by the patterns of a task.

    With a `task`, chosen by the user, nothing is guessed.

    Raises:
        InputError: no task fits, or more than one.
    """
    root = Path(folder)
    if not root.is_dir():
        kind = "is a file, not a folder" if root.exists() else "does not exist"
        raise InputError(f"{folder} {kind}: give the folder that holds the patients' scans.")
    if layout := read_described_layout(root, tasks, task):
        return layout
    return read_by_patterns(folder, task) if task else _guess(folder, tasks)


def read_by_patterns(folder: str | os.PathLike, task: Task) -> FolderLayout:
    """The cases of `folder` by the file patterns of `task`, whatever other files it holds."""
    if not task.channel_files:
        raise InputError(
            f"task {task.name} has no patterns of file names: leave --task out, or give --channels and --label."
        )
    found = find_cases(folder, task.channel_files, task.rater_files or task.label_files)
    named = [case for case in found if task.fits(case.case)]
    notes = []
    if task.case_names and not named and found:
        notes.append(
            f"the cases do not have the names of {task.name} ({task.case_names}); they are read because --task names"
            " it."
        )
        named = found
    for channel, patterns in task.channel_files.items():
        if not any(channel in case.images for case in named):
            raise InputError(
                f"no file in {folder} fits channel {channel} ({' or '.join(patterns)}){describe_scans(folder)}."
            )
    if left := len(found) - len(named):
        notes.append(f"{left} cases do not match the names {task.case_names} and are not read.")
    cases = [_case_of_files(case, task) for case in named]
    return FolderLayout(f"files by the patterns of {task.name}", task, cases, notes)


def unlabelled_among_labelled(cases: Sequence[Case], folder: str | os.PathLike) -> list[Case]:
    """The cases without a label whose neighbours in the same folder have one, which suggests that theirs is missing."""
    home = {case.case: _home(case, Path(folder).resolve()) for case in cases}
    labelled = {home[case.case] for case in cases if case.label}
    return [case for case in cases if not case.label and home[case.case] in labelled]


def _guess(folder: str | os.PathLike, tasks: Sequence[Task]) -> FolderLayout:
    fits: list[tuple[Task, set[str]]] = []
    partly: list[str] = []
    for task in tasks:
        if not task.channel_files:
            continue
        found = find_cases(folder, task.channel_files, task.rater_files or task.label_files)
        whole = [case for case in found if len(case.images) == len(task.channels)]
        named = {case.case for case in whole if task.case_names and task.fits(case.case)}
        if named:
            fits.append((task, named))
        elif whole:
            partly.append(f"its files have the names of {task.name}; if they are that, give --task {task.name}")
        elif any(len(case.images) > 1 for case in found):
            best = max(found, key=lambda case: len(case.images))
            lacking = ", ".join(name for name in task.channels if name not in best.images)
            partly.append(f"its files have the names of {task.name}, but even case {best.case} lacks {lacking}")
    if not fits:
        raise InputError(_nothing_fits(folder, partly))
    fits.sort(key=lambda fit: (-len(fit[1]), len(fit[0].labels), fit[0].name))
    (task, names), others = fits[0], fits[1:]
    for other, further in others:
        if not further <= names:
            raise InputError(
                f"{folder} holds cases of two kinds: {len(names)} of {task.name} and {len(further - names)} of"
                f" {other.name} (such as {min(further - names)}): choose one with --task {task.name} or --task"
                f" {other.name}."
            )
    layout = read_by_patterns(folder, task)
    layout.notes += [
        f"{other.name} also fits, with labels {other.scheme()}: --task {other.name}" for other, _ in others
    ]
    return layout


def _nothing_fits(folder: str | os.PathLike, partly: list[str]) -> str:
    if partly:
        return f"{folder} is not recognised: {'; '.join(partly)}; or give --channels and --label."
    below = sorted(Path(folder).glob("*/dataset.json"))
    if below:
        return f"{folder} is not recognised, but {below[0].parent} has a dataset.json: give that folder."
    there = describe_scans(folder)
    way = '--channels "T1c={case}/*t1c*.nii.gz,FLAIR=..." --label "{case}/*seg*.nii.gz" --labels "lesion=1"'
    if "pictures, such as" in there:
        way = '--channels "grey=images/{case}.png" --label "masks/{case}.png" --labels "cell=255"'
    return f"{folder} is not recognised as a task, Decathlon or nnU-Net raw{there}; give --task, or {way}."


def describe_scans(folder: str | os.PathLike) -> str:
    """The scans in the folder, for the end of a message."""
    root = Path(folder)
    files = sorted(walk_files(root))
    for kind, belongs in (
        (".nii, .nii.gz, .nrrd or .mha files", is_volume),
        ("pictures", pages.is_picture),
        (".pt files", is_tensor_file),
    ):
        if scans := [path for path in files if belongs(path)]:
            names = ", ".join(path.relative_to(root).as_posix() for path in scans[:3])
            return f": it has {len(scans)} {kind}, such as {names}"
    return ": it has no .nii, .nii.gz, .nrrd or .mha file and no picture"


def _case_of_files(found: CaseFiles, task: Task) -> Case:
    place: dict[str, Any] = {"patient": found.patient, "volume": found.volume, "slice": found.slice}
    place["labels"] = {rater: path for rater, path in found.labels.items() if rater}
    try:
        images = image_entry(require_channels(found, task.channels, task.channel_files))
    except InputError as error:
        there = [found.images[name] for name in task.channels if name in found.images]
        return Case(found.case, there, found.label, problems=[str(error)], **place)
    stacked = isinstance(images, str)
    return Case(found.case, [Path(name) for name in ([images] if stacked else images)], found.label, stacked, **place)


def _home(case: Case, root: Path) -> str:
    """The folder of the case's images without the case's own name: the same for all cases of one folder.

    A TIFF of several pages is a folder of its own.
    """
    if not case.images:
        return ""
    if (file := pages.file_of_page(case.images[0])) != case.images[0]:
        return str(file)
    folder, letter, digit = os.path.relpath(case.images[0].parent, root), r"(?<![a-zA-Z])(?=[a-zA-Z])", r"(?<!\d)(?=\d)"
    names = [case.case, case.case.removeprefix(f"{case.patient}_")] if case.slice is None else [case.case]
    for name in map(re.escape, names):  # case a is not in "data"
        if (home := re.sub(f"(?:{letter}|{digit}){name}(?![a-zA-Z0-9])", "", folder)) != folder:
            return home
    return folder
