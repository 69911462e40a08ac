"""Differences of variants from a baseline, paired by patient, with the variation between trainings.

Patients and seeds are crossed: the network of a seed scores all patients of its fold, so both are resampled, and each
drawn patient gets the same drawn seeds (the pigeonhole bootstrap of Owen, Ann Appl Stat 1:386, 2007). With one seed
the intervals hold the variation between patients alone; with few, too little of that between trainings.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bundle.analysis.significance import correct_by_holm, rank_systems
from bundle.analysis.statistics import FEWEST, LEVEL, RESAMPLES, SEED

MEAN = "mean"  # the mean over the regions
RUN = ["seed", "fold"]


def compare_variants(
    results: pd.DataFrame, baseline: str, difference: float, steps: Sequence[tuple[str, str]] = ()
) -> list[dict[str, Any]]:
    """One row per variant and region, and one for the mean over regions.

    Args:
        results: one row per variant, seed, fold, case and region, with `patient` and `dice`.
        baseline: the variant that the others are compared with, in the seeds and folds that both have.
        difference: in Dice, the smallest that matters.
        steps: a variant and another one that it is compared with as well; its rows are named `variant against other`.

    Returns:
        rows with variant, region, patients, seeds, baseline and mean (the mean Dice of both), difference, interval,
        p (two-sided, by bootstrap), p_holm (over all rows) and finding: `better`, `worse`, `equal` (the interval lies
        within the difference on both sides of 0) or `undecided`.
    """
    table = _patient_means(results)
    regions = [*results["region"].drop_duplicates(), MEAN]
    rows, there = [], [*results["variant"].drop_duplicates()]
    compared = [(name, name, baseline) for name in there if name != baseline]
    compared += [(f"{name} against {other}", name, other) for name, other in steps if {name, other} <= {*there}]
    for shown, variant, other in compared:
        for region in regions:
            pairs = pd.concat({name: table.loc[name, region] for name in (other, variant)}, axis=1).dropna()
            if len(pairs):
                rows.append({"variant": shown, "region": region, **_difference(pairs[other], pairs[variant])})
    tested = [row for row in rows if row["p"] is not None]
    for row, corrected in zip(tested, correct_by_holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = corrected
    for row in rows:
        row["finding"] = _classify(row, difference)
    return rows


def rank_variants(results: pd.DataFrame) -> dict[str, Any] | None:
    """The variants by mean rank over patients (mean Dice over regions), and how often that order recurs.

    None unless all variants share at least two patients, seeds and folds.
    """
    means = _patient_means(results).xs(MEAN, level="region").unstack("variant").dropna()
    table = means.groupby("patient").mean()
    if len(table) < 2 or table.shape[1] < 2:
        return None
    ranks = stats.rankdata(np.round(-table.to_numpy(), 12), axis=1)
    found = rank_systems(ranks)
    order = np.argsort(found.mean_ranks, kind="stable")
    return {
        "patients": len(table),
        "holds": found.holds,
        "variants": [{"variant": str(table.columns[k]), "mean_rank": found.mean_ranks[k]} for k in order],
    }


def crossed_interval(
    differences: pd.DataFrame, folds: Sequence[Any]
) -> tuple[tuple[float, float] | None, float | None]:
    """The 95 % interval of the mean difference, and its two-sided p, by resampling patients and seeds.

    Args:
        differences: [patients, seeds], NaN where a seed has no such patient.
        folds: of each patient; seeds are drawn anew for each fold, since each fold has its own training.

    Returns:
        None and None for fewer than five patients.
    """
    if len(differences) < FEWEST:
        return None, None
    draw = np.random.default_rng(SEED)
    weights = draw.multinomial(len(differences), np.full(len(differences), 1 / len(differences)), RESAMPLES)
    sums, counts = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for fold in dict.fromkeys(folds):
        own = np.asarray([known == fold for known in folds])
        values = differences.to_numpy()[own]
        values = values[:, ~np.isnan(values).all(axis=0)]
        seeds = draw.multinomial(values.shape[1], np.full(values.shape[1], 1 / values.shape[1]), RESAMPLES)
        there = ~np.isnan(values)
        sums += ((weights[:, own] @ np.where(there, values, 0)) * seeds).sum(axis=1)
        counts += ((weights[:, own] @ there) * seeds).sum(axis=1)
    means = sums[counts > 0] / counts[counts > 0]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    side = min((means <= 0).sum(), (means >= 0).sum())
    return (float(low), float(high)), float(min(1.0, 2 * (side + 1) / (RESAMPLES + 1)))


def _patient_means(results: pd.DataFrame) -> pd.Series:
    """The mean Dice over the cases of each patient: by variant, region, seed, fold and patient."""
    keys = ["variant", "region", *RUN, "patient"]
    means = results.groupby(keys)["dice"].mean()
    whole = means.groupby([key for key in keys if key != "region"]).mean()
    whole = pd.concat({MEAN: whole}, names=["region"]).reorder_levels(keys)
    return pd.concat([means, whole]).sort_index()


def _difference(baseline: pd.Series, variant: pd.Series) -> dict[str, Any]:
    """The difference of two tables by seed, fold and patient."""
    change = variant - baseline
    held_out = change.reset_index().groupby("patient")["fold"].nunique().max() > 1  # scored by the network of each fold
    table = change.unstack(RUN if held_out else "seed")
    folds = [0] * len(table) if held_out else list(table.index.get_level_values("fold"))
    interval, p = crossed_interval(table, folds)
    return {
        "patients": int(table.index.get_level_values("patient").nunique()),
        "seeds": int(change.index.get_level_values("seed").nunique()),
        "baseline": float(baseline.mean()),
        "mean": float(variant.mean()),
        "difference": float(change.mean()),
        "interval": interval,
        "p": p,
        "p_holm": None,
    }


def _classify(row: dict[str, Any], difference: float) -> str:
    if row["interval"] is None:
        return "undecided"
    low, high = row["interval"]
    if row["p_holm"] < 1 - LEVEL and (low > 0 or high < 0):
        return "better" if low > 0 else "worse"
    return "equal" if -difference < low and high < difference else "undecided"
