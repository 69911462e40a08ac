"""The `prepare` command: write the data list of a folder of scans, and a picture of its cases."""

import os
import sys
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from bundle.cohort.case_views import fullest_cases, view_case
from bundle.cohort.datalist_maker import BadCases, DataList, make_datalist, read_layout
from bundle.cohort.splits import SplitOptions
from bundle.cohort.tasks import FolderLayout, Task, known_tasks
from bundle.commands.shared import require_whole
from scripts.errors import InputError
from scripts.files import write_json


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
        test: the share of the patients to set aside for scoring, such as 0.2.
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
    require_whole(2, folds=folds)
    require_whole(0, gap=gap, seed=seed)
    require_whole(1, workers=1 if workers is None else workers)
    if isinstance(test, bool) or not isinstance(test, int | float) or not 0 <= test < 1:
        raise InputError(f"--test is {test!r}: give the share of the patients to set aside, such as 0.2.")
    folder, target, tasks = str(folder), _check_target(str(out), overwrite), known_tasks()
    options = {"name": task, "channels": channels, "label": label, "labels": labels, "regions": regions}
    options["label_scheme"] = label_scheme
    texts = {name: str(value) for name, value in options.items() if value is not None}  # Fire makes numbers of some
    layout = read_layout(folder, tasks, allow_unlabelled, **texts)
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    for line in _recognised(folder, layout):  # before the files are read: a wrong guess shows here
        say(line)
    try:
        how = SplitOptions(folds, test, gap, seed, group_by)
        made = make_datalist(folder, layout, tasks, how, skip_bad, allow_empty, workers)
    except BadCases as error:
        for case, problems in error.problems.items():
            print(f"{case}:", *problems, sep="\n  - ", file=sys.stderr)
        raise
    write_json(target, made.content)

    Console(highlight=False).print(_table(made))
    for note in made.notes:
        say(f"note: {note}")
    say(f"written: {target}")
    if picture:
        _draw(made, layout.task, target.with_suffix(".png"))
        say(f"written: {target.with_suffix('.png')} (look whether channels and outlines are where they belong)")


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


def _recognised(folder: str, layout: FolderLayout) -> list[str]:
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


def _table(made: DataList) -> Table:
    """Cases, patients and tumour volumes of each part."""
    parts, pixels = made.parts(), made.unit == "pixels"
    empty = any(case.label and not made.volumes[case.case] for case in made.cases)
    table = Table(box=box.SIMPLE_HEAD)
    amounts = f"{'labelled' if pixels else 'tumour in'} {made.unit}: median (least to most)"
    for name in ("part", "cases", "patients", *(["empty"] if empty else []), amounts):
        table.add_column(name, justify="left" if name == "part" else "right")
    digits = 0 if pixels else 1
    for part in parts:
        row = [part.name, str(len(part.cases)), str(len(part.patients))]
        if "no label" not in part.name:
            sizes = [volume for volume in part.volumes if volume]
            row += [str(len(part.cases) - len(sizes))] * empty
            least, most = min(sizes, default=0.0), max(sizes, default=0.0)
            row.append(f"{np.median(sizes or [0]):.{digits}f} ({least:.{digits}f} to {most:.{digits}f})")
        table.add_row(*row)
    return table


def _draw(made: DataList, task: Task, path: Path) -> None:
    from bundle.drawing.slices import draw_contact_sheet, evenly_spaced  # matplotlib, which no list needs

    labels = {name: value for name, value in task.labels.items() if value != task.labels_fill}
    cases = evenly_spaced(fullest_cases(made.cases, made.split.patients, made.volumes))
    views = (view_case(case, task.labels_fill) for case in cases)
    draw_contact_sheet(views, path, task.channels, labels, of=len(made.cases), title=made.content["name"])
