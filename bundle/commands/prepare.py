"""The `prepare` command: write the data list of a folder of scans, and a picture of its cases."""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt
from rich import box
from rich.console import Console
from rich.table import Table

from bundle.analysis.strict_json import to_strict_json
from bundle.cohort.case_views import fullest_cases, view_case
from bundle.cohort.datalist_maker import BadCases, DataList, make_datalist, read_layout
from bundle.cohort.kept_checks import checks_path
from bundle.cohort.splits import SplitOptions
from bundle.cohort.tasks import FolderLayout, Task, known_tasks
from bundle.commands.arguments import Optional, check_arguments
from bundle.commands.shared import Outcome
from scripts.data.case_files import Case
from scripts.data.slides import is_slide
from scripts.errors import InputError
from scripts.files import write_json


@check_arguments
def prepare(
    folder: Path,
    *,
    out: Path = Path("datalist.json"),
    task: Optional[str] = None,
    channels: Optional[str] = None,
    label: Optional[str] = None,
    labels: Optional[str] = None,
    regions: Optional[str] = None,
    label_scheme: Optional[str] = None,
    raters: Optional[str] = None,
    ignore: Optional[PositiveInt] = None,
    group_by: Optional[str] = None,
    sites: Optional[str] = None,
    folds: Annotated[int, Field(ge=2)] = 5,
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    gap: NonNegativeInt = 1,
    seed: NonNegativeInt = 0,
    skip_bad: bool = False,
    allow_empty: bool = False,
    allow_unlabelled: bool = False,
    workers: Optional[PositiveInt] = None,
    recheck: bool = False,
    picture: bool = True,
    overwrite: bool = False,
) -> Outcome:
    r"""Recognise a folder of scans, check every file, split by patient; write the data list and a picture of the cases.

    Examples:
        python -m bundle prepare /data/BraTS2021
        python -m bundle prepare /data/BraTS2024 --task brats2024_post --test 0.2 --out brats2024.json
        python -m bundle prepare /data/mine --channels "T1c={case}/*t1c*.nii.gz,FLAIR={case}/*flair*.nii.gz" \
            --label "{case}/*mask*.nii.gz" --labels "lesion=1" --group_by "(.+)_visit"
        python -m bundle prepare /data/lgg-mri-segmentation/kaggle_3m
        python -m bundle prepare /data/cells --channels "grey=images/{case}.png" --label "masks/{case}.png" \
            --labels "cell=255"

    Args:
        folder: the data set: one of configs/tasks/, Medical Segmentation Decathlon, nnU-Net raw, or files by patterns.
        out: the data list to write; the picture is written next to it.
        task: a name of configs/tasks/ or a task file, instead of recognising one.
        channels: NAME=PATTERN for each channel, with commas between; {case} stands for the case's name, {patient} for
            the patient's, {slice} for the number of a slice. Channels in one file have the same pattern.
        label: the label's pattern.
        labels: NAME=VALUE for each label, with commas between, if no task says so.
        regions: NAME=VALUE+VALUE for each region that is segmented; every label is one by default.
        label_scheme: a name for these labels.
        raters: NAME=PATTERN for the label of each of several raters, with commas between, in place of --label; a rater
            need not have drawn every case.
        ignore: the label value of voxels that count in no loss and no metric, such as 255.
        group_by: a regular expression whose first group, in a case's name, is the patient.
        sites: the site of each case, for scores by site: a CSV file with the columns site and case (or patient), or a
            regular expression whose first group, in a case's name, is the site.
        folds: number of cross-validation folds.
        test: the share of the patients that are held out as test patients, such as 0.2.
        gap: slices left out between the blocks, where the slices of one volume are cut into folds.
        seed: random seed of the split.
        skip_bad: leave bad cases out and name them, instead of refusing.
        allow_empty: accept labels without tumour.
        allow_unlabelled: accept cases without a label among labelled ones.
        workers: number of worker processes; one per core by default.
        recheck: check again the cases that passed before and have not changed since.
        picture: draw the cases.
        overwrite: replace an existing list.

    Raises:
        InputError: nothing is recognised, a case is bad, there are fewer patients than folds, or `out` exists.
    """
    target, tasks = _check_target(out, overwrite), known_tasks()
    described = {
        "channels": channels,
        "label": label,
        "labels": labels,
        "regions": regions,
        "label_scheme": label_scheme,
        "raters": raters,
        "ignore": ignore,
    }
    layout = read_layout(folder, tasks, allow_unlabelled, name=task, **described)
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    for line in _recognised(folder, layout):  # before the files are read: a wrong guess shows here
        say(line)
    try:
        how = SplitOptions(folds, test, gap, seed, group_by, sites)
        kept = checks_path(target, folder)
        pictures_of = _pictures_of(layout) if picture else None
        made = make_datalist(folder, layout, tasks, how, skip_bad, allow_empty, workers, kept, recheck, pictures_of)
    except BadCases as error:
        for case, problems in error.problems.items():
            print(f"{case}:", *problems, sep="\n  - ", file=sys.stderr)
        raise
    write_json(target, made.content)

    if made.unchanged:
        say(f"{made.unchanged} cases passed the checks before and have not changed: --recheck checks them again")
    Console(highlight=False).print(_table(made))
    for note in made.notes:
        say(f"note: {note}")
    say(f"written: {target}")
    if picture and is_slide(made.cases[0].images[0]):
        say("note: slides are not drawn: look at them in a viewer.")
    elif picture:
        _draw(made, layout.task, target.with_suffix(".png"))
        say(f"written: {target.with_suffix('.png')} (look whether channels and outlines are where they belong)")
    parts = [part._asdict() | {"patients": sorted(part.patients)} for part in made.parts()]
    return Outcome(lambda: to_strict_json({"datalist": str(target), "unit": made.unit, "parts": parts}))


def _check_target(target: Path, overwrite: bool) -> Path:
    """The list's path, if it can be written: better to know now than after every file was read."""
    if target.suffix != ".json":
        raise InputError(f"--out is {target}: give the name of a file that ends in .json.")
    if target.exists() and not overwrite:
        raise InputError(f"{target} is there already: give another --out, or --overwrite to replace it.")
    above = next(path for path in target.resolve().parents if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(
            f"{target} cannot be written, {above} is not a folder that you may write to: choose another --out."
        )
    return target


def _recognised(folder: Path, layout: FolderLayout) -> list[str]:
    task = layout.task
    lines = [
        f"{folder}: {layout.name}, {len(layout.cases)} cases",
        f"channels: {', '.join(task.channels)}",
        f"label scheme: {task.scheme()}",
        "regions: " + ", ".join(f"{name}={'+'.join(map(str, values))}" for name, values in task.regions.items()),
    ]
    lines += [f"raters: {', '.join(task.rater_files)}"] if task.rater_files else []
    lines += [] if task.ignore is None else [f"ignored: voxels with the label {task.ignore}"]
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


def _pictures_of(layout: FolderLayout) -> dict[str, Callable[[Case], Any]]:
    """For the volumes that the picture will most likely show: how to make their rows."""
    from bundle.drawing.slices import evenly_spaced  # matplotlib, which no list needs

    make_row = partial(_make_row, fill=layout.task.labels_fill, ignore=layout.task.ignore)
    return {case.case: make_row for case in evenly_spaced(layout.cases) if case.slice is None}


def _make_row(case: Case, fill: int, ignore: int | None) -> Any:
    from bundle.drawing.slices import CaseView

    return CaseView(view_case(case, fill, ignore=ignore))


def _draw(made: DataList, task: Task, path: Path) -> None:
    from bundle.drawing.slices import draw_contact_sheet, evenly_spaced

    labels = {name: value for name, value in task.labels.items() if value != task.labels_fill}
    cases = evenly_spaced(fullest_cases(made.cases, made.split.patients, made.volumes))
    views = (made.pictures.get(case.case) or _make_row(case, task.labels_fill, task.ignore) for case in cases)
    draw_contact_sheet(views, path, task.channels, labels, of=len(made.cases), title=made.content["name"])
