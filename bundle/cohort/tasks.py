"""Segmentation tasks, read from configs/tasks/, chosen by name or given by options, and the cases of a folder."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from scripts.data.case_files import Case
from scripts.data.case_record import ExpectedCase
from scripts.data.raters import check_ignore, check_rater_names
from scripts.errors import InputError
from scripts.files import read_mapping

TASKS = Path(__file__).resolve().parents[2] / "configs" / "tasks"
NEEDED = ("label_scheme", "labels", "channels", "regions")
CUSTOM = "custom"  # the label scheme of data that no task file describes, unless the user names it


@dataclass(frozen=True)
class Task:
    """What is segmented: a file of `configs/tasks/`, or the same from the command line or a dataset.json."""

    name: str  # of the task file, as `--task` takes it
    label_scheme: str  # name of the meaning of label values
    labels: dict[str, int]  # values by name; the background is not listed if it is 0
    channels: list[str]  # in the order of the network's input
    regions: dict[str, list[int]]  # label values of each
    labels_out: dict[str, int] | None = None  # value of each region in one label map, later ones on top
    channel_files: dict[str, list[str]] = field(default_factory=dict)  # patterns, see `scripts.data.case_files`
    label_files: list[str] = field(default_factory=list)
    rater_files: dict[str, list[str]] = field(default_factory=dict)  # of each rater, in place of it
    ignore: int | None = None  # label value of voxels that count nowhere
    labels_fill: int = 0  # background, the value outside all regions
    empty_labels: bool = False  # whether labels of background alone are expected, as in slices
    boundaries: list[str] = field(default_factory=list)  # regions that separate cells, scored by that
    case_names: str | None = None  # a pattern of whole names, by which the task is recognised
    patient_names: str | None = None  # a pattern whose first group is the patient

    def fits(self, case: str) -> bool:
        """Whether a case of this task may have this name."""
        return not self.case_names or re.fullmatch(self.case_names, case) is not None

    def expected(self, others: Sequence[Task] = (), allow_empty: bool = False) -> ExpectedCase:
        """The expected content of a case; `others` are tasks that may know further label values."""
        labels, empty = frozenset(self.labels.values()), self.empty_labels or allow_empty
        hint = partial(_tasks_that_know, self, others)
        return ExpectedCase(self.channels, labels, self.scheme(), self.labels_fill, empty, hint, self.ignore)

    def scheme(self) -> str:
        """The label scheme in words, for messages."""
        return f"{self.label_scheme} ({', '.join(f'{name}={value}' for name, value in self.labels.items())})"


@dataclass
class FolderLayout:
    """A recognised folder: how it was recognised, its task, its cases, and notes for the user."""

    name: str
    task: Task
    cases: list[Case]
    notes: list[str] = field(default_factory=list)


def _tasks_that_know(task: Task, others: Sequence[Task], case: str, values: set[int]) -> str:
    knowing = [other for other in others if task.channel_files and values <= set(other.labels.values())]
    same_files = [other.name for other in knowing if other.channel_files == task.channel_files and other.fits(case)]
    related = [other.name for other in knowing if set(other.channels) == set(task.channels)]
    return f"; --task {same_files[0]} knows it" if same_files else f"; known to {', '.join(related)}" if related else ""


def read_task(path: str | os.PathLike) -> Task:
    """The task of a YAML file; an `InputError` names what cannot be read, is missing or contradicts itself."""
    path = Path(path)
    content = read_mapping(path)
    missing = [key for key in NEEDED if key not in content]
    if missing:
        raise InputError(f"the task file {path} has no {', '.join(missing)}: see configs/tasks/ for examples.")
    known = {key: content[key] for key in Task.__dataclass_fields__ if key in content}
    check_ignore(known.get("ignore"), known["labels"], known["regions"])
    check_rater_names(known.get("rater_files") or (), path)
    return Task(**{**known, "name": path.stem})


def known_tasks() -> list[Task]:
    """The tasks of `configs/tasks/`, by name."""
    return [read_task(path) for path in sorted(TASKS.glob("*.yaml"))]


def choose_task(name: str, tasks: Sequence[Task]) -> Task:
    """The task called `name`, or that of the file `name`; an `InputError` gives the nearest names."""
    known = {task.name: task for task in tasks}
    if name in known:
        return known[name]
    if Path(name).suffix in (".yaml", ".yml"):
        return read_task(name)
    near = difflib.get_close_matches(name, known, n=2)
    guess = f" (did you mean {' or '.join(near)}?)" if near else ""
    raise InputError(f"there is no task '{name}'{guess}: give a task file, or one of {', '.join(known)}.")


def task_from_options(
    tasks: Sequence[Task],
    name: str | None = None,
    channels: str | None = None,
    label: str | None = None,
    labels: str | None = None,
    regions: str | None = None,
    label_scheme: str | None = None,
    raters: str | None = None,
    ignore: int | None = None,
) -> Task | None:
    """The task of the options of `prepare`: by name, with other file patterns if given, or from the options alone.

    `name` is the option `--task`. None without options.
    """
    if label and raters:
        raise InputError("--label is the pattern of one label per case, --raters those of several: give one of them.")
    patterns = _pairs("channels", channels)
    channel_files = {role: [pattern] for role, pattern in patterns.items()}
    label_files = [label] if label else []
    rater_files = {rater: [pattern] for rater, pattern in _pairs("raters", raters).items()}
    check_rater_names(rater_files, "--raters")
    if name is not None:
        if labels or regions or label_scheme:
            raise InputError(
                f"--labels, --regions and --label_scheme are those of task {name}: leave them out, or --task."
            )
        task = choose_task(name, tasks)
        if patterns and set(patterns) != set(task.channels):
            raise InputError(
                f"--channels has {', '.join(patterns)}, task {name} needs {', '.join(task.channels)}: name these."
            )
        if ignore is not None:
            check_ignore(ignore, task.labels, task.regions)
        return replace(
            task,
            channel_files=channel_files or task.channel_files,
            label_files=label_files or task.label_files,
            rater_files=rater_files or ({} if label else task.rater_files),
            ignore=task.ignore if ignore is None else ignore,
            case_names=None if patterns else task.case_names,
        )
    if not patterns:
        if label or labels or regions or label_scheme or raters or ignore is not None:
            raise InputError(
                "--label, --raters, --labels, --regions, --label_scheme and --ignore need --channels: give it, or a"
                " --task."
            )
        return None
    if (label or raters) and not labels:
        raise InputError(
            f'with --{"label" if label else "raters"} the labels need names: add --labels "NAME=VALUE,...", or a'
            " --task that has them."
        )
    values = {name: _value("labels", text) for name, text in _pairs("labels", labels).items()}
    parts = {name: [_value("regions", v) for v in text.split("+")] for name, text in _pairs("regions", regions).items()}
    if strange := sorted({value for part in parts.values() for value in part} - set(values.values())):
        raise InputError(f"--regions has the value {strange[0]}, which --labels does not name: add it there.")
    regions_of = parts or {name: [value] for name, value in values.items()}
    check_ignore(ignore, values, regions_of)
    return Task(
        name="the command line",
        label_scheme=label_scheme or CUSTOM,
        labels=values,
        channels=list(patterns),
        regions=regions_of,
        labels_out=None if parts else dict(values),
        channel_files=channel_files,
        label_files=label_files,
        rater_files=rater_files,
        ignore=ignore,
    )


def _pairs(option: str, text: str | None) -> dict[str, str]:
    """NAME=VALUE,NAME=VALUE as a dict."""
    if text is None:
        return {}
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and value.strip() for name, _, value in pairs):
        raise InputError(f"--{option} is '{text}': expected NAME=VALUE, separated by commas.")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _value(option: str, text: str) -> int:
    if not text.strip().isdigit() or int(text) == 0:
        raise InputError(f"--{option} has the value '{text}', expected a whole number above 0 (0 is the background).")
    return int(text)
