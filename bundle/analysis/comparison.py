"""Paired tests between systems, the patients that changed most, and the stability of the ranking."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bundle.analysis import significance
from bundle.analysis.pairing import DIRECTIONS, Matched
from bundle.analysis.statistics import LEVEL, quantiles, quartiles
from bundle.analysis.tail import TailCounts
from scripts.progress import progress_bar

CHANGED = 5  # patients to name in either direction


def compare_systems(matched: Matched) -> dict[str, Any]:
    """Compare every pair of systems, and rank three or more.

    The p values of all tests are corrected together. Differences are the second system of a pair minus the first.
    """
    scores = matched.tested
    pairs = list(combinations(matched.names, 2))
    size = len(scores) + len(matched.tail)  # of a pair
    tests = len(pairs) * size
    work = [(pair, key) for pair in pairs for key in (*scores, *matched.tail)]
    bar = progress_bar(work, desc="bootstrapping intervals", unit="test")
    rows = [
        _test_tail(*key, matched.tail[key], pair, tests)
        if key in matched.tail
        else _test(*key, scores[key][list(pair)], matched.units[key[0]], tests)
        for pair, key in bar
    ]
    for row, corrected in zip(rows, significance.correct_by_holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = corrected
        row["finding"] = classify_difference(row)
    by_pair = [rows[k * size : (k + 1) * size] for k in range(len(pairs))]
    return {
        "cases": matched.cases,
        "patients": len(matched.patients),
        "unpaired": matched.unpaired,
        "tests": tests,
        "pairs": [
            {"first": first, "second": second, "differences": own[: len(scores)], "tail": own[len(scores) :]}
            for (first, second), own in zip(pairs, by_pair, strict=True)
        ],
        "ranking": _order(matched) if len(matched.names) > 2 else None,
    }


def score_quartiles(matched: Matched) -> list[dict[str, Any]]:
    """The quartiles over patients of every score of every system, one row per metric and region."""
    return [
        {
            "metric": metric,
            "region": region,
            "unit": matched.units[metric],
            "patients": len(own),
            "systems": {
                name: dict(zip(("q1", "median", "q3"), quartiles(own[name]), strict=True)) for name in matched.names
            },
        }
        for (metric, region), own in matched.values.items()
    ]


def classify_difference(row: Mapping[str, Any]) -> str:
    """Classify the second system as `better`, `worse` or `unclear`, or the difference as `not shown`.

    It is better if the test is significant after correction, the interval of the mean difference (of the median
    difference, where one is infinite) lies on the better side of 0, and the median is not on the other side: a few
    large losses can outweigh many small gains, which is `unclear`.
    """
    if row["p_holm"] >= 1 - LEVEL:
        return "not shown"
    sign = DIRECTIONS[row["metric"]]
    kind = "median" if row["mean"] is None else "mean"
    ends = [sign * end for end in row[f"{kind}_interval"] or [row[kind]]]
    if min(ends) > 0 and sign * row["median"] >= 0:
        return "better"
    if max(ends) < 0 and sign * row["median"] <= 0:
        return "worse"
    return "unclear"


def _test(metric: str, region: str, values: pd.DataFrame, unit: str, tests: int) -> dict[str, Any]:
    """One metric and region of two systems: `values` is [patient, (first, second)]."""
    first, second = values.to_numpy().T
    change = significance.subtract_scores(second, first)
    found = significance.paired_test(change)
    up = DIRECTIONS[metric] > 0
    gain = change if up else -change
    people = values.set_axis(["first", "second"], axis=1).assign(change=change).reset_index()
    return {
        "metric": metric,
        "region": region,
        "unit": unit,
        "patients": found.patients,
        "median_first": quantiles(first, [0.5])[0],
        "median_second": quantiles(second, [0.5])[0],
        "mean": found.mean,
        "mean_interval": found.mean_interval,
        "median": found.median,
        "median_interval": found.median_interval,
        "better": found.higher if up else found.lower,
        "equal": found.equal,
        "worse": found.lower if up else found.higher,
        "p": found.p,
        "can_show": significance.can_reach_significance(found.patients, tests),
        "detectable": significance.detectable_difference(change, tests),
        "gained": _most(people, gain),
        "lost": _most(people, -gain),
    }


def _test_tail(metric: str, region: str, own: TailCounts, pair: tuple[str, str], tests: int) -> dict[str, Any]:
    """The shares of a patient's cases that are counted: as a score, with the exact sign test in place of Wilcoxon's."""
    row = _test(metric, region, own.shares[list(pair)], "", tests)
    first, second = (own.counts[name] for name in pair)
    counts = {"cases": own.cases, "cases_first": first, "cases_second": second}
    return {**row, **counts, "p": significance.sign_test(row["better"], row["worse"])}


def _most(people: pd.DataFrame, gain: np.ndarray) -> list[dict[str, Any]]:
    order = np.argsort(-gain, kind="stable")
    return people.iloc[order[gain[order] > 0][:CHANGED]].to_dict("records")


def _order(matched: Matched) -> dict[str, Any]:
    """Rank the systems within each patient, inf as the largest number; average ranks over scores, then patients."""
    ranks = {
        key: pd.DataFrame(stats.rankdata(np.round(-DIRECTIONS[key[0]] * own.to_numpy(), 12), axis=1), index=own.index)
        for key, own in matched.tested.items()
    }
    overall = pd.concat(ranks).groupby(level="patient").mean()
    by_score = [
        {"metric": metric, "region": region, **_ranked(matched, own)} for (metric, region), own in ranks.items()
    ]
    return {"overall": _ranked(matched, overall), "scores": by_score}


def _ranked(matched: Matched, ranks: pd.DataFrame) -> dict[str, Any]:
    found = significance.rank_systems(ranks.to_numpy())
    return {
        "patients": len(ranks),
        "holds": found.holds,
        "systems": [
            {"name": name, "mean_rank": mean, "places": found.places and found.places[k]}
            for k, (name, mean) in enumerate(zip(matched.names, found.mean_ranks, strict=True))
        ],
    }
