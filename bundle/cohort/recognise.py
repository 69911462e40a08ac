"""What is this folder? Recognises the layouts of the field and says which files make a case, and by which label scheme.

No data set is known by name here: the task files of `configs/tasks/` say how files and cases are called, and the
`dataset.json` of the Decathlon and of nnU-Net describes itself.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from scripts.data import pictures as pages
from scripts.data.case_checks import Expected
from scripts.data.case_files import Case, CaseFiles, find_cases, image_entry, require_channels
from scripts.data.images import NIFTI
from scripts.errors import InputError

TASKS = Path(__file__).resolve().parents[2] / "configs" / "tasks"
NEEDED = ("label_scheme", "labels", "channels", "regions")


@dataclass(frozen=True)
class Task:
    """What is segmented: a file of `configs/tasks/`, or the same told on the command line or by a dataset.json.

    Attributes:
        name: of the task file, as `--task` takes it.
        label_scheme: what the numbers in a label mean, by name.
        labels: each label's name and value; the background is not listed if it is 0.
        channels: in the order of the network's input.
        regions: each region's name and the label values it is made of.
        labels_out: in which order and as which value regions are painted into one label map.
        channel_files: for each channel its file patterns (see `scripts.data.case_files`).
        label_files: the label's file patterns.
        labels_fill: the background, which is what is in no region.
        empty_labels: labels that hold nothing but background are to be expected, as in slices.
        boundaries: the regions that are outlines of cells, to be judged by whether they keep these apart.
        case_names: a regular expression that a case's whole name fits, where the task shall be recognised by itself.
        patient_names: a regular expression whose first group is the patient.
    """

    name: str
    label_scheme: str
    labels: dict[str, int]
    channels: list[str]
    regions: dict[str, list[int]]
    labels_out: dict[str, int] | None = None
    channel_files: dict[str, list[str]] = field(default_factory=dict)
    label_files: list[str] = field(default_factory=list)
    labels_fill: int = 0
    empty_labels: bool = False
    boundaries: list[str] = field(default_factory=list)
    case_names: str | None = None
    patient_names: str | None = None

    def fits(self, case: str) -> bool:
        """Whether a case of this task may have this name."""
        return not self.case_names or re.fullmatch(self.case_names, case) is not None

    def expected(self, others: Sequence[Task] = (), allow_empty: bool = False) -> Expected:
        """What a case of this task should hold; `others` may know label values that this task does not."""
        labels, empty = frozenset(self.labels.values()), self.empty_labels or allow_empty
        hint = partial(_tasks_that_know, self, others)
        return Expected(self.channels, labels, self.scheme(), self.labels_fill, empty, hint)

    def scheme(self) -> str:
        """The label scheme in words, for messages."""
        return f"{self.label_scheme} ({', '.join(f'{name}={value}' for name, value in self.labels.items())})"


@dataclass
class Layout:
    """A folder understood: how it was recognised, what is segmented in it, its cases, and what the user should know."""

    name: str
    task: Task
    cases: list[Case]
    notes: list[str] = field(default_factory=list)


def _tasks_that_know(task: Task, others: Sequence[Task], case: str, values: set[int]) -> str:
    knowing = [other for other in others if task.channel_files and values <= set(other.labels.values())]
    alike = [other.name for other in knowing if other.channel_files == task.channel_files and other.fits(case)]
    related = [other.name for other in knowing if set(other.channels) == set(task.channels)]
    return f"; --task {alike[0]} knows it" if alike else f"; known to {', '.join(related)}" if related else ""


def read_task(path: str | os.PathLike) -> Task:
    """The task of a YAML file.

    Raises:
        InputError: the file cannot be read, or lacks a part.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the task file {path} cannot be read ({' '.join(str(error).split())}).") from error
    missing = [key for key in NEEDED if not isinstance(content, dict) or key not in content]
    if missing:
        raise InputError(f"the task file {path} has no {', '.join(missing)}: see configs/tasks/ for how one looks.")
    known = {key: content[key] for key in Task.__dataclass_fields__ if key in content}
    return Task(**{**known, "name": path.stem})


def known_tasks() -> list[Task]:
    """The tasks of `configs/tasks/`, by name."""
    return [read_task(path) for path in sorted(TASKS.glob("*.yaml"))]


def choose_task(name: str, tasks: Sequence[Task]) -> Task:
    """The task called `name`, or that of the file `name`.

    Raises:
        InputError: there is neither; gives the nearest names.
    """
    for task in tasks:
        if task.name == name:
            return task
    if Path(name).suffix in (".yaml", ".yml"):
        return read_task(name)
    names = [task.name for task in tasks]
    near = difflib.get_close_matches(name, names, n=2)
    guess = f" (did you mean {' or '.join(near)}?)" if near else ""
    raise InputError(f"there is no task '{name}'{guess}: give a task file, or one of {', '.join(names)}.")


def recognise(folder: str | os.PathLike, tasks: Sequence[Task], task: Task | None = None) -> Layout:
    """What `folder` holds: Decathlon or nnU-Net raw by its dataset.json, else files by the patterns of a task.

    Args:
        folder: of the data set.
        tasks: those that may be recognised.
        task: the one that the user has chosen; then nothing is guessed.

    Raises:
        InputError: nothing fits, or more than one thing does; says what was found and what to do.
    """
    root = Path(folder)
    if not root.is_dir():
        kind = "is a file, not a folder" if root.exists() else "does not exist"
        raise InputError(f"{folder} {kind}: give the folder that holds the patients' scans.")
    description = _read_description(root)
    if description is not None:
        try:
            return _described(root.resolve(), description, tasks, task)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{root / 'dataset.json'} has neither the Decathlon's form nor nnU-Net's ({error!r}): mend it, or say"
                " what is what with --channels."
            ) from error
    return by_patterns(folder, task) if task else _guess(folder, tasks)


def by_patterns(folder: str | os.PathLike, task: Task) -> Layout:
    """The cases of `folder` by the file patterns of `task`, whatever else lies there.

    Raises:
        InputError: the task has no patterns, or no file fits them.
    """
    if not task.channel_files:
        raise InputError(
            f"task {task.name} does not say how its files are called: leave --task out, or give --channels and --label."
        )
    found = find_cases(folder, task.channel_files, task.label_files)
    named = [case for case in found if task.fits(case.case)]
    notes = []
    if task.case_names and not named and found:
        notes.append(
            f"the cases are not called as in {task.name} ({task.case_names}); they are read by it because you chose it."
        )
        named = found
    for channel, patterns in task.channel_files.items():
        if not any(channel in case.images for case in named):
            raise InputError(f"no file in {folder} fits channel {channel} ({' or '.join(patterns)}){example(folder)}.")
    if left := len(found) - len(named):
        notes.append(f"{left} cases have other names than {task.case_names} and are not read.")
    cases = [_case_of_files(case, task) for case in named]
    return Layout(f"files by the patterns of {task.name}", task, cases, notes)


def unlabelled_among_labelled(cases: Sequence[Case], folder: str | os.PathLike) -> list[Case]:
    """The cases without a label whose neighbours in the same folder have one, so that theirs was probably forgotten."""
    home = {case.case: _home(case, Path(folder).resolve()) for case in cases}
    labelled = {home[case.case] for case in cases if case.label}
    return [case for case in cases if not case.label and home[case.case] in labelled]


def _guess(folder: str | os.PathLike, tasks: Sequence[Task]) -> Layout:
    fits: list[tuple[Task, set[str]]] = []
    partly: list[str] = []
    for task in tasks:
        if not task.channel_files:
            continue
        found = find_cases(folder, task.channel_files, task.label_files)
        whole = [case for case in found if len(case.images) == len(task.channels)]
        named = {case.case for case in whole if task.case_names and task.fits(case.case)}
        if named:
            fits.append((task, named))
        elif whole:
            partly.append(f"its files are called as in {task.name}; if they are that, give --task {task.name}")
        elif any(len(case.images) > 1 for case in found):
            best = max(found, key=lambda case: len(case.images))
            lacking = ", ".join(name for name in task.channels if name not in best.images)
            partly.append(f"its files are called as in {task.name}, but not even case {best.case} has {lacking}")
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
    layout = by_patterns(folder, task)
    layout.notes += [
        f"{other.name} would fit too, with labels {other.scheme()}: --task {other.name}" for other, _ in others
    ]
    return layout


def _nothing_fits(folder: str | os.PathLike, partly: list[str]) -> str:
    if partly:
        return f"{folder} is not recognised: {'; '.join(partly)}; or give --channels and --label."
    below = sorted(Path(folder).glob("*/dataset.json"))
    if below:
        return f"{folder} is not recognised, but {below[0].parent} has a dataset.json: give that folder."
    there = example(folder)
    way = '--channels "T1c={case}/*t1c*.nii.gz,FLAIR=..." --label "{case}/*seg*.nii.gz" --labels "lesion=1"'
    if "pictures, such as" in there:
        way = '--channels "grey=images/{case}.png" --label "masks/{case}.png" --labels "cell=255"'
    return (
        f"{folder} is not recognised as that of a task, Decathlon or nnU-Net raw{there}; say what is what with --task,"
        f" or with {way}."
    )


def example(folder: str | os.PathLike) -> str:
    """What scans lie in the folder, for the end of a message."""
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if not path.name.startswith("."))
    scans = [path for path in files if path.name.endswith(NIFTI)]
    pictures = [path for path in files if pages.is_picture(path)]
    if not (scans or pictures):
        return ": it holds no .nii or .nii.gz file and no picture"
    names = ", ".join(path.relative_to(root).as_posix() for path in (scans or pictures)[:3])
    kind = ".nii or .nii.gz files" if scans else "pictures"
    return f": it holds {len(scans or pictures)} {kind}, such as {names}"


def _case_of_files(found: CaseFiles, task: Task) -> Case:
    place = {"patient": found.patient, "volume": found.volume, "slice": found.slice}
    try:
        images = image_entry(require_channels(found, task.channels, task.channel_files))
    except InputError as error:
        there = [found.images[name] for name in task.channels if name in found.images]
        return Case(found.case, there, found.label, problems=[str(error)], **place)
    if isinstance(images, str):
        return Case(found.case, [Path(images)], found.label, stacked=True, **place)
    return Case(found.case, [Path(name) for name in images], found.label, **place)


def _home(case: Case, root: Path) -> str:
    """The folder of the case's images without the case's own name: the same for all cases that lie side by side.

    A TIFF of several pages is a folder of its own.
    """
    if not case.images:
        return ""
    if (file := pages.file_of(case.images[0])) != case.images[0]:
        return str(file)
    own, letter, digit = re.escape(case.case), r"(?<![a-zA-Z])(?=[a-zA-Z])", r"(?<!\d)(?=\d)"  # case a is not in "data"
    return re.sub(f"(?:{letter}|{digit}){own}(?![a-zA-Z0-9])", "", os.path.relpath(case.images[0].parent, root))


def _read_description(root: Path) -> dict[str, Any] | None:
    """The dataset.json of the Decathlon or of nnU-Net, None where there is none or it is something else's."""
    path = root / "dataset.json"
    if not path.is_file():
        if any((root / "imagesTr").glob("*_0000.*")):
            raise InputError(
                f"{root} looks like nnU-Net raw but has no dataset.json to name channels and labels: add it, or give"
                ' --channels "T1={case}_0000.nii.gz,..." --label "labelsTr/{case}.nii.gz" --labels "name=1,...".'
            )
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict) or not ({"modality", "channel_names"} & content.keys()):
        return None
    if "labels" not in content:
        raise InputError(f"{path} has no 'labels', so that nobody knows what the numbers in a label mean: add them.")
    return content


def _described(root: Path, description: Mapping[str, Any], tasks: Sequence[Task], chosen: Task | None) -> Layout:
    own = _task_of(root, description)
    notes = []
    if chosen and not _same(own, chosen):
        raise InputError(
            f"{root / 'dataset.json'} has channels {', '.join(own.channels)} and labels {own.scheme()}; task"
            f" {chosen.name} has {', '.join(chosen.channels)} and {chosen.scheme()}: leave --task out, or give"
            " --channels, --label and --task."
        )
    task = chosen or next((task for task in tasks if _same(own, task)), None)
    if task is None:
        task = own
        notes.append(
            f"no task of configs/tasks/ has these channels and labels: scheme {own.scheme()} is dataset.json's own."
        )
    else:
        notes.append(f"channels and labels of dataset.json are those of task {task.name}.")
    ending = str(description.get("file_ending", ".nii.gz"))
    listed = [*(description.get("training") or []), *(description.get("test") or [])]
    if any((root / _image_of(entry)).is_file() for entry in listed):
        cases = _decathlon_cases(root, description, stacked=len(task.channels) > 1)
        name = "Medical Segmentation Decathlon"
    else:
        cases = _nnunet_cases(root, task.channels, ending)
        name = "nnU-Net raw"
    if not cases:
        raise InputError(f"{root} has a dataset.json but no image in imagesTr or imagesTs ending in {ending}.")
    if twice := [name for name, count in Counter(case.case for case in cases).items() if count > 1]:
        raise InputError(f"{root} has two cases called {twice[0]} (imagesTr and imagesTs?): rename one of them.")
    return Layout(name, replace(task, label_files=[], channel_files={}), cases, notes)


def _task_of(root: Path, description: Mapping[str, Any]) -> Task:
    """The task that a dataset.json describes: nnU-Net 2 maps names to numbers, the older form numbers to names."""
    channels = description.get("channel_names") or description["modality"]
    channels = [str(channels[key]) for key in sorted(channels, key=int)]
    labels = description["labels"]
    if all(str(key).isdigit() for key in labels):
        labels = {name: int(key) for key, name in labels.items()}
    labels = {name: value for name, value in labels.items() if value != 0}
    if "ignore" in labels:
        raise InputError(
            f"{root / 'dataset.json'} has the label 'ignore', which is not supported: give it a meaning or remove it."
        )
    scheme = str(description.get("name") or root.name)
    regions = {name: sorted(value) if isinstance(value, list) else [value] for name, value in labels.items()}
    if all(isinstance(value, int) for value in labels.values()):
        return Task(scheme, scheme, labels, channels, regions, dict(labels))
    # The regions overlap, so that a single value has no name of its own
    values = sorted({value for region in regions.values() for value in region})
    order = description.get("regions_class_order")
    labels_out = dict(zip(regions, order, strict=False)) if order else None
    return Task(scheme, scheme, {f"label {value}": value for value in values}, channels, regions, labels_out)


def _same(one: Task, other: Task) -> bool:
    def plain(task: Task) -> tuple:
        return [name.lower() for name in task.channels], {name.lower(): value for name, value in task.labels.items()}

    return plain(one) == plain(other)


def _image_of(entry: Any) -> str:
    return str(entry["image"] if isinstance(entry, dict) else entry)


def _decathlon_cases(root: Path, description: Mapping[str, Any], stacked: bool) -> list[Case]:
    cases = []
    for part in ("training", "test"):
        for entry in description.get(part) or []:
            image = root / _image_of(entry)
            label = root / str(entry["label"]) if isinstance(entry, dict) and "label" in entry else None
            case = Case(image.name.removesuffix(".gz").removesuffix(".nii"), [image], label, stacked)
            if part == "training" and label is None:
                case.problems.append(f"dataset.json lists {image} for training without a label: add it.")
            for path in (image, label):
                if path and not path.is_file():
                    case.problems.append(
                        f"{path} is listed in dataset.json but not there: add it, or remove its entry."
                    )
            cases.append(case)
    return sorted(cases, key=lambda case: case.case)


def _nnunet_cases(root: Path, channels: Sequence[str], ending: str) -> list[Case]:
    cases = []
    for folder, labels in (("imagesTr", "labelsTr"), ("imagesTs", None)):
        for name, images in sorted(_numbered(sorted((root / folder).glob(f"*{ending}")), ending).items()):
            case = Case(name, [images[i] for i in range(len(channels)) if i in images])
            for i, channel in enumerate(channels):
                if i not in images:
                    wanted = root / folder / f"{name}_{i:04d}{ending}"
                    case.problems.append(f"case {name} lacks channel {channel}: expected {wanted}; add the file.")
            if max(images) >= len(channels):
                case.problems.append(
                    f"{images[max(images)]} is a channel that dataset.json does not name: name it or remove it."
                )
            if labels:
                case.label = root / labels / f"{name}{ending}"
                if not case.label.is_file():
                    case.problems.append(f"{case.label} is not there: a case of {folder} needs its label; add it.")
            cases.append(case)
    return sorted(cases, key=lambda case: case.case)


def _numbered(paths: Iterable[Path], ending: str) -> dict[str, dict[int, Path]]:
    found: dict[str, dict[int, Path]] = {}
    for path in paths:
        if match := re.fullmatch(rf"(?P<case>[^.].*)_(?P<channel>\d{{4}}){re.escape(ending)}", path.name):
            found.setdefault(match["case"], {})[int(match["channel"])] = path
    return found
