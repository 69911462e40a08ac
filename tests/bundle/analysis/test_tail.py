"""The worst cases of systems are counted and compared by patient."""

import pytest
from scipy import stats

from bundle.analysis.comparison import compare_systems
from bundle.analysis.evaluation import read_evaluation
from bundle.analysis.pairing import match_systems
from tests.made import cohort, failed, refused, rows_of, write

BELOW, MISSED = "dice_below_0.7", "missed"


def tails(folder, first, second, **options):
    """The counts of the second system against the first, by metric and region; and the whole comparison."""
    tables = [read_evaluation(write(folder / name, rows)) for name, rows in (("a", first), ("b", second))]
    found = compare_systems(match_systems(tables, "AB", **options))
    return {(row["metric"], row["region"]): row for row in found["pairs"][0]["tail"]}, found


def test_cases_under_the_limit_are_counted_and_tested_by_mcnemar(tmp_path):
    first, second = [0.6] * 12 + [0.8] * 8, [0.75] * 10 + [0.6] * 2 + [0.65] + [0.8] * 7
    rows, found = tails(tmp_path, cohort(first), cohort(second))
    row = rows[BELOW, "WT"]
    assert (row["cases_first"], row["cases_second"], row["cases"]) == (12, 3, 20)
    assert (row["better"], row["equal"], row["worse"]) == (10, 9, 1)
    assert row["p"] == pytest.approx(stats.binomtest(1, 11).pvalue)
    assert row["mean"] == pytest.approx(-9 / 20)
    assert row["mean_interval"][0] < -9 / 20 < row["mean_interval"][1] < 0
    assert row["finding"] == "better"
    assert found["tests"] == 4  # three scores and this count


def test_missed_regions_are_counted_where_the_label_has_the_region(tmp_path):
    rest = cohort([0.8] * 6)
    first = [*rest, *rows_of("x", "WT", 0, note="missed"), *rows_of("y", "WT", 0, 0.0, note="hallucinated")]
    second = [*rest, *rows_of("x", "WT", 0.8), *rows_of("y", "WT", 1, 0.0, note="absent")]
    row = tails(tmp_path, first, second)[0][MISSED, "WT"]
    assert (row["cases_first"], row["cases_second"], row["cases"], row["patients"]) == (1, 0, 7, 7)
    assert [who["patient"] for who in row["gained"]] == ["x"]


def test_a_failed_case_counts_as_missed(tmp_path):
    rows, _ = tails(tmp_path, cohort([0.8] * 6), cohort([0.8] * 5) + failed("c05"))
    assert (rows[MISSED, "WT"]["cases_second"], rows[BELOW, "WT"]["cases_second"]) == (1, 1)


def test_several_cases_of_a_patient_are_one_difference(tmp_path):
    def visits(dices):
        return [row for k, dice in enumerate(dices) for row in rows_of(f"v{k}", "WT", dice, patient=f"p{k // 2}")]

    first, second = [0.6, 0.6, 0.6, 0.8, 0.8, 0.8], [0.8, 0.6, 0.8, 0.8, 0.8, 0.8]
    row = tails(tmp_path, visits(first), visits(second))[0][BELOW, "WT"]
    assert (row["cases"], row["patients"], row["cases_first"], row["cases_second"]) == (6, 3, 3, 1)
    assert (row["better"], row["equal"], row["mean"]) == (2, 1, pytest.approx(-1 / 3))


def test_what_no_system_gets_wrong_is_not_tested(tmp_path):
    rows, found = tails(tmp_path, cohort([0.8] * 6), cohort([0.9] * 6))
    assert not rows
    assert found["tests"] == 3


def test_counts_alone_are_refused_as_scores(tmp_path):
    message = refused(tails, tmp_path, cohort([0.6] * 6), cohort([0.9] * 6), metrics=[MISSED])
    assert "name a score as well, such as dice" in message
