"""Summary of each region of an evaluation: metrics with intervals, tumour volume, lesions, volume agreement."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from bundle.analysis.evaluation import FAILED_VALUES, Evaluation
from bundle.analysis.statistics import (
    describe_spread,
    mean_interval,
    median_interval,
    quantiles,
    quartiles,
    share_interval,
)
from scripts.progress import progress_bar
from scripts.scoring.metrics import METRICS

LOW = (0.5, 0.7)  # Dice below which cases are counted
SPECK = 0.1  # ml: smaller regions and errors are no reason to show a patient first
LESION_BINS = (0, 0.1, 1, 10, math.inf)  # ml, or thousands of pixels; powers of ten, so that they suit any tumour


def summarise_regions(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers of each region, by its name, as the `regions` of summary.json."""
    bar = progress_bar(evaluation.regions, desc="bootstrapping intervals", unit="region")
    return {region: _region(evaluation, region) for region in bar}


def leave_out_specks(scores: pd.DataFrame, unit: str) -> pd.DataFrame:
    """The rows of `Evaluation.scores` without those of a low Dice that less than `SPECK` in error explains, by case.

    A case of which nothing would be left keeps its rows; volumes in other units than ml do too.
    """
    if unit != "ml":
        return scores
    speck = (scores["dice"] < LOW[0]) & (scores["volume_fn"] + scores["volume_fp"] <= SPECK)
    return scores[~speck | speck.groupby(scores["case"]).transform("all")]


def spread_over_patients(
    values: np.ndarray, patients: Sequence[str], unit: str, intervals: bool = True
) -> dict[str, Any]:
    """Mean and median with intervals over patients, quantiles, extremes, and the number of infinite values."""
    found = describe_spread(values)
    return {
        "unit": unit,
        "cases": len(values),
        "mean": None if found["infinite"] else float(values.mean()),
        "mean_interval": mean_interval(values, patients) if intervals else None,
        "median": found["median"],
        "median_interval": median_interval(values, patients) if intervals else None,
        **found,
    }


def _region(evaluation: Evaluation, region: str) -> dict[str, Any]:
    own = evaluation.rows_of(region)
    dice = own["dice"]
    present = own[own["note"] != "absent"]
    in_ml = evaluation.volume_unit == "ml"
    return {
        "cases": len(own),
        **{note: int((own["note"] == note).sum()) for note in ("failed", "absent", "missed", "hallucinated")},
        "missed_specks": int(((own["note"] == "missed") & (own["volume_truth"] <= SPECK) & in_ml).sum()),
        **{f"dice_below_{limit}": int((dice < limit).sum()) for limit in LOW},
        "dice_zero": int((dice == 0).sum()),
        "dice_without_absent": _spread(present, "dice", "") if len(present) else None,
        "metrics": {
            name: _spread(own, name, unit) for name, unit in evaluation.units.items() if own[name].notna().any()
        },
        "agreement": _agreement(own),
        "lesions": _lesions(own),
        "lesions_by_volume": _lesions_by_volume(evaluation, region),
        "thirds": _thirds(own),
    }


def _spread(own: pd.DataFrame, metric: str, unit: str) -> dict[str, Any]:
    own = own.dropna(subset=[metric])
    counted = metric in METRICS and metric not in FAILED_VALUES  # volumes and numbers of lesions need no interval
    return spread_over_patients(own[metric].to_numpy(), own["patient"], unit, intervals=not counted)


def _agreement(own: pd.DataFrame) -> dict[str, Any] | None:
    """Mean signed volume error and its 95 % limits of agreement (Bland and Altman, Lancet 327:307, 1986).

    With the median and the middle 90 %, which single cases do not move.
    """
    error = own["volume_error"].dropna()
    if len(error) < 2:
        return None
    reach = 1.96 * float(error.std(ddof=1))
    bias = float(error.mean())
    return {
        "cases": len(error),
        "bias": bias,
        "low": bias - reach,
        "high": bias + reach,
        "median": float(error.median()),
        "middle": quantiles(error, [0.05, 0.95]),
        "too_small": int((error < 0).sum()),
        "too_large": int((error > 0).sum()),
    }


def _lesions(own: pd.DataFrame) -> dict[str, Any] | None:
    """Lesion recall, precision and F1, pooled over all scored cases."""
    counts = own[["lesions_tp", "lesions_fp", "lesions_fn"]].dropna()
    if not len(counts):
        return None
    found, false, missed = (int(counts[name].sum()) for name in counts)
    return {
        "cases": len(counts),
        "found": found,
        "missed": missed,
        "false": false,
        "recall": _ratio(found, found + missed),
        "precision": _ratio(found, found + false),
        "f1": _ratio(2 * found, 2 * found + false + missed),
    }


def _lesions_by_volume(evaluation: Evaluation, region: str) -> list[dict[str, Any]] | None:
    """True lesions by volume class; a class excludes its lower and includes its upper edge."""
    if evaluation.lesions is None:
        return None
    own = evaluation.lesions[evaluation.lesions["region"] == region]
    rows = []
    scale = 1000 if evaluation.volume_unit == "pixel" else 1
    for low, high in pairwise(edge * scale for edge in LESION_BINS):
        inside = own[(own["volume"] > low) & (own["volume"] <= high)]
        found = int((inside["detected"] == 1).sum())
        rows.append(
            {
                "above": low,
                "up_to": high,
                "lesions": len(inside),
                "found": found,
                "share_interval": share_interval(found, len(inside)),
                "dice_median": float(inside["dice"].median()) if inside["dice"].notna().any() else None,
            }
        )
    return rows


def _thirds(own: pd.DataFrame) -> list[dict[str, Any]]:
    """Dice by tumour volume: the cases with the region, from small to large, in three groups of equal number."""
    ordered = own[own["volume_truth"] > 0].sort_values(["volume_truth", "case"])
    parts = [ordered.iloc[part] for part in np.array_split(np.arange(len(ordered)), 3) if len(part)]
    return [
        {
            "cases": len(part),
            "smallest": float(part["volume_truth"].min()),
            "largest": float(part["volume_truth"].max()),
            "dice_median": median,
            "dice_interval": median_interval(part["dice"], part["patient"]),
            "dice_q1": q1,
            "dice_q3": q3,
            "dice_minimum": float(part["dice"].min()),
            "missed": int((part["note"] == "missed").sum()),
        }
        for part, (q1, median, q3) in ((part, quartiles(part["dice"])) for part in parts)
    ]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
