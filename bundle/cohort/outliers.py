"""Checks over the cases of a cohort: every case in parallel, and outliers."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scripts.data import pictures
from scripts.data.case_checks import check_case
from scripts.data.case_files import Case
from scripts.data.case_record import CaseRecord, ExpectedCase
from scripts.data.nifti import read_once
from scripts.data.slide_checks import check_slide
from scripts.data.slides import is_slide
from scripts.parallel import map_in_processes

OUTLIER = 3.5  # modified z-scores, after Iglewicz and Hoaglin (1993)
SPREAD = 0.3  # of log intensity, at least: no case is an outlier below a factor of exp(3.5 * 0.3) = 2.9
SMALL = 20_000_000  # bytes; below this, starting processes costs more than it saves


def check_cases(
    cases: Sequence[Case],
    expected: ExpectedCase,
    workers: int | None = None,
    pictures_of: Mapping[str, Callable[[Case], Any]] | None = None,
) -> list[CaseRecord]:
    """Check every case, in `workers` processes (default: one per core), with a progress bar; sorted by case.

    `pictures_of` makes the picture of a sound case, by case, while its files are in memory.

    Raises:
        InputError: a process was killed, most likely out of memory.
    """
    if workers is None:
        files = {pictures.file_of_page(path) for case in cases for path in _files(case)}
        workers = 1 if sum(file.stat().st_size for file in files if file.is_file()) < SMALL else None
    records = map_in_processes(
        partial(_check, expected=expected, pictures_of=pictures_of or {}), cases, workers, desc="checking", unit="case"
    )
    return sorted(records, key=lambda record: record.case)


def _check(case: Case, expected: ExpectedCase, pictures_of: Mapping[str, Callable[[Case], Any]]) -> CaseRecord:
    if case.images and is_slide(case.images[0]):
        return check_slide(case, expected)
    make_picture = pictures_of.get(case.case)
    with read_once(_files(case) if make_picture else ()):
        record = check_case(case, expected)
        if make_picture and not record.problems:
            record.picture = make_picture(case)
    return record


def _files(case: Case) -> list[Path]:
    return [*case.images, *case.label_files().values()]


def outlier_notes(records: Sequence[CaseRecord]) -> list[str]:
    """Outliers in spacing, orientation, and intensity (a robust z-score of its log)."""
    notes = []
    for what, of in (
        ("spacing in mm", lambda r: " x ".join(map("{:g}".format, r.spacing or ()))),
        ("orientation", lambda r: r.orientation),
    ):
        common, count = Counter(map(of, records)).most_common(1)[0] if records else ("", 0)
        if others := [f"{record.case} ({of(record)})" for record in records if of(record) != common]:
            notes.append(f"{what}: {count} of {len(records)} cases have {common}; others: {shortlist(others)}.")
    for channel in dict.fromkeys(channel for record in records for channel in record.bright):
        slices = defaultdict(list)
        for record in records:
            if channel in record.bright:
                slices[record.group or record.case].append(record.bright[channel])
        values = {group: float(np.median(bright)) for group, bright in slices.items()}
        middle = float(np.median(list(values.values())))
        spread = max(1.4826 * float(np.median(np.abs(np.array(list(values.values())) - middle))), SPREAD)
        far = {case: value - middle for case, value in values.items() if abs(value - middle) > OUTLIER * spread}
        if far and len(values) > 3:
            shown = [f"{case} ({np.exp(value):.3g} times)" for case, value in far.items()]
            notes.append(f"intensity of {channel}: far from the median of the cohort in {shortlist(shown)}.")
    return notes


def shortlist(items: Sequence[str], most: int = 5) -> str:
    """The first few of the items, and how many more there are."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
