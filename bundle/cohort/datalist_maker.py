"""Data lists of a folder of scans: its cases checked, split by patient and described."""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bundle.cohort.kept_checks import check_changed_cases
from bundle.cohort.outliers import outlier_notes, shortlist
from bundle.cohort.recognise import describe_scans, read_by_patterns, recognise_folder, unlabelled_among_labelled
from bundle.cohort.sites import find_sites
from bundle.cohort.splits import Split, SplitOptions, note_time_points, split_cases
from bundle.cohort.tasks import FolderLayout, Task, task_from_options
from scripts.data.case_files import Case
from scripts.data.case_record import CaseRecord
from scripts.data.datalist import check_names
from scripts.errors import InputError


class BadCases(InputError):
    """Some cases cannot be used; `problems` holds the sentences of each."""

    def __init__(self, message: str, problems: Mapping[str, Sequence[str]]) -> None:
        super().__init__(message)
        self.problems = problems


class DatalistPart(NamedTuple):
    """A fold, the test set or the cases without a label: its cases and patients, and the cases' tumour volumes."""

    name: str
    cases: list[str]
    patients: set[str]
    volumes: list[float]


@dataclass
class DataList:
    """A data list and what it was made of."""

    content: dict[str, Any]  # as it is written to the file
    cases: list[Case]
    split: Split
    volumes: dict[str, float]  # each case's tumour volume, in `unit`
    unit: str  # ml, cm² or pixels
    notes: list[str]  # what the user should know
    unchanged: int  # cases that had passed before and were not read again
    pictures: dict[str, Any]  # by case, of those that were made while the cases were checked

    def parts(self) -> list[DatalistPart]:
        """The folds in order, then the test set and the cases without a label where there are any."""
        places = self.split.places
        parts: dict[str, list[str]] = {f"fold {k}": [] for k in sorted(p for p in places.values() if p != "test")}
        for case in self.cases:
            place = places[self.split.patients[case.case]] if case.label else None
            name = "testing (no label)" if place is None else "test (held out)" if place == "test" else f"fold {place}"
            parts.setdefault(name, []).append(case.case)
        return [
            DatalistPart(
                name, cases, {self.split.patients[case] for case in cases}, [self.volumes[case] for case in cases]
            )
            for name, cases in parts.items()
        ]


def read_layout(folder: str, tasks: Sequence[Task], allow_unlabelled: bool = False, **options: Any) -> FolderLayout:
    """Recognise a folder, or read it by the patterns that the options, those of `task_from_options`, give.

    A case without a label among labelled ones is a problem of that case.
    """
    task = task_from_options(tasks, **options)
    if task and (options.get("channels") or options.get("label") or options.get("raters")):
        layout = read_by_patterns(folder, task)
        if task.label_files and not task.rater_files and not any(case.label for case in layout.cases):
            patterns = " or ".join(task.label_files)
            raise InputError(f"no file in {folder} fits the label's pattern {patterns}{describe_scans(folder)}.")
    else:
        layout = recognise_folder(folder, tasks, task)
    expected = layout.task.rater_files if options.get("raters") or any(case.labels for case in layout.cases) else {}
    for rater, some in expected.items():
        if not any(rater in case.labels for case in layout.cases):
            patterns = " or ".join(some)
            raise InputError(
                f"no file in {folder} fits the pattern of rater {rater}, {patterns}{describe_scans(folder)}."
            )
    for case in [] if allow_unlabelled else unlabelled_among_labelled(layout.cases, folder):
        case.problems.append(
            f"case {case.case} has no label, but others of its folder have one: add it, or give --allow_unlabelled to"
            " list such cases for testing."
        )
    return layout


def make_datalist(
    folder: str,
    layout: FolderLayout,
    tasks: Sequence[Task],
    how: SplitOptions,
    skip_bad: bool = False,
    allow_empty: bool = False,
    workers: int | None = None,
    kept: Path | None = None,
    recheck: bool = False,
    pictures_of: Mapping[str, Callable[[Case], Any]] | None = None,
) -> DataList:
    """Check every file of a layout, split its cases by patient and list them.

    The list's paths start from `folder`; `tasks` are other tasks, which may know label values that the layout's task
    does not. With `skip_bad`, bad cases are left out, each with a note. `workers` are processes, by default one per
    core. `kept` is the file of the checks passed before, and `recheck` repeats these (`check_changed_cases`).
    `pictures_of` is for `bundle.cohort.outliers.check_cases`.

    Raises:
        BadCases: cases are bad and `skip_bad` is not given, or all are.
        InputError: there are fewer patients than folds, cases of two kinds, or a name that a list cannot hold.
    """
    root, task = Path(folder).resolve(), layout.task
    check_names({"training": [_entry(case, case.patient or case.case, root) for case in layout.cases]}, folder)
    split_cases(layout.cases, task, how)  # fails on wrong options before every file is read
    expected = task.expected(tasks, allow_empty)
    records, unchanged = check_changed_cases(layout.cases, expected, kept, recheck, workers, pictures_of)
    made_pictures = {record.case: record.picture for record in records if record.picture}
    left_out = _refuse_or_leave_out(records, root, skip_bad)
    records = [record for record in records if not record.problems]
    _require_one_kind(records)
    sound = {record.case for record in records}
    cases = [case for case in layout.cases if case.case in sound]
    twins = _twins(records)
    volumes = {record.case: record.volume for record in records}
    split = split_cases(cases, task, how, twins, volumes)
    if how.sites:
        split.sites = find_sites({case.case: split.patients[case.case] for case in cases}, how.sites)
    cases = [case for case in cases if case.case not in split.gap]
    records = [record for record in records if record.case not in split.gap]
    notes = [
        *([] if records[0].spacing else ["no spacing in the files: sizes and distances are in pixels."]),
        *left_out,
        *_missing_raters(cases, task),
        *split.notes,
        *note_time_points(split.patients[case.case] for case in cases),
        *(
            f"{' and '.join(same)} have the same voxels in {', '.join(channels)}: treated as one patient."
            for same, channels in twins.items()
        ),
        *_gathered(records),
        *outlier_notes(records),
        *_unseen_labels(records, task, tasks),
    ]
    content = _header(root, layout, records, how, [*layout.notes, *notes]) | _entries(cases, root, split)
    unit = {2: "cm²", 3: "ml"}[len(records[0].shape)] if records[0].spacing else "pixels"
    return DataList(content, cases, split, volumes, unit, notes, unchanged, made_pictures)


def _require_one_kind(records: Sequence[CaseRecord]) -> None:
    """Every case has as many axes as the others, and either all or none have a spacing."""
    kinds: dict[str, str] = {}
    for record in records:
        kinds.setdefault(f"{len(record.shape)} axes and {'a' if record.spacing else 'no'} spacing", record.case)
    if len(kinds) > 1:
        (one, case), (other, another), *_ = kinds.items()
        raise InputError(
            f"case {case} has {one}, case {another} has {other}: one network cannot take both; prepare them as two"
            " folders."
        )


def _refuse_or_leave_out(records: Sequence[CaseRecord], root: Path, skip_bad: bool) -> list[str]:
    """A note for each bad case; `BadCases` if they may not be left out, or are all."""
    bad = {r.case: [text.replace(f"{root}{os.sep}", "") for text in r.problems] for r in records if r.problems}
    if bad and (not skip_bad or len(bad) == len(records)):
        way = "correct them" if skip_bad else "correct them, or leave them out with --skip_bad"
        raise BadCases(f"{len(bad)} of {len(records)} cases are bad, as listed above: {way}.", bad)
    return [f"left out {case}: {' '.join(problems)}" for case, problems in bad.items()]


def _missing_raters(cases: Sequence[Case], task: Task) -> list[str]:
    """A note for each rater who has not drawn every labelled case, and one for the cases with a single rater."""
    labelled = [case for case in cases if case.labels]
    lacking = {rater: [case.case for case in labelled if rater not in case.labels] for rater in task.rater_files}
    found = [
        f"{rater} has not drawn {len(names)} of {len(labelled)} cases: {shortlist(names)}."
        for rater, names in lacking.items()
        if names
    ]
    single = [case.case for case in labelled if len(case.labels) == 1]
    number = f"{len(single)} case{'s' * (len(single) > 1)}"
    return [*found, *([f"only one rater has drawn {number}: {shortlist(single)}."] if single else [])]


def _twins(records: Sequence[CaseRecord]) -> dict[tuple[str, ...], list[str]]:
    """Groups of cases with identical voxels, by the channels that are identical."""
    owners: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in records:
        for channel, digest in record.channels.items():
            owners[channel, digest].append(record.case)
    twins: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for (channel, _), cases in owners.items():
        if len(cases) > 1:
            twins[tuple(cases)].append(channel)
    return dict(twins)


def _gathered(records: Sequence[CaseRecord]) -> list[str]:
    """The notes of single cases, each text once."""
    cases: dict[str, list[str]] = defaultdict(list)
    for record in records:
        for note in record.notes:
            cases[note].append(record.case)
    return [f"{note.rstrip('.')}: {shortlist(names)}." for note, names in cases.items()]


def _unseen_labels(records: Sequence[CaseRecord], task: Task, tasks: Sequence[Task]) -> list[str]:
    """Labels of the scheme that no case has: by chance, or because the data have another scheme."""
    seen = {value for record in records for value in record.counts}
    unseen = [f"{name}={value}" for name, value in task.labels.items() if value not in {*seen, task.labels_fill}]
    if not seen or not unseen:
        return []
    others = [t for t in tasks if t.channel_files and t.channel_files == task.channel_files and t.name != task.name]
    fitting = [t.name for t in others if seen <= set(t.labels.values()) and t.fits(records[0].case)]
    hint = f" ({' or '.join(fitting)} would fit these values too)" if fitting else ""
    return [
        f"no case has the label {', '.join(unseen)}: check that {task.label_scheme} is the scheme of these data{hint}."
    ]


def _header(
    root: Path, layout: FolderLayout, records: Sequence[CaseRecord], how: SplitOptions, notes: Sequence[str]
) -> dict[str, Any]:
    task = layout.task
    stripped = {record.stripped for record in records}
    hashes = {_relative(path, root): value for record in records for path, value in record.hashes.items()}
    return {
        "name": root.name,
        "layout": layout.name,
        "channels": task.channels,
        "label_scheme": task.label_scheme,
        "labels": task.labels,
        "regions": task.regions,
        **{key: getattr(task, key) for key in ("ignore", "labels_out", "boundaries") if getattr(task, key)},
        "dimensions": len(records[0].shape),
        "unit": "mm" if records[0].spacing else "pixel",
        **({"skull_stripped": stripped.pop()} if stripped in ({True}, {False}) else {}),
        "seed": how.seed,
        "folds": how.folds,
        "notes": list(notes),
        "hashes": dict(sorted(hashes.items())),
        "voxels": {record.case: record.voxels for record in records},
    }


def _entries(cases: Sequence[Case], root: Path, split: Split) -> dict[str, list[dict[str, Any]]]:
    parts: dict[str, list[dict[str, Any]]] = {"training": [], "testing": []}
    for case in cases:
        entry = _entry(case, split.patients[case.case], root)
        entry |= {"site": split.sites[case.case]} if split.sites else {}
        if case.label:
            place = split.places[entry["patient"]]
            entry |= {"split": "test"} if place == "test" else {"fold": place}
        parts["training" if case.label else "testing"].append(entry)
    return parts


def _entry(case: Case, patient: str, root: Path) -> dict[str, Any]:
    images = [_relative(path, root) for path in case.images]
    entry: dict[str, Any] = {"image": images[0] if case.stacked else images}
    if case.labels:
        entry["labels"] = {rater: _relative(path, root) for rater, path in case.labels.items()}
    elif case.label:
        entry["label"] = _relative(case.label, root)
    entry |= {"case": case.case, "patient": patient}
    return entry | ({"volume": case.volume, "slice": case.slice} if case.slice is not None else {})


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()
