"""Which numbers does an evaluation come down to? `summary.json`, which page, terminal and model card quote.

Its form is in `bundle/reporting/summary.schema.json`. It is strict JSON: an infinite number is the text "inf" or
"-inf", and null is what is not known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from bundle.evaluations import FAILED_VALUES, Evaluation
from bundle.reliability import pool
from bundle.statistics import (
    ENOUGH,
    RESAMPLES,
    SEED,
    holm,
    mean_interval,
    median_interval,
    paired,
    quantiles,
    share_interval,
)
from scripts.errors import InputError
from scripts.metrics import CASE_METRICS, METRICS

SCHEMA = 1
LOW = (0.5, 0.7)  # counts of cases below
COMPARED = ("dice", "hd95", "nsd_2mm")
WORST, TYPICAL = 5, 3
LESION_BINS = (0, 0.1, 1, 10, math.inf)  # ml, or thousands of pixels; powers of ten, so that they suit any tumour
ROLES = ("set_aside", "chose", "taught")


def summarise(evaluation: Evaluation, title: str, reference: Evaluation | None = None) -> dict[str, Any]:
    """The content of summary.json.

    Raises:
        InputError: the reference shares no case or region, has other units, or was judged against another truth.
    """
    scores = evaluation.scores
    ranking = rank(evaluation)
    volumes = evaluation.volumes
    summary = {
        "schema": SCHEMA,
        "title": title,
        "cases": int(scores["case"].nunique()),
        "patients": int(scores["patient"].nunique()),
        "missing": evaluation.missing,
        "failed": {case: reason for case, reason in evaluation.failed.items() if case not in evaluation.missing},
        "resampled": list(evaluation.judged.get("resampled", [])),
        "part": evaluation.judged.get("part"),
        "roles": roles(evaluation),
        "units": {"length": evaluation.length, "volume": evaluation.volume},
        "intervals": {"level": 0.95, "unit": "patient", "resamples": RESAMPLES, "seed": SEED, "enough": ENOUGH},
        "versions": dict(evaluation.judged.get("versions", {})),
        "datalist": evaluation.judged.get("datalist"),
        "about": {k: v for k, v in evaluation.judged.get("about", {}).items() if k != "patients"},
        "regions": _regions(evaluation),
        "volumes": volumes and {"patients": int(volumes.scores["case"].nunique()), "regions": _regions(volumes)},
        "calibration": _calibration(evaluation),
        "reliability": None if evaluation.reliability is None else pool(evaluation.reliability, evaluation.regions),
        "worst": list(ranking.head(WORST)["case"]),
        "typical": typical(ranking),
        "reference": compare(evaluation, reference) if reference else None,
    }
    return _strict(summary)


def rank(evaluation: Evaluation) -> pd.DataFrame:
    """One judged case a patient (the worst), worst first: case, patient and the mean Dice over the regions."""
    judged = evaluation.scores[evaluation.scores["note"] != "failed"]
    means = judged.groupby(["case", "patient"], as_index=False)["dice"].mean().sort_values(["dice", "case"])
    return means.drop_duplicates("patient").reset_index(drop=True)


def typical(ranking: pd.DataFrame) -> list[str]:
    """The cases nearest to the median of the ranking that are not among the worst."""
    rest = ranking.iloc[WORST:]
    distance = (rest["dice"] - ranking["dice"].median()).abs()
    return list(rest.loc[distance.sort_values(kind="stable").index[:TYPICAL], "case"])


def roles(evaluation: Evaluation) -> dict[str, list[str]] | None:
    """Which judged patients had been set aside, chose the checkpoint, or taught; None if nobody wrote it down."""
    written = evaluation.judged.get("about", {}).get("patients")
    return {role: list(written.get(role, [])) for role in ROLES} if isinstance(written, Mapping) and written else None


def size_thirds(own: pd.DataFrame) -> list[pd.DataFrame]:
    """The cases of a region with a true volume, small to large, in three parts of equal number."""
    ordered = own[own["volume_truth"] > 0].sort_values(["volume_truth", "case"])
    return [ordered.iloc[part] for part in np.array_split(np.arange(len(ordered)), 3)]


def compare(evaluation: Evaluation, reference: Evaluation) -> dict[str, Any]:
    """Paired differences, this evaluation minus the reference, on the cases that both judged or failed to judge.

    Raises:
        InputError: there is no common case or region, units differ, or the truths differ.
    """
    both = evaluation.scores.merge(reference.scores, on=["case", "region"], suffixes=("", "_other"))
    if not len(both):
        raise InputError(
            f"{evaluation.folder} and {reference.folder} have no case and region in common: give an evaluation of the"
            " same patients."
        )
    if (evaluation.length, evaluation.volume) != (reference.length, reference.volume):
        raise InputError(
            f"{reference.folder} is measured in {reference.length} and {reference.volume}, {evaluation.folder} in"
            f" {evaluation.length} and {evaluation.volume}: judge both with the same data list."
        )
    truth, other = both["volume_truth"], both["volume_truth_other"]
    off = both[(truth - other).abs() > 1e-6 * truth.abs().clip(lower=1)]
    if len(off):
        row = off.iloc[0]
        raise InputError(
            f"case {row['case']} has {row['volume_truth']:g} {evaluation.volume} of {row['region']} here and"
            f" {row['volume_truth_other']:g} in {reference.folder}: they were judged against different labels; judge"
            " both with the same data list."
        )
    regions = [region for region in evaluation.regions if (both["region"] == region).any()]
    rows = []
    for metric in COMPARED:
        found = []
        for region in regions:
            own = both[both["region"] == region].dropna(subset=[metric, f"{metric}_other"])
            if len(own):
                test = paired(own[metric], own[f"{metric}_other"], own["patient"])
                medians = {
                    "median": quantiles(own[metric], [0.5])[0],
                    "median_reference": quantiles(own[f"{metric}_other"], [0.5])[0],
                }
                found.append({"region": region, "metric": metric, **medians, **_named(test)})
        for row, corrected in zip(found, holm([row["p"] for row in found]), strict=True):
            rows.append(row | {"p_holm": corrected})
    return {
        "folder": str(reference.folder),
        "cases": int(both["case"].nunique()),
        "patients": int(both["patient"].nunique()),
        "only_here": sorted({*evaluation.scores["case"]} - {*both["case"]}),
        "only_in_reference": sorted({*reference.scores["case"]} - {*both["case"]}),
        "differences": rows,
    }


def _named(test: Any) -> dict[str, Any]:
    return {
        "cases": test.cases,
        "patients": test.patients,
        "difference": test.median,
        "difference_interval": test.interval,
        "higher": test.higher,
        "equal": test.equal,
        "lower": test.lower,
        "p": test.p,
    }


def _regions(evaluation: Evaluation) -> dict[str, Any]:
    bar = tqdm(evaluation.regions, desc="drawing patients for intervals", unit="region", leave=False)
    return {region: _region(evaluation, region) for region in bar}


def _region(evaluation: Evaluation, region: str) -> dict[str, Any]:
    own = evaluation.of(region)
    dice = own["dice"]
    present = own[own["note"] != "absent"]
    return {
        "cases": len(own),
        **{note: int((own["note"] == note).sum()) for note in ("failed", "absent", "missed", "hallucinated")},
        **{f"dice_below_{limit}": int((dice < limit).sum()) for limit in LOW},
        "dice_zero": int((dice == 0).sum()),
        "dice_without_absent": _spread(present, "dice", "") if len(present) else None,
        "metrics": {
            name: _spread(own, name, unit) for name, unit in evaluation.units.items() if own[name].notna().any()
        },
        "agreement": _agreement(own),
        "lesions": _lesions(own),
        "lesions_by_volume": _lesions_by_volume(evaluation, region),
        "thirds": [_third(own) for own in size_thirds(own) if len(own)],
    }


def _spread(own: pd.DataFrame, metric: str, unit: str) -> dict[str, Any]:
    own = own.dropna(subset=[metric])
    values = own[metric].to_numpy()
    p5, q1, median, q3, p95 = quantiles(values, [0.05, 0.25, 0.5, 0.75, 0.95])
    infinite = int(np.isinf(values).sum())
    counted = metric in METRICS and metric not in FAILED_VALUES  # volumes and numbers of lesions need no interval
    return {
        "unit": unit,
        "cases": len(values),
        "mean": float(values.mean()) if not infinite else None,
        "mean_interval": None if counted else mean_interval(values, own["patient"]),
        "median": median,
        "median_interval": None if counted else median_interval(values, own["patient"]),
        "q1": q1,
        "q3": q3,
        "p5": p5,
        "p95": p95,
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "infinite": infinite,
    }


def _agreement(own: pd.DataFrame) -> dict[str, Any] | None:
    """Mean signed volume error and its 95 % limits of agreement (Bland and Altman, Lancet 327:307, 1986)."""
    error = own["volume_error"].dropna()
    if len(error) < 2:
        return None
    spread = 1.96 * float(error.std(ddof=1))
    bias = float(error.mean())
    return {
        "cases": len(error),
        "bias": bias,
        "low": bias - spread,
        "high": bias + spread,
        "too_small": int((error < 0).sum()),
        "too_large": int((error > 0).sum()),
    }


def _lesions(own: pd.DataFrame) -> dict[str, Any] | None:
    """Counts over all judged cases first, then the ratios."""
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
    if evaluation.lesions is None:
        return None
    own = evaluation.lesions[evaluation.lesions["region"] == region]
    rows = []
    for low, high in lesion_bins(evaluation.volume):
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


def lesion_bins(unit: str) -> list[tuple[float, float]]:
    """The volume classes of lesions, each above its first and up to its second number, in `unit`."""
    scale = 1000 if unit == "pixel" else 1
    edges = [edge * scale for edge in LESION_BINS]
    return list(pairwise(edges))


def _third(own: pd.DataFrame) -> dict[str, Any]:
    q1, median, q3 = quantiles(own["dice"], [0.25, 0.5, 0.75])
    return {
        "cases": len(own),
        "smallest": float(own["volume_truth"].min()),
        "largest": float(own["volume_truth"].max()),
        "dice_median": median,
        "dice_interval": median_interval(own["dice"], own["patient"]),
        "dice_q1": q1,
        "dice_q3": q3,
        "dice_minimum": float(own["dice"].min()),
        "missed": int((own["note"] == "missed").sum()),
    }


def _calibration(evaluation: Evaluation) -> dict[str, Any] | None:
    table = evaluation.calibration
    if not len(table):
        return None
    found = {}
    for metric in CASE_METRICS:
        own = table.dropna(subset=[metric])
        if len(own):
            q1, median, q3 = quantiles(own[metric], [0.25, 0.5, 0.75])
            found[metric] = {
                "cases": len(own),
                "mean": float(own[metric].mean()),
                "mean_interval": mean_interval(own[metric], own["patient"]),
                "median": median,
                "q1": q1,
                "q3": q3,
                "maximum": float(own[metric].max()),
            }
    return found


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _strict(value: Any) -> Any:
    """The same with what JSON has no number for written as text (inf) or null (NaN)."""
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_strict(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else str(value) if math.isinf(value) else value
    return value
