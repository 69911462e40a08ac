"""Summary of an evaluation: the content of `summary.json`, which page, terminal and model card quote.

Its schema is `bundle/reporting/summary.schema.json`, and it is strict JSON (`bundle.analysis.strict_json`).
"""

from typing import Any

import pandas as pd

from bundle.analysis.calibration import pool_reliability
from bundle.analysis.comparison import compare_systems
from bundle.analysis.costs import POINTS, Price, Prices, Weights, add_user_scores
from bundle.analysis.evaluation import Evaluation, average_by_patient
from bundle.analysis.group_summary import summarise_groups
from bundle.analysis.pairing import Matched, match_systems
from bundle.analysis.rater_scores import compare_with_raters
from bundle.analysis.region_summary import leave_out_specks, spread_over_patients, summarise_regions
from bundle.analysis.statistics import describe_intervals, describe_spread, mean_interval
from bundle.analysis.strict_json import to_strict_json
from scripts.scoring.case import WHOLE_CASE
from scripts.scoring.metrics import CASE_METRICS

SCHEMA = 3
WORST, TYPICAL = 5, 3


def summarise_evaluation(
    evaluation: Evaluation, title: str, reference: Matched | None = None, weights: Weights = None, prices: Prices = None
) -> dict[str, Any]:
    """The content of summary.json.

    A reference (`match_reference`) adds a comparison, region weights a weighted Dice, and prices per ml a cost
    (`bundle.analysis.costs`).

    Raises:
        InputError: cases.csv lacks a metric that the weights or prices need.
    """
    scores = evaluation.scores
    ranking = rank_cases(evaluation)
    volumes = evaluation.volumes
    summary = {
        "schema": SCHEMA,
        "title": title,
        "cases": int(scores["case"].nunique()),
        "patients": int(scores["patient"].nunique()),
        "missing": evaluation.missing,
        "failed": {case: reason for case, reason in evaluation.failed.items() if case not in evaluation.missing},
        "resampled": list(evaluation.record.get("resampled", [])),
        "part": evaluation.record.get("part"),
        "roles": evaluation.roles,
        "units": {"length": evaluation.length_unit, "volume": evaluation.volume_unit},
        "intervals": describe_intervals("patient"),
        "versions": dict(evaluation.record.get("versions", {})),
        "datalist": evaluation.record.get("datalist"),
        "about": {k: v for k, v in evaluation.record.get("about", {}).items() if k != "patients"},
        "regions": summarise_regions(evaluation),
        "groups": summarise_groups(evaluation),
        "raters": compare_with_raters(evaluation.folder),
        "volumes": volumes
        and {"patients": int(volumes.scores["case"].nunique()), "regions": summarise_regions(volumes)},
        "calibration": _calibration(evaluation),
        "reliability": None
        if evaluation.reliability is None
        else pool_reliability(evaluation.reliability, evaluation.regions),
        "worst": list(ranking.head(WORST)["case"]),
        "typical": typical_cases(ranking),
        **_own(evaluation, weights, prices),
        "reference": _against(reference) if reference else None,
    }
    return to_strict_json(summary)


def rank_cases(evaluation: Evaluation) -> pd.DataFrame:
    """One scored case per patient (the worst), worst first: case, patient and the mean Dice over the regions.

    Errors of specks of the label (`leave_out_specks`) do not count: they would lead the list.
    """
    scored = evaluation.scores[evaluation.scores["note"] != "failed"]
    scored = leave_out_specks(scored, evaluation.volume_unit)
    means = scored.groupby(["case", "patient"], as_index=False)["dice"].mean().sort_values(["dice", "case"])
    return means.drop_duplicates("patient").reset_index(drop=True)


def typical_cases(ranking: pd.DataFrame) -> list[str]:
    """The cases nearest to the median of the ranking that are not among the worst."""
    rest = ranking.iloc[WORST:]
    distance = (rest["dice"] - ranking["dice"].median()).abs()
    return list(rest.loc[distance.sort_values(kind="stable").index[:TYPICAL], "case"])


def match_reference(evaluation: Evaluation, reference: Evaluation) -> Matched:
    """Match the reference, named `there`, with the evaluation, named `here`, in the regions that both have.

    Raises:
        InputError: they cannot be compared (`bundle.analysis.pairing.match_systems`).
    """
    shared = [region for region in evaluation.regions if region in reference.regions]
    return match_systems([reference, evaluation], ["there", "here"], regions=shared or None)


def _against(reference: Matched) -> dict[str, Any]:
    found = compare_systems(reference)
    return {
        "folder": str(reference.evaluations[0].folder),
        **{key: found[key] for key in ("cases", "patients", "tests")},
        "only_here": found["unpaired"]["here"]["cases"],
        "only_in_reference": found["unpaired"]["there"]["cases"],
        **{key: found["pairs"][0][key] for key in ("differences", "tail")},
    }


def _own(evaluation: Evaluation, weights: Weights, prices: Prices) -> dict[str, Any]:
    """User-defined scores of each patient: weighted Dice and cost."""
    level = evaluation.volumes or evaluation  # the slices of a patient as one volume
    averages = average_by_patient(add_user_scores(level.scores, weights, prices))

    def own(metric: str, region: str, unit: str) -> dict[str, Any]:
        values = averages.loc[region, metric]
        return spread_over_patients(values.to_numpy(), values.index, unit)

    def errors(region: str, patient: str) -> dict[str, float]:
        return {kind: float(averages.loc[(region, patient), f"volume_{kind}"]) for kind in Price._fields}

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
                row | {"regions": {r: errors(r, row["patient"]) for r in prices}}
                for row in _worst(-averages.loc[WHOLE_CASE, "cost"])
            ],
        },
    }


def _worst(values: pd.Series) -> list[dict[str, Any]]:
    """The patients with the lowest values; costs are passed negated."""
    lowest = values.sort_values(kind="stable").head(WORST)
    return [{"patient": patient, "value": abs(value)} for patient, value in lowest.items()]


def _calibration(evaluation: Evaluation) -> dict[str, Any] | None:
    table = evaluation.calibration
    if not len(table):
        return None
    found = {}
    for metric in CASE_METRICS:
        own = table.dropna(subset=[metric])
        if len(own):
            found[metric] = {
                "cases": len(own),
                "mean": float(own[metric].mean()),
                "mean_interval": mean_interval(own[metric], own["patient"]),
                **{k: v for k, v in describe_spread(own[metric]).items() if k in ("median", "q1", "q3", "maximum")},
            }
    return found
