"""Comparisons find real differences and only those."""

import numpy as np
import pytest

from bundle.analysis.comparison import compare_systems
from bundle.analysis.evaluation import read_evaluation
from bundle.analysis.pairing import match_systems
from tests.made import cohort, failed, rows_of, write

RNG = np.random.default_rng(7)
FORTY = RNG.beta(8, 3, 40).clip(0.2, 0.85).tolist()
BETTER = (np.array(FORTY) + RNG.normal(0.03, 0.02, 40)).tolist()


def compared(folder, *systems, **options):
    names = [chr(ord("A") + k) for k in range(len(systems))]
    tables = [read_evaluation(write(folder / name, rows)) for name, rows in zip(names, systems, strict=True)]
    return compare_systems(match_systems(tables, names, **options))


def rows_by_score(found, pair=0):
    return {(row["metric"], row["region"]): row for row in found["pairs"][pair]["differences"]}


@pytest.fixture(scope="module")
def shifted(tmp_path_factory):
    """Forty patients: B is about 0.03 better than A on WT, and the same but for noise on ET."""
    noise = (np.array(FORTY) + RNG.normal(0, 0.02, 40)).tolist()
    folder = tmp_path_factory.mktemp("shifted")
    return compared(folder, cohort(FORTY) + cohort(FORTY, "ET"), cohort(BETTER) + cohort(noise, "ET"))


def test_interval_covers_a_known_shift_where_it_was_added(shifted):
    row = rows_by_score(shifted)["dice", "WT"]
    assert row["finding"] == "better"
    assert 0 < row["mean_interval"][0] < 0.03 < row["mean_interval"][1]
    assert row["better"] + row["equal"] + row["worse"] == row["patients"] == 40
    assert rows_by_score(shifted)["dice", "ET"]["finding"] == "not shown"


def test_a_smaller_distance_is_a_better_one(shifted):
    row = rows_by_score(shifted)["hd95", "WT"]
    assert row["mean"] < 0
    assert row["finding"] == "better"
    assert row["better"] > row["worse"]
    assert row["gained"][0]["change"] == min(who["change"] for who in row["gained"]) < 0


def test_every_p_value_is_corrected_for_all_tests_together(shifted):
    rows = [*shifted["pairs"][0]["differences"], *shifted["pairs"][0]["tail"]]
    assert shifted["tests"] == len(rows) == 8
    smallest = min(rows, key=lambda row: row["p"])
    assert smallest["p_holm"] == pytest.approx(8 * smallest["p"])
    largest = max(rows, key=lambda row: row["p"])
    assert largest["p_holm"] >= largest["p"]


def test_the_same_masks_under_two_names_show_no_difference(tmp_path):
    found = compared(tmp_path, cohort(FORTY), cohort(FORTY))
    for row in found["pairs"][0]["differences"]:
        assert (row["finding"], row["p_holm"], row["mean"], row["better"], row["equal"]) == ("not shown", 1, 0, 0, 40)
        assert row["gained"] == row["lost"] == []


def test_swapping_the_systems_swaps_the_verdict_and_nothing_else(tmp_path, shifted):
    other = rows_by_score(compared(tmp_path, cohort(BETTER), cohort(FORTY), metrics=["dice"]))["dice", "WT"]
    row = rows_by_score(shifted)["dice", "WT"]
    assert other["finding"] == "worse"
    assert (other["mean"], other["p"]) == (pytest.approx(-row["mean"]), row["p"])
    assert (other["better"], other["worse"]) == (row["worse"], row["better"])


def test_row_order_of_cases_csv_changes_no_number(tmp_path):
    first, second = cohort(FORTY) + cohort(FORTY, "ET"), cohort(BETTER) + failed("c40")
    second += cohort(BETTER, "ET")
    first += rows_of("c40", "WT", 0.5) + rows_of("c40", "ET", 0.6)
    plain = compared(tmp_path / "plain", first, second)
    mixed = compared(tmp_path / "mixed", *([rows[k] for k in RNG.permutation(len(rows))] for rows in (first, second)))
    assert rows_by_score(mixed) == rows_by_score(plain)


def test_distance_turned_infinite_is_the_largest_loss_without_a_mean(tmp_path):
    worse = [row for row in cohort(BETTER) if row[0] not in ("c05", "c06")]
    worse += rows_of("c05", "WT", 0, 60.0, note="missed") + rows_of("c06", "WT", 0, 70.0, note="missed")
    row = rows_by_score(compared(tmp_path, cohort(FORTY), worse))["hd95", "WT"]
    assert (row["mean"], row["mean_interval"], row["detectable"]) == (None, None, None)
    assert [(who["patient"], who["change"]) for who in row["lost"][:2]] == [("c05", np.inf), ("c06", np.inf)]
    assert np.isfinite(row["median"])
    assert row["finding"] == "better"  # 38 of 40 did better, and the median tells how much


def test_many_small_gains_with_few_large_losses_are_unclear(tmp_path):
    second = np.array(FORTY) + 0.01 + RNG.normal(0, 0.001, 40)
    second[:4] -= 0.18
    row = rows_by_score(compared(tmp_path, cohort(FORTY), cohort(second.tolist()), metrics=["dice"]))["dice", "WT"]
    assert row["p_holm"] < 0.05
    assert row["finding"] == "unclear"


def test_the_patients_that_changed_most_are_named_in_both_directions(tmp_path):
    second = np.array(FORTY)
    second[[3, 8, 11]] += [0.1, 0.05, 0.02]
    second[[20, 30]] -= [0.15, 0.01]
    row = rows_by_score(compared(tmp_path, cohort(FORTY), cohort(second.tolist())))["dice", "WT"]
    assert [who["patient"] for who in row["gained"]] == ["c03", "c08", "c11"]
    assert [who["patient"] for who in row["lost"]] == ["c20", "c30"]
    assert row["lost"][0]["change"] == pytest.approx(-0.15)
    assert row["lost"][0]["second"] == pytest.approx(row["lost"][0]["first"] - 0.15)


def test_few_patients_are_reported_as_inconclusive(tmp_path):
    found = compared(tmp_path, cohort([0.5] * 5), cohort([0.61, 0.62, 0.63, 0.64, 0.65]))
    assert not any(row["can_show"] for row in found["pairs"][0]["differences"])
    assert {row["finding"] for row in found["pairs"][0]["differences"]} == {"not shown"}


def test_three_systems_are_ranked_per_patient_with_stable_clear_order(tmp_path):
    best = [dice + 0.1 for dice in FORTY]
    found = compared(tmp_path, cohort(FORTY), cohort(best), cohort([dice - 0.1 for dice in FORTY]))
    overall = found["ranking"]["overall"]
    assert [(system["name"], system["mean_rank"]) for system in overall["systems"]] == [("A", 2), ("B", 1), ("C", 3)]
    assert overall["holds"] == 1
    assert len(found["pairs"]) == 3
    assert found["tests"] == 3 * 4


def test_equal_systems_have_no_stable_order(tmp_path):
    noisy = [cohort((np.array(FORTY) + RNG.normal(0, 0.05, 40)).clip(0, 1).tolist()) for _ in range(3)]
    overall = compared(tmp_path, *noisy, metrics=["dice"])["ranking"]["overall"]
    assert overall["holds"] < 0.8
    assert sum(system["mean_rank"] for system in overall["systems"]) == pytest.approx(6)


def test_two_missing_distances_share_the_last_rank(tmp_path):
    systems = [
        cohort(FORTY[:6]) + rows_of("x", "WT", dice, note=note)
        for dice, note in ((0.0, "missed"), (0.0, "missed"), (0.5, ""))
    ]
    (score,) = compared(tmp_path, *systems, metrics=["hd95"])["ranking"]["scores"]
    assert [system["mean_rank"] for system in score["systems"]] == pytest.approx(
        [(6 * 2 + 2.5) / 7, (6 * 2 + 2.5) / 7, (6 * 2 + 1) / 7]
    )


def test_two_systems_need_no_ranking(shifted):
    assert shifted["ranking"] is None
