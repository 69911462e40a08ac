"""What clicks buy: means by region and number of clicks, clicks until a Dice is reached, and seconds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bundle.analysis.statistics import Interval, mean_interval, quantiles

SHOWN = (0, 1, 2, 3, 5, 10)  # numbers of clicks
GOALS = (0.8, 0.9)  # of Dice


class ClickScore(NamedTuple):
    """A region after a number of clicks: mean over `n` cases, 95 % interval over patients, smallest and largest."""

    region: str
    clicks: int
    metric: str
    n: int
    mean: float
    interval: Interval
    smallest: float
    largest: float


class ClicksToReach(NamedTuple):
    """The clicks until a Dice is reached, of a region.

    Attributes:
        region: its name.
        goal: the Dice.
        at_once: cases that reach it without a click.
        reached: of `n` cases.
        n: cases.
        median: of the clicks, where a case that never reaches it counts as more than any; inf: most do not.
    """

    region: str
    goal: float
    at_once: int
    reached: int
    n: int
    median: float


def summarise_clicks(rows: pd.DataFrame, metrics: Sequence[str]) -> list[ClickScore]:
    """The mean of each metric by region and number of clicks (`SHOWN`).

    Args:
        rows: of `bundle.benchmarks.clicks.measure_clicks`.
        metrics: columns.
    """
    found = []
    for metric in metrics:
        for (region, clicks), own in rows[rows["clicks"].isin(SHOWN)].groupby(["region", "clicks"], sort=False):
            values = own[metric].to_numpy()
            about = (str(region), int(clicks), metric, len(own), float(values.mean()))
            found.append(ClickScore(*about, mean_interval(values, own["patient"].tolist()), values.min(), values.max()))
    return found


def count_clicks_to_reach(rows: pd.DataFrame) -> list[ClicksToReach]:
    """The clicks until each of `GOALS` is reached, by region."""
    found = []
    for region, own in rows.groupby("region", sort=False):
        for goal in GOALS:
            first = own[own["dice"] >= goal].groupby("case")["clicks"].min()
            needed = first.reindex(own["case"].unique(), fill_value=np.inf).astype(float)
            reached = int(np.isfinite(needed).sum())
            (middle,) = quantiles(needed.to_numpy(), [0.5])
            found.append(ClicksToReach(str(region), goal, int((needed == 0).sum()), reached, len(needed), middle))
    return found


def summarise_seconds(rows: pd.DataFrame) -> dict[str, float]:
    """Median seconds of a scan's automatic masks (`automatic`), of a click (`click`), and of their ratio by case."""
    automatic = rows[rows["clicks"] == 0].groupby("case")["seconds"].first()
    click = rows[rows["clicks"] > 0].groupby("case")["seconds"].median()
    ratio = (click / automatic).median()
    return {"automatic": float(automatic.median()), "click": float(click.median()), "ratio": float(ratio)}
