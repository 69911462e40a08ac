"""Scores and errors by group of cases, such as the fold that held them out or the site they come from."""

from typing import Any

import pandas as pd

from bundle.analysis.evaluation import Evaluation, average_by_patient
from bundle.analysis.region_summary import LOW
from bundle.analysis.statistics import quartiles

LARGEST = 50  # groups; more are not a summary


def summarise_groups(evaluation: Evaluation) -> dict[str, Any]:
    """The Dice and the errors of each group of cases that evaluation.json names, as the `groups` of summary.json.

    By kind of group (fold, site, scanner): `rows`, one per group, with its cases, patients, and by region the mean and
    quartiles of the Dice over its patients, counts of its cases, and the medians of what they miss and add; and
    `spread`, by region the standard deviation of the groups' means, None for one group.
    """
    named = evaluation.record.get("groups", {})
    found = {}
    for kind, of_cases in named.items():
        scores = evaluation.scores.assign(group=evaluation.scores["case"].map(of_cases)).dropna(subset=["group"])
        if 0 < scores["group"].nunique() <= LARGEST:
            rows = [_describe(str(group), own.drop(columns="group")) for group, own in scores.groupby("group")]
            means = {region: [row["regions"][region]["mean"] for row in rows] for region in rows[0]["regions"]}
            deviation = {region: float(pd.Series(own).std()) if len(own) > 1 else None for region, own in means.items()}
            found[str(kind)] = {"rows": rows, "spread": deviation}
    return found


def _describe(group: str, scores: pd.DataFrame) -> dict[str, Any]:
    averages, regions = average_by_patient(scores)["dice"], {}
    for region in scores["region"].drop_duplicates():
        values = averages.loc[region]
        q1, median, q3 = quartiles(values)
        own = scores[scores["region"] == region]
        regions[region] = {
            **{"mean": float(values.mean()), "q1": q1, "median": median, "q3": q3},
            "low": int((own["dice"] < LOW[-1]).sum()),
            **{note: int((own["note"] == note).sum()) for note in ("missed", "hallucinated")},
            **{name: float(own[f"volume_{kind}"].median()) for name, kind in (("missing", "fn"), ("added", "fp"))},
        }
    cases, patients = scores["case"].nunique(), scores["patient"].nunique()
    return {"group": group, "cases": int(cases), "patients": int(patients), "regions": regions}
