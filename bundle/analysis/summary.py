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

from bundle.analysis.calibration import pool
from bundle.analysis.comparison import compare
from bundle.analysis.costs import POINTS, Price, add_own
from bundle.analysis.evaluation import FAILED_VALUES, Evaluation, by_patient
from bundle.analysis.pairing import Matched, match
from bundle.analysis.statistics import (
    ENOUGH,
    RESAMPLES,
    SEED,
    mean_interval,
    median_interval,
    quantiles,
    share_interval,
)
from scripts.scoring.case import WHOLE_CASE
from scripts.scoring.metrics import CASE_METRICS, METRICS

SCHEMA = 2
LOW = (0.5, 0.7)  # counts of cases below
WORST, TYPICAL = 5, 3
LESION_BINS = (0, 0.1, 1, 10, math.inf)  # ml, or thousands of pixels; powers of ten, so that they suit any tumour


def summarise(
    evaluation: Evaluation,
    title: str,
    reference: Matched | None = None,
    weights: Mapping[str, float] | None = None,
    prices: Mapping[str, Price] | None = None,
) -> dict[str, Any]:
    """The content of summary.json.

    Args:
        evaluation: what is summarised.
        title: of the page.
        reference: what it is compared with (`match_reference`).
        weights: of the regions (`bundle.analysis.costs.parse_weights`), for a weighted Dice.
        prices: of a ml in each region (`bundle.analysis.costs.parse_prices`), for a cost.

    Raises:
        InputError: cases.csv lacks what is to be weighed.
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
        "roles": evaluation.roles,
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
        **_own(evaluation, weights, prices),
        "reference": _against(reference) if reference else None,
    }
    return strict(summary)


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


def size_thirds(own: pd.DataFrame) -> list[pd.DataFrame]:
    """The cases of a region with a true volume, small to large, in three parts of equal number."""
    ordered = own[own["volume_truth"] > 0].sort_values(["volume_truth", "case"])
    return [ordered.iloc[part] for part in np.array_split(np.arange(len(ordered)), 3)]


def match_reference(evaluation: Evaluation, reference: Evaluation) -> Matched:
    """The reference, called `there`, and the evaluation, `here`, in the regions that both have.

    Raises:
        InputError: they cannot be compared (`bundle.analysis.pairing.match`).
    """
    shared = [region for region in evaluation.regions if region in reference.regions]
    return match([reference, evaluation], ["there", "here"], regions=shared or None)


def _against(reference: Matched) -> dict[str, Any]:
    found = compare(reference)
    return {
        "folder": str(reference.evaluations[0].folder),
        **{key: found[key] for key in ("cases", "patients", "tests")},
        "only_here": found["unpaired"]["here"]["cases"],
        "only_in_reference": found["unpaired"]["there"]["cases"],
        "differences": found["pairs"][0]["differences"],
    }


def _own(
    evaluation: Evaluation, weights: Mapping[str, float] | None, prices: Mapping[str, Price] | None
) -> dict[str, Any]:
    """The weighted Dice and the cost of each patient, where users say what counts."""
    level = evaluation.volumes or evaluation  # slices of a patient together
    averages = by_patient(add_own(level.scores, weights, prices))

    def own(metric: str, region: str, unit: str) -> dict[str, Any]:
        values = averages.loc[region, metric]
        return spread(values.to_numpy(), values.index, unit)

    return {
        "weighted_dice": weights
        and {
            "weights": dict(weights),
            "spread": own("weighted_dice", WHOLE_CASE, ""),
            "worst": _worst(averages.loc[WHOLE_CASE, "weighted_dice"]),
        },
        "cost": prices
        and {
            "prices": {region: price._asdict() for region, price in prices.items()},
            "regions": {region: own("cost", region, POINTS) for region in prices},
            "total": own("cost", WHOLE_CASE, POINTS),
            "worst": [
                row | {"regions": {r: _errors(averages.loc[(r, row["patient"])]) for r in prices}}
                for row in _worst(-averages.loc[WHOLE_CASE, "cost"])
            ],
        },
    }


def _worst(values: pd.Series) -> list[dict[str, Any]]:
    """The patients with the lowest values; a cost comes with its sign turned."""
    lowest = values.sort_values(kind="stable").head(WORST)
    return [{"patient": patient, "value": abs(value)} for patient, value in lowest.items()]


def _errors(averages: pd.Series) -> dict[str, float]:
    return {kind: float(averages[f"volume_{kind}"]) for kind in Price._fields}


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
    counted = metric in METRICS and metric not in FAILED_VALUES  # volumes and numbers of lesions need no interval
    return spread(own[metric].to_numpy(), own["patient"], unit, intervals=not counted)


def spread(values: np.ndarray, patients: Sequence[str], unit: str, intervals: bool = True) -> dict[str, Any]:
    """How values lie: mean and median with their intervals over patients, quantiles, ends, how many are infinite."""
    p5, q1, median, q3, p95 = quantiles(values, [0.05, 0.25, 0.5, 0.75, 0.95])
    infinite = int(np.isinf(values).sum())
    return {
        "unit": unit,
        "cases": len(values),
        "mean": float(values.mean()) if not infinite else None,
        "mean_interval": mean_interval(values, patients) if intervals else None,
        "median": median,
        "median_interval": median_interval(values, patients) if intervals else None,
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


def strict(value: Any) -> Any:
    """The same with what JSON has no number for written as text (inf) or null (NaN)."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [strict(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else str(value) if math.isinf(value) else value
    return value
