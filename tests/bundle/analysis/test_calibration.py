"""Reliability curves, per patient rather than per voxel."""

import pandas as pd
import pytest

from bundle.analysis.calibration import pool_reliability
from bundle.reporting.sentences import describe_reliability
from scripts.scoring.cohort import RELIABILITY_COLUMNS


def curve(*rows) -> dict:
    """The curve of WT of rows (case, patient, bin, voxels, confidence, frequency)."""
    table = pd.DataFrame([[case, who, "WT", *rest] for case, who, *rest in rows], columns=RELIABILITY_COLUMNS)
    return pool_reliability(table, ["WT"])["WT"]


def test_patients_weigh_the_same_however_large_their_tumours_are():
    found = curve(
        ("a", "a", 0.0, 9000, 0.0, 0.0),
        ("a", "a", 0.8, 1000, 0.8, 0.9),
        ("b", "b", 0.0, 90, 0.0, 0.0),
        ("b", "b", 0.8, 10, 0.8, 0.3),
    )
    one = found["bins"][8]
    assert (one["voxels"], one["patients"], one["bin"]) == (1010, 2, 0.8)
    assert one["confidence"] == pytest.approx(0.8)
    assert one["frequency"] == pytest.approx(0.6)  # the mean of 0.9 and 0.3; of pooled voxels it would be 0.894
    assert (found["patients"], found["voxels"]) == (2, 10100)


def test_scans_of_one_patient_are_one_patient():
    found = curve(("a1", "a", 0.8, 100, 0.8, 1.0), ("a2", "a", 0.8, 300, 0.8, 0.0), ("b", "b", 0.8, 100, 0.8, 0.75))
    assert found["bins"][8]["frequency"] == pytest.approx((0.25 + 0.75) / 2)
    assert found["bins"][8]["patients"] == found["patients"] == 2


def test_patient_without_voxels_in_a_bin_is_left_out_there():
    found = curve(("a", "a", 0.5, 200, 0.55, 0.4), ("b", "b", 0.1, 200, 0.15, 0.1), ("b", "b", 0.5, 0, None, None))
    assert found["bins"][5]["patients"] == 1
    assert found["bins"][5]["frequency"] == pytest.approx(0.4)
    assert found["bins"][3] == {
        **{"bin": 0.3, "voxels": 0, "patients": 0},
        **dict.fromkeys(("confidence", "frequency", "frequency_interval")),
    }


def test_overconfidence_and_underconfidence_differ_on_both_sides_of_one_half():
    found = curve(
        ("a", "a", 0.0, 500, 0.02, 0.10),  # too sure that nothing is there: 0.08 of half of the voxels
        ("a", "a", 0.3, 200, 0.35, 0.30),  # not sure enough: 0.05 of a fifth
        ("a", "a", 0.6, 200, 0.65, 0.80),  # not sure enough: 0.15 of a fifth
        ("a", "a", 0.9, 100, 0.95, 0.75),  # too sure: 0.20 of a tenth
    )
    assert found["over"] == pytest.approx(0.08 * 0.5 + 0.20 * 0.1)
    assert found["under"] == pytest.approx(0.05 * 0.2 + 0.15 * 0.2)
    assert found["gap"] == pytest.approx(found["over"] + found["under"])
    assert found["furthest"] == 0.9
    assert (
        describe_reliability("WT", found)
        == "WT, 1 patient: largest difference at a predicted probability of 0.95: observed 0.75, over-confident."
    )


def test_a_few_voxels_do_not_decide_what_the_page_says():
    found = curve(("a", "a", 0.4, 99, 0.45, 1.0), ("a", "a", 0.6, 100, 0.65, 0.8))
    assert (
        describe_reliability("WT", found)
        == "WT, 1 patient: largest difference at a predicted probability of 0.65: observed 0.80, under-confident."
    )
    assert "too few voxels" in describe_reliability("WT", curve(("a", "a", 0.4, 99, 0.45, 1.0)))


def test_reliable_probabilities_are_called_reliable():
    assert "well calibrated" in describe_reliability("WT", curve(("a", "a", 0.9, 1000, 0.95, 0.951)))


def test_a_difference_within_the_interval_over_patients_may_be_chance():
    shares = (0.2, 1.0, 0.3, 0.9, 1.0, 0.5)
    found = curve(*[(str(k), str(k), 0.7, 100, 0.75, share) for k, share in enumerate(shares)])
    low, high = found["bins"][7]["frequency_interval"]
    assert 0.2 < low < sum(shares) / 6 < 0.75 < high < 1.0
    assert describe_reliability("WT", found).endswith("observed 0.65, within its 95 % interval.")
    few = curve(*[(str(k), str(k), 0.7, 100, 0.75, share) for k, share in enumerate(shares[:4])])
    assert few["bins"][7]["frequency_interval"] is None


def test_regions_of_which_nothing_is_known_have_no_curve():
    table = pd.DataFrame([["a", "a", "WT", 0.1, 5, 0.1, 0.2]], columns=RELIABILITY_COLUMNS)
    assert list(pool_reliability(table, ["ET", "WT"])) == ["WT"]
    assert pool_reliability(table, ["ET"]) is None
