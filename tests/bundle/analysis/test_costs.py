"""User-defined costs of errors, failed cases included."""

import numpy as np
import pytest

from bundle.analysis.costs import Price, add_user_scores, parse_prices, parse_weights
from bundle.analysis.evaluation import average_by_patient, read_evaluation
from scripts.errors import InputError
from tests.made import INF, cohort, failed, rows_of, write

REGIONS = ("WT", "TC", "ET")


def own_scores(folder, rows, **given):
    return average_by_patient(add_user_scores(read_evaluation(write(folder, rows)).scores, **given)).loc["all"]


def test_weights_are_read_as_they_are_written():
    assert parse_weights("WT=1, ET=2.5", REGIONS) == {"WT": 1, "ET": 2.5}


def test_a_price_for_all_regions_can_be_replaced_in_one():
    assert parse_prices("fn=2,fp=1", REGIONS) == dict.fromkeys(REGIONS, Price(2, 1))
    assert parse_prices("fn=2,fp=1,ET:fn=5", REGIONS)["ET"] == Price(5, 1)
    assert parse_prices("ET:fn=5,ET:fp=1", REGIONS) == {"ET": Price(5, 1)}
    assert parse_prices("fn=2", ["WT"]) == {"WT": Price(2, 0)}
    assert parse_prices("fn=2,ET:fn=0", REGIONS) == {"WT": Price(2, 0), "TC": Price(2, 0)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("WT", "expected one number per region"),
        ("True", "expected one number per region"),
        ("WT=", "expected one number per region"),
        ("WT=-1", "0 or more"),
        ("WT=inf", "0 or more"),
        ("WT=1,WT=2", "each once"),
        ("XX=1", "no region 'XX' in cases.csv: expected one of WT, TC, ET"),
        ("WT=0,ET=0", "all regions are 0"),
    ],
)
def test_invalid_region_weights_are_refused(text, said):
    with pytest.raises(InputError, match=said):
        parse_weights(text, REGIONS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fn", "expected a number per ml missed"),
        ("miss=2", "expected a number per ml missed"),
        ("XX:fn=2", "no region 'XX'"),
        ("fn=0,fp=0", "all prices are 0"),
        ("fn=nan", "0 or more"),
    ],
)
def test_invalid_costs_are_refused(text, said):
    with pytest.raises(InputError, match=said):
        parse_prices(text, REGIONS)


def test_the_weighted_dice_is_the_mean_over_the_named_regions(tmp_path):
    rows = cohort([0.9, 0.6], "WT") + cohort([0.3, 0.6], "ET") + cohort([0.1, 0.1], "TC")
    assert list(own_scores(tmp_path, rows, weights={"WT": 1, "ET": 2})["weighted_dice"]) == pytest.approx([0.5, 0.6])


def test_cost_sums_missed_and_added_volume_times_price_over_regions(tmp_path):
    rows = rows_of("a", "WT", 0.8, volume_fn=3.0, volume_fp=1.0) + rows_of("a", "ET", 0.8, volume_fn=0.5, volume_fp=2.0)
    found = own_scores(tmp_path, rows, prices={"WT": Price(2, 1), "ET": Price(10, 0)})
    assert list(found["cost"]) == [3 * 2 + 1 * 1 + 0.5 * 10]


def test_failed_case_is_the_costliest_and_weighs_as_dice_0(tmp_path):
    rows = cohort([0.8, 0.6]) + failed("lost")
    found = own_scores(tmp_path, rows, weights={"WT": 1.0}, prices={"WT": Price(0, 1)})
    assert found.loc["lost", "cost"] == INF
    assert found.loc["lost", "weighted_dice"] == 0
    assert np.isfinite(found["cost"]).sum() == 2


def test_cases_of_a_patient_are_averaged(tmp_path):
    rows = rows_of("a1", "WT", 0.8, patient="a", volume_fn=4.0, volume_fp=0.0)
    rows += rows_of("a2", "WT", 0.6, patient="a", volume_fn=1.0, volume_fp=0.0)
    found = own_scores(tmp_path, rows, weights={"WT": 1.0}, prices={"WT": Price(2, 0)})
    assert found.loc["a", "cost"] == 5
    assert found.loc["a", "weighted_dice"] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("given", "metric"), [({"weights": {"ET": 1.0}}, "dice"), ({"prices": {"ET": Price(1, 1)}}, "fn")]
)
def test_region_missing_from_a_case_is_an_error(tmp_path, given, metric):
    rows = cohort([0.9, 0.6], "WT") + cohort([0.3], "ET")
    with pytest.raises(InputError, match=rf"has no \w*{metric} of ET of c01: score the predictions again"):
        own_scores(tmp_path, rows, **given)
