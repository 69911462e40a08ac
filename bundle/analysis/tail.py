"""Counts of the worst cases of several systems: a Dice below 0.7, and regions missed altogether."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from bundle.analysis.region_summary import LOW

BELOW, MISSED = f"dice_below_{LOW[-1]}", "missed"
TAIL = (BELOW, MISSED)


class TailCounts(NamedTuple):
    """How many cases of each system are counted, of how many, and per patient.

    `shares` is a table [patient, system]: the share of the patient's cases that are counted, which is 0 or 1 where
    every patient has one case.
    """

    cases: int
    counts: dict[str, int]
    shares: pd.DataFrame


def count_tail(
    scores: Mapping[str, pd.DataFrame], regions: Sequence[str], metrics: Collection[str]
) -> dict[tuple[str, str], TailCounts]:
    """Count the worst cases of each region, by metric (one of `TAIL`) and region.

    Missed cases are counted among those with the region in the label; a failed case counts as missed. What no system
    has a case of is left out: there is nothing to compare.

    Args:
        scores: `Evaluation.scores` of each system, of the same cases.
        regions: to count in.
        metrics: those of `TAIL` to count.
    """
    rows = pd.concat(scores, names=["system", None]).reset_index("system")
    absent = rows["note"].isin(("absent", "hallucinated")).groupby([rows["case"], rows["region"]]).transform("any")
    events = {
        BELOW: (rows["dice"] < LOW[-1]).astype(float),
        MISSED: rows["note"].isin(("missed", "failed")).astype(float).mask(absent),
    }
    found = {}
    for metric in (name for name in TAIL if name in metrics):
        counted = rows.assign(event=events[metric]).dropna(subset=["event"])
        for region in regions:
            own = counted[counted["region"] == region]
            if own["event"].any():
                counts = own.groupby("system")["event"].sum().astype(int).to_dict()
                shares = own.pivot_table(index="patient", columns="system", values="event", aggfunc="mean")
                found[metric, region] = TailCounts(own["case"].nunique(), counts, shares[list(scores)])
    return found
