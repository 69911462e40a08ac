"""Scores against several raters: their mean, and every comparison of a mask with a rater and of two raters.

`raters.csv` has the columns of `cases.csv`, and `rater`, whose mask is the truth, and `compared`: `model`, or the other
of two raters, of whom each pair is compared once, by the metrics of `BETWEEN`.
"""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from scripts.scoring.case import Job, Scores

RATER_COLUMNS = ["case", "patient", "region", "metric", "value", "unit", "note", "rater", "compared"]
MODEL = "model"
BETWEEN = ("dice", "iou", "hd95", "nsd_1mm", "nsd_2mm", "nsd_3mm")  # the same in both directions


def compare_raters(jobs: Sequence[Job]) -> list[Job]:
    """A job for each pair of raters of a case, one as the prediction of the other."""
    by_case: dict[str, list[Job]] = {}
    for job in jobs:
        by_case.setdefault(job.case, []).append(job)
    return [
        first._replace(
            prediction=second.label,
            probability=None,
            rename={},
            compared=second.rater,
            wanted=BETWEEN,
            kept=str(Path(first.kept).with_suffix(f".{second.rater}.json")),
        )
        for drawn in by_case.values()
        for first, second in combinations(drawn, 2)
    ]


def rater_rows(jobs: Sequence[Job], scores: Sequence[Scores]) -> list[list]:
    """The rows of `raters.csv`; none for cases with the only label of a rater without a name."""
    return [
        [*row, job.rater, job.compared or MODEL]
        for job, own in zip(jobs, scores, strict=True)
        if job.rater
        for row in own.rows
    ]


def average_raters(scores: Sequence[Sequence[list]]) -> list[list]:
    """The rows of `cases.csv`: of a case with several raters the mean of each metric over them.

    A note that not all raters' rows have is left out. A case that fails for one rater has failed.

    Args:
        scores: the rows of each case and rater, the raters of a case one after the other.
    """
    by_case: dict[str, list[Sequence[list]]] = {}
    for rows in scores:
        if rows:
            by_case.setdefault(rows[0][0], []).append(rows)
    return [row for several in by_case.values() for row in _average(several)]


def _average(several: Sequence[Sequence[list]]) -> Sequence[list]:
    if len(several) == 1:
        return several[0]
    if failed := next((rows for rows in several if rows[0][3] == "failed"), None):
        return failed
    found: dict[tuple[str, str], list[list]] = {}
    for row in (row for rows in several for row in rows):
        found.setdefault((row[2], row[3]), []).append(row)
    return [
        [
            *rows[0][:4],
            float(np.mean([row[4] for row in rows])),
            rows[0][5],
            rows[0][6] if _agree(rows, several) else "",
        ]
        for rows in found.values()
    ]


def _agree(rows: Sequence[list], several: Sequence[Sequence[list]]) -> bool:
    return len(rows) == len(several) and len({row[6] for row in rows}) == 1
