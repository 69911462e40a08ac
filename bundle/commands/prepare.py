"""How does a folder of scans become a data list? It is recognised, checked, split by patient, written and shown."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from bundle.cohort.outliers import check_cases, cohort_notes, some
from bundle.cohort.recognise import (
    Case,
    Layout,
    Task,
    by_patterns,
    choose_task,
    example,
    known_tasks,
    recognise,
    unlabelled_among_labelled,
)
from bundle.cohort.splits import assign, cut, join, patients_of
from scripts.data.case_checks import Record, air
from scripts.data.images import ras_spacing, read_stored, to_ras
from scripts.data.pictures import grey
from scripts.errors import InputError
from scripts.files import write_json

CUSTOM = "custom"  # the label scheme of data that no task file describes, unless the user names it


def prepare(
    folder: str,
    out: str = "datalist.json",
    task: str | None = None,
    channels: str | None = None,
    label: str | None = None,
    labels: str | None = None,
    regions: str | None = None,
    label_scheme: str | None = None,
    group_by: str | None = None,
    folds: int = 5,
    test: float = 0.0,
    gap: int = 1,
    seed: int = 0,
    skip_bad: bool = False,
    allow_empty: bool = False,
    allow_unlabelled: bool = False,
    workers: int | None = None,
    picture: bool = True,
    overwrite: bool = False,
) -> None:
    r"""Recognise a folder of scans, check every file, split by patient; write the data list and a picture of the cases.

    Examples:
        python -m bundle prepare /data/BraTS2021
        python -m bundle prepare /data/BraTS2024 --task brats2024_post --test 0.2 --out brats2024.json
        python -m bundle prepare /data/mine --channels "T1c={case}/*t1c*.nii.gz,FLAIR={case}/*flair*.nii.gz" \
            --label "{case}/*mask*.nii.gz" --labels "lesion=1" --group-by "(.+)_visit"
        python -m bundle prepare /data/lgg-mri-segmentation/kaggle_3m
        python -m bundle prepare /data/cells --channels "grey=images/{case}.png" --label "masks/{case}.png" \
            --labels "cell=255"

    Args:
        folder: the data set: one of configs/tasks/, Medical Segmentation Decathlon, nnU-Net raw, or files by patterns.
        out: the data list to write; the picture goes beside it.
        task: a name of configs/tasks/ or a task file, instead of recognising one.
        channels: NAME=PATTERN for each channel, with commas between; {case} stands for the case's name, {patient} for
            the patient's, {slice} for the number of a slice. Channels in one file have the same pattern.
        label: the label's pattern.
        labels: NAME=VALUE for each label, with commas between, if no task says so.
        regions: NAME=VALUE+VALUE for each region to learn; every label is one by default.
        label_scheme: a name for these labels.
        group_by: a regular expression whose first group, in a case's name, is the patient.
        folds: how many.
        test: the share of the patients to set aside for judging, such as 0.2.
        gap: slices left out between the blocks, where the slices of one volume are cut into folds.
        seed: of the split.
        skip_bad: leave bad cases out and name them, instead of refusing.
        allow_empty: labels without tumour are fine.
        allow_unlabelled: cases without a label among labelled ones are fine.
        workers: processes; one a core by default.
        picture: draw the cases.
        overwrite: replace an existing list.

    Raises:
        InputError: nothing is recognised, a case is bad, there are fewer patients than folds, or `out` exists.
    """
    _check_options(folds, test, gap, seed, workers)
    target = _check_target(str(out), overwrite)
    root, tasks = Path(str(folder)).resolve(), known_tasks()
    files = _pairs("channels", channels), None if label is None else str(label)
    layout = _layout(str(folder), tasks, _task(tasks, task, *files, labels, regions, label_scheme), any(files))
    _doubt_missing_labels(layout.cases, root, allow_unlabelled)
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    for line in _recognised(str(folder), layout):
        say(line)
    # A wrong --folds or --group-by ends here, not after every file was read
    _split(layout.cases, layout.task, group_by, folds, test, gap, seed)

    records = check_cases(layout.cases, layout.task.expected(tasks, allow_empty), workers)
    left_out = _refuse_or_leave_out(records, root, skip_bad)
    records = [record for record in records if not record.problems]
    _require_one_kind(records)
    sound = {record.case for record in records}
    cases = [case for case in layout.cases if case.case in sound]
    twins = _twins(records)
    volumes = {record.case: record.volume for record in records}
    split = _split(cases, layout.task, group_by, folds, test, gap, seed, twins, volumes)
    cases = [case for case in cases if case.case not in split.gap]
    listed = {case.case for case in cases}
    records = [record for record in records if record.case in listed]
    notes = [
        *([] if records[0].spacing else ["the files tell no spacing, so that sizes and distances are in pixels."]),
        *left_out,
        *split.notes,
        *_twin_notes(twins),
        *_gathered(records),
        *cohort_notes(records),
        *_unseen_labels(records, layout.task, tasks),
    ]
    header = _header(root, layout, records, folds, seed, [*layout.notes, *notes])
    write_json(target, header | _entries(cases, root, split))

    Console(highlight=False).print(_table(cases, split, volumes, _amount_unit(header)))
    for note in notes:
        say(f"note: {note}")
    say(f"written: {target}")
    if picture:
        _draw(cases, layout.task, split.patients, volumes, root.name, target.with_suffix(".png"))
        say(f"written: {target.with_suffix('.png')} (look whether channels and outlines are where they belong)")


@dataclass
class Split:
    """Who is whose, and where: the patient of every case, the fold (or "test") of every patient with a label.

    Attributes:
        patients: by case.
        places: by patient.
        gap: cases that are in no part, since they lie between blocks of slices.
        notes: why it is so.
    """

    patients: dict[str, str]
    places: dict[str, int | str]
    gap: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _check_options(folds: int, test: float, gap: int, seed: int, workers: int | None) -> None:
    for name, value, least in (
        ("folds", folds, 2),
        ("gap", gap, 0),
        ("seed", seed, 0),
        ("workers", 1 if workers is None else workers, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"--{name} is {value!r}: give a whole number of {least} or more.")
    if isinstance(test, bool) or not isinstance(test, int | float) or not 0 <= test < 1:
        raise InputError(f"--test is {test!r}: give the share of the patients to set aside, such as 0.2.")


def _check_target(out: str, overwrite: bool) -> Path:
    """The list's path, if it can be written: better to know now than after every file was read."""
    target = Path(out)
    if target.suffix != ".json":
        raise InputError(f"--out is {out}: give the name of a file that ends in .json.")
    if target.exists() and not overwrite:
        raise InputError(f"{target} is there already: give another --out, or --overwrite to replace it.")
    above = next(path for path in target.resolve().parents if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(
            f"{target} cannot be written, {above} is not a folder that you may write to: choose another --out."
        )
    return target


def _pairs(option: str, text: str | None) -> dict[str, str]:
    """NAME=VALUE,NAME=VALUE as a dict."""
    if text is None:
        return {}
    pairs = [part.partition("=") for part in str(text).split(",")]
    if not all(name.strip() and value.strip() for name, _, value in pairs):
        raise InputError(f"--{option} is '{text}': give NAME=VALUE, with commas between if there are several.")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _task(
    tasks: Sequence[Task],
    name: str | None,
    channels: Mapping[str, str],
    label: str | None,
    labels: str | None,
    regions: str | None,
    label_scheme: str | None,
) -> Task | None:
    """The task that the options tell: one by name, with other files perhaps, or one made of them alone, or none."""
    if name is not None:
        if labels or regions or label_scheme:
            raise InputError(
                f"--labels, --regions and --label-scheme are told by task {name}: leave them out, or --task."
            )
        task = choose_task(str(name), tasks)
        if channels and set(channels) != set(task.channels):
            raise InputError(
                f"--channels has {', '.join(channels)}, task {name} needs {', '.join(task.channels)}: name these."
            )
        return replace(
            task,
            channel_files={role: [pattern] for role, pattern in channels.items()} or task.channel_files,
            label_files=[label] if label else task.label_files,
            case_names=None if channels else task.case_names,
        )
    if not channels:
        if label or labels or regions or label_scheme:
            raise InputError(
                "--label, --labels, --regions and --label-scheme need --channels beside them: give it, or a --task."
            )
        return None
    if label and not labels:
        raise InputError(
            'with --channels the labels must be named: add --labels "NAME=VALUE,...", or a --task that has them.'
        )
    values = {name: _value("labels", text) for name, text in _pairs("labels", labels).items()}
    parts = {name: [_value("regions", v) for v in text.split("+")] for name, text in _pairs("regions", regions).items()}
    if strange := sorted({value for part in parts.values() for value in part} - set(values.values())):
        raise InputError(f"--regions has the value {strange[0]}, which --labels does not name: add it there.")
    return Task(
        name="the command line",
        label_scheme=str(label_scheme or CUSTOM),
        labels=values,
        channels=list(channels),
        regions=parts or {name: [value] for name, value in values.items()},
        labels_out=None if parts else dict(values),
        channel_files={role: [pattern] for role, pattern in channels.items()},
        label_files=[label] if label else [],
    )


def _value(option: str, text: str) -> int:
    if not text.strip().isdigit() or int(text) == 0:
        raise InputError(f"--{option} has the value '{text}', expected a whole number above 0 (0 is the background).")
    return int(text)


def _layout(folder: str, tasks: Sequence[Task], task: Task | None, patterns: bool) -> Layout:
    if not (patterns and task):
        return recognise(folder, tasks, task)
    layout = by_patterns(folder, task)
    if task.label_files and not any(case.label for case in layout.cases):
        raise InputError(
            f"no file in {folder} fits the label's pattern {' or '.join(task.label_files)}{example(folder)}."
        )
    return layout


def _doubt_missing_labels(cases: Sequence[Case], root: Path, allow_unlabelled: bool) -> None:
    for case in [] if allow_unlabelled else unlabelled_among_labelled(cases, root):
        case.problems.append(
            f"case {case.case} has no label, but others of its folder have one: add it, or give --allow-unlabelled to"
            " list such cases for testing."
        )


def _recognised(folder: str, layout: Layout) -> list[str]:
    """What the user should read before the files are: a wrong guess shows here."""
    task = layout.task
    lines = [
        f"{folder}: {layout.name}, {len(layout.cases)} cases",
        f"channels: {', '.join(task.channels)}",
        f"label scheme: {task.scheme()}",
        "regions: " + ", ".join(f"{name}={'+'.join(map(str, values))}" for name, values in task.regions.items()),
    ]
    lines += [f"note: {note}" for note in layout.notes]
    without = sum(case.label is None for case in layout.cases)
    doubted = any(case.problems for case in layout.cases if case.label is None)
    verb, goes = ("cases have", "they go") if without > 1 else ("case has", "it goes")
    return [*lines, f"{without} {verb} no label{'.' if doubted else f': {goes} to `testing`.'}"] if without else lines


def _split(
    cases: Sequence[Case],
    task: Task,
    group_by: str | None,
    folds: int,
    test: float,
    gap: int,
    seed: int,
    twins: Iterable[Sequence[str]] = (),
    volumes: Mapping[str, float] | None = None,
) -> Split:
    """Share the patients out; where slices tell no patient and are of too few volumes for that, cut the volumes."""
    pattern = task.patient_names if group_by is None else str(group_by)
    patients = patients_of([case.case for case in cases], pattern, strict=group_by is not None)
    if pattern is None:
        patients = {case.case: case.patient or case.volume or case.case for case in cases}
        # A bad case may have lost its label, and is counted until it is left out
        stacks = {case.volume for case in cases if case.volume and not case.patient and (case.label or case.problems)}
        if stacks and len(stacks) < folds + (test > 0):
            return _split_in_blocks(cases, sorted(stacks), folds, test, gap, twins)
    patients = join(patients, twins)
    amounts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for case in cases:
        if case.label or case.problems:
            time_point = "" if case.slice is not None else case.case  # slices add up, time points do not
            amounts[patients[case.case]][time_point] += (volumes or {}).get(case.case, 0.0)
    largest = {patient: max(each.values()) for patient, each in amounts.items()}
    return Split(patients, assign(largest, folds, test, seed) if largest else {})


def _split_in_blocks(
    cases: Sequence[Case], stacks: Sequence[str], folds: int, test: float, gap: int, twins: Iterable[Sequence[str]]
) -> Split:
    split = Split({case.case: case.patient or case.volume or case.case for case in cases}, {})
    places = [*range(folds), *(["test"] if test else [])]
    for stack in stacks:
        slices = [case.case for case in cases if case.volume == stack and (case.label or case.problems)]
        blocks, between = cut(slices, folds, test, gap)
        split.gap += between
        for number, (block, place) in enumerate(zip(blocks, places, strict=True), start=1):
            split.patients.update(dict.fromkeys(block, f"{stack} block {number}"))
            split.places[f"{stack} block {number}"] = place
    for same in twins:
        if len({split.places.get(split.patients[case]) for case in same} - {None}) > 1:
            raise InputError(
                f"slices {' and '.join(same)} hold the same pixels but lie in different folds: remove one of them."
            )
    split.notes.append(
        f"no patient is told and there are too few volumes to share out ({some(stacks)}), so each is cut into"
        f" {len(places)} consecutive blocks: neighbouring slices are alike, and a split at random would judge on what"
        " was learned."
    )
    if split.gap:
        split.notes.append(f"left out, so that no two blocks touch (--gap {gap}): {some(split.gap, most=20)}.")
    return split


def _require_one_kind(records: Sequence[Record]) -> None:
    """Every case has as many axes as the others, and either all or none have a spacing."""
    kinds: dict[str, str] = {}
    for record in records:
        kinds.setdefault(f"{len(record.shape)} axes and {'a' if record.spacing else 'no'} spacing", record.case)
    if len(kinds) > 1:
        (one, case), (other, another), *_ = kinds.items()
        raise InputError(
            f"case {case} has {one}, case {another} has {other}: no network takes both; give them in two folders."
        )


def _refuse_or_leave_out(records: Sequence[Record], root: Path, skip_bad: bool) -> list[str]:
    """Say what is wrong with each bad case; with `skip_bad`, as notes.

    Raises:
        InputError: a case is bad and `skip_bad` is not given, or all are.
    """
    bad = {r.case: [text.replace(f"{root}{os.sep}", "") for text in r.problems] for r in records if r.problems}
    if bad and (not skip_bad or len(bad) == len(records)):
        for case, problems in bad.items():
            print(f"{case}:", *problems, sep="\n  - ", file=sys.stderr)
        way = "mend them" if skip_bad else "mend them, or leave them out with --skip-bad"
        raise InputError(f"{len(bad)} of {len(records)} cases are bad, as listed above: {way}.")
    return [f"left out {case}: {' '.join(problems)}" for case, problems in bad.items()]


def _twins(records: Sequence[Record]) -> dict[tuple[str, ...], list[str]]:
    """Groups of cases that share voxels, whatever their files are called, with the channels that they share."""
    owners: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in records:
        for channel, digest in record.channels.items():
            owners[channel, digest].append(record.case)
    twins: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for (channel, _), cases in owners.items():
        if len(cases) > 1:
            twins[tuple(cases)].append(channel)
    return dict(twins)


def _twin_notes(twins: Mapping[tuple[str, ...], Sequence[str]]) -> list[str]:
    return [
        f"{' and '.join(cases)} have the same voxels in {', '.join(channels)}: they count as one patient."
        for cases, channels in twins.items()
    ]


def _gathered(records: Sequence[Record]) -> list[str]:
    """The notes of single cases, each text once."""
    cases: dict[str, list[str]] = defaultdict(list)
    for record in records:
        for note in record.notes:
            cases[note].append(record.case)
    return [f"{note.rstrip('.')}: {some(names)}." for note, names in cases.items()]


def _unseen_labels(records: Sequence[Record], task: Task, tasks: Sequence[Task]) -> list[str]:
    """Labels of the scheme that no case has: chance, or a sign that the scheme is another."""
    seen = {value for record in records for value in record.counts}
    unseen = [f"{name}={value}" for name, value in task.labels.items() if value not in {*seen, task.labels_fill}]
    if not seen or not unseen:
        return []
    others = [t for t in tasks if t.channel_files and t.channel_files == task.channel_files and t.name != task.name]
    fitting = [t.name for t in others if seen <= set(t.labels.values()) and t.fits(records[0].case)]
    hint = f" ({' or '.join(fitting)} would fit these values too)" if fitting else ""
    return [
        f"no case has the label {', '.join(unseen)}: make sure that {task.label_scheme} is the scheme of these data"
        f"{hint}."
    ]


def _header(
    root: Path, layout: Layout, records: Sequence[Record], folds: int, seed: int, notes: Sequence[str]
) -> dict[str, Any]:
    task = layout.task
    hashes = {_relative(path, root): value for record in records for path, value in record.hashes.items()}
    return {
        "name": root.name,
        "layout": layout.name,
        "channels": task.channels,
        "label_scheme": task.label_scheme,
        "labels": task.labels,
        "regions": task.regions,
        **({"labels_out": task.labels_out} if task.labels_out else {}),
        **({"boundaries": task.boundaries} if task.boundaries else {}),
        "dimensions": len(records[0].shape),
        "unit": "mm" if records[0].spacing else "pixel",
        "seed": seed,
        "folds": folds,
        "notes": list(notes),
        "hashes": dict(sorted(hashes.items())),
        "voxels": {record.case: record.voxels for record in records},
    }


def _amount_unit(header: Mapping[str, Any]) -> str:
    """What tumours are measured in."""
    return "pixels" if header["unit"] == "pixel" else {2: "cm²", 3: "ml"}[header["dimensions"]]


def _entries(cases: Sequence[Case], root: Path, split: Split) -> dict[str, list[dict[str, Any]]]:
    parts: dict[str, list[dict[str, Any]]] = {"training": [], "testing": []}
    for case in cases:
        images = [_relative(path, root) for path in case.images]
        entry: dict[str, Any] = {"image": images[0] if case.stacked else images}
        if case.label:
            entry["label"] = _relative(case.label, root)
        entry |= {"case": case.case, "patient": split.patients[case.case]}
        if case.slice is not None:
            entry |= {"volume": case.volume, "slice": case.slice}
        if case.label:
            place = split.places[entry["patient"]]
            entry |= {"split": "test"} if place == "test" else {"fold": place}
        parts["training" if case.label else "testing"].append(entry)
    return parts


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _table(cases: Sequence[Case], split: Split, volumes: Mapping[str, float], unit: str) -> Table:
    """Cases, patients and tumour volumes of each fold, of the test set and of the cases without a label."""
    empty = any(case.label and not volumes[case.case] for case in cases)
    table = Table(box=box.SIMPLE_HEAD)
    amounts = f"{'labelled' if unit == 'pixels' else 'tumour in'} {unit}: median (least to most)"
    for name in ("part", "cases", "patients", *(["empty"] if empty else []), amounts):
        table.add_column(name, justify="left" if name == "part" else "right")
    parts: dict[str, list[str]] = {f"fold {k}": [] for k in sorted(p for p in split.places.values() if p != "test")}
    for case in cases:
        place = split.places[split.patients[case.case]] if case.label else None
        name = "testing (no label)" if place is None else "test (set aside)" if place == "test" else f"fold {place}"
        parts.setdefault(name, []).append(case.case)
    digits = 0 if unit == "pixels" else 1
    for name, members in parts.items():
        sizes = [volumes[case] for case in members if volumes[case] or not empty]
        least, most = min(sizes, default=0.0), max(sizes, default=0.0)
        amount = f"{np.median(sizes or [0]):.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"
        row = [name, str(len(members)), str(len({split.patients[case] for case in members}))]
        row += [str(len(members) - len(sizes))] * empty + [amount]
        table.add_row(*([*row[:3]] if "no label" in name else row))
    return table


def _draw(
    cases: Sequence[Case], task: Task, patients: Mapping[str, str], volumes: Mapping[str, float], title: str, path: Path
) -> None:
    from bundle.drawing.slices import contact_sheet
    from bundle.drawing.slices import evenly_spaced as spread

    fullest: dict[str, Case] = {}  # of each patient's slices the one with most tumour
    for case in cases:
        group = case.case if case.slice is None else patients[case.case]
        if group not in fullest or volumes[case.case] > volumes[fullest[group].case]:
            fullest[group] = case
    labels = {name: value for name, value in task.labels.items() if value != task.labels_fill}
    views = (_view(case, task.labels_fill) for case in spread(list(fullest.values())))
    contact_sheet(views, path, task.channels, labels, of=len(cases), title=title)


def _view(case: Case, background: int = 0) -> dict[str, Any]:
    """The case as `bundle.drawing.slices` draws it: in RAS, with air at 0; a picture as it would be seen."""
    images = [read_stored(path)[0] for path in case.images]
    affine = images[0].affine
    arrays = np.moveaxis(images[0].voxels, -1, 0) if case.stacked else [grey(image.voxels) for image in images]
    label = read_stored(case.label)[0].voxels if case.label else None
    return {
        "case": case.case,
        "image": [to_ras(_without_air(array.astype(np.float32)), affine) for array in arrays],
        "label": None if label is None else to_ras(np.rint(label).astype(np.int16), affine),
        "spacing": None if affine is None else ras_spacing(images[0], arrays[0].ndim),
        "background": background,
    }


def _without_air(array: np.ndarray) -> np.ndarray:
    """With air at 0, where there is any: the sides of a microscope's picture have no one value."""
    outside, share = air(array)
    return array - outside if share > 0.5 else array
