"""Sentences about a comparison state what was found and no more."""

import pytest

from bundle.reporting.verdicts import (
    comparison_remarks,
    comparison_verdict,
    describe_power,
    describe_ranking,
    format_percent,
    score_name,
)
from bundle.reporting.words import MINUS

ROW = {
    "metric": "dice",
    "region": "WT",
    "unit": "",
    "patients": 42,
    "equal": 2,
    "mean": 0.021,
    "mean_interval": [0.004, 0.039],
    "median": 0.02,
    "median_interval": [0.003, 0.03],
    "can_show": True,
    "detectable": 0.0221,
    "finding": "better",
}
ET = ROW | {"region": "ET", "finding": "not shown", "detectable": 0.0501}
HD95 = ROW | {
    "metric": "hd95",
    "unit": "mm",
    "mean": None,
    "mean_interval": None,
    "median": -1.25,
    "median_interval": ["-inf", -0.4],
    "detectable": None,
}
COST = ROW | {"metric": "cost", "region": "all", "unit": "points", "finding": "not shown", "detectable": 12.3}


def test_a_verdict_names_the_size_the_interval_and_the_patients():
    said = comparison_verdict("A", "B", [ROW, ET])
    assert said == "B is better on WT Dice (+0.021 [0.004, 0.039], n = 42); no difference shown on Dice (ET)."


def test_median_replaces_the_mean_where_a_difference_is_infinite():
    assert comparison_verdict("A", "B", [HD95]).replace(MINUS, "-") == (
        "B is better on WT HD95 (median -1.2 mm [-∞, -0.40], n = 42)."
    )


def test_each_system_gets_its_wins_and_uncertainty_is_stated():
    rows = [
        ROW,
        ET | {"finding": "worse", "mean": -0.03, "mean_interval": [-0.05, -0.01]},
        COST | {"finding": "unclear"},
    ]
    said = comparison_verdict("A", "B", rows).replace(MINUS, "-")
    assert "; A is better on ET Dice (-0.030 [-0.050, -0.010]); unclear which is better on cost (" in said


def test_the_patients_of_each_score_are_counted_where_they_differ():
    said = comparison_verdict("A", "B", [ROW, ROW | {"region": "ET", "patients": 40}])
    assert "n = 42" in said
    assert "n = 40" in said


def test_without_any_difference_it_names_both_systems_and_claims_nothing():
    said = comparison_verdict("a net", "b net", [ET, ET | {"region": "WT"}, COST])
    assert said == "No difference between a net and b net is shown on Dice (ET, WT) and cost."


def test_few_patients_get_their_smallest_detectable_difference():
    said = describe_power([ROW, ET, COST], tests=3)
    assert said.startswith("Only 42 patients: ")
    assert "shown with a power of 80 %: Dice (ET 0.050) and cost (12.3 points)." in said


def test_too_few_patients_for_any_difference_are_reported():
    said = describe_power([ET | {"patients": 5, "can_show": False}], tests=9)
    assert "even if all of them changed in the same direction" in said
    assert "after correction for 9 tests" in said


def test_significant_or_large_comparisons_need_no_remark_on_power():
    assert describe_power([ROW], tests=1) is None
    assert describe_power([ET | {"patients": 50}], tests=1) is None


def test_users_own_scores_have_names():
    assert [score_name(ROW), score_name(COST), score_name(COST | {"metric": "weighted_dice"})] == [
        "WT Dice",
        "cost",
        "weighted Dice",
    ]


@pytest.mark.parametrize(
    ("part", "said"), [(0, "0 %"), (0.001, "under 1 %"), (0.42, "42 %"), (0.999, "over 99 %"), (1, "100 %")]
)
def test_a_share_of_draws_is_never_rounded_to_certainty(part, said):
    assert format_percent(part) == said


def test_order_has_its_stability():
    systems = [
        {"name": "A", "mean_rank": 2.2, "places": [0.1, 0.9]},
        {"name": "B", "mean_rank": 1.3, "places": [0.9, 0.1]},
    ]
    ranking = {"overall": {"patients": 40, "holds": 0.88, "systems": systems}, "scores": [1, 2, 3]}
    said = describe_ranking(ranking)
    assert said.startswith("By mean rank over 3 scores and 40 patients: B (1.30) and A (2.20).")
    assert said.endswith("the whole order recurs in 88 %, and B is first in 90 %.")
    ranking["overall"]["holds"] = None
    assert describe_ranking(ranking).endswith("Too few patients to assess its stability.")


def test_weaknesses_of_a_comparison_are_stated():
    systems = [
        {"name": "A", "datalist": None, "failed": {"c1": "no file"}},
        {"name": "B", "datalist": "x", "failed": {}},
    ]
    said = " ".join(comparison_remarks(systems, [HD95 | {"patients": 40}, COST], patients=42))
    for words in (
        "does not mean that there is none",
        "Only 42 patients",
        "No data list is recorded in evaluation.json for A",
        "A failed case counts as an empty prediction",
        "ranks last",
        "Not measured in every patient: WT HD95 in 40 of 42",
        "an error in the inner one counts in both",
    ):
        assert words in said
    plain = " ".join(comparison_remarks(systems[1:], [ROW | {"patients": 60}], patients=60))
    assert "too narrow" not in plain
    assert "failed" not in plain
