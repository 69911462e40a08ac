"""Calibration of the predicted Dice: the fit, its bound on patients that took no part, and what is left out."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from crepes import ConformalPredictiveSystem

from bundle.analysis.mask_quality import (
    calibrate_region,
    describe_calibration,
    find_margin,
    leave_patients_out,
    predict_masks,
    read_measured_masks,
    summarise_predictions,
)
from scripts.inference.predicted_dice import MEASURED
from tests.made import refused, rows_of, write


def masks_of(patients: int, seed: int = 0, scans: int = 1, region: str = "WT") -> pd.DataFrame:
    """Masks whose logit of Dice is that of the expected Dice, less a half, with an error."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(patients):
        hidden = rng.normal(1.5, 1.0)
        for scan in range(scans):
            expected, dice = (1 / (1 + np.exp(-(hidden + shift))) for shift in (0, rng.normal(-0.5, 0.3)))
            numbers = {"expected_dice": expected, "border_entropy": rng.uniform(0.4, 0.6), "volume_ml": 30 + k % 7}
            rows.append({"case": f"{k}-{scan}", "patient": f"p{k}", "region": region, "dice": dice, **numbers})
    return pd.DataFrame(rows).reindex(columns=["case", "patient", "region", "dice", *MEASURED])


def test_few_patients_are_not_calibrated():
    assert calibrate_region(masks_of(19, scans=2)) == {
        "patients": 19,
        "reason": "Not calibrated: 19 patients have a mask of this region, and 20 are needed.",
    }
    assert "1 patient has a mask" in calibrate_region(masks_of(1))["reason"]
    assert describe_calibration({"WT": calibrate_region(masks_of(20))}) == ["WT: Calibrated on 20 patients."]


def test_the_fit_finds_the_slope_of_the_expected_dice():
    own = calibrate_region(masks_of(300))
    slopes = dict(zip(own["numbers"], own["slopes"], strict=True))
    assert slopes["expected_dice"] == pytest.approx(1, abs=0.1)
    assert own["numbers"] == ["expected_dice", "border_entropy", "volume_ml"]  # what was not measured is left out
    predicted = predict_masks(masks_of(200, seed=1), {"WT": own})
    assert (predicted["value"] - predicted["dice"]).abs().mean() < 0.06


def test_the_margin_is_that_of_crepes():
    errors = np.random.default_rng(0).normal(size=37)
    oracle = ConformalPredictiveSystem().fit(residuals=-errors)
    lower = oracle.predict_int(y_hat=np.zeros(1), confidence=0.8, y_min=-9, y_max=9)[0, 0]  # a tenth on each side
    assert -find_margin(errors) == pytest.approx(lower)


@pytest.mark.parametrize(("count", "rank"), [(9, 9), (10, 10), (19, 18), (99, 90)])
def test_the_margin_has_the_rank_for_ninety_percent(count, rank):
    assert find_margin(np.random.default_rng(0).permutation(count) + 1.0) == rank


def test_new_patients_reach_the_bound_in_nine_of_ten_draws():
    covered = []
    for seed in range(200):
        masks = masks_of(45, seed)
        known, new = masks.iloc[:40], masks.iloc[40:]
        predicted = predict_masks(new, {"WT": calibrate_region(known)}).dropna(subset=["lower"])
        covered += [*(predicted["dice"] >= predicted["lower"])]
    assert len(covered) > 900
    assert 0.87 < np.mean(covered) < 0.94  # 19 of 21 expected, standard error 0.01


def test_each_patient_is_predicted_without_their_own_masks():
    masks = masks_of(30)
    changed = masks.copy()
    changed.loc[changed["patient"] == "p3", "dice"] = 0.01  # would widen the margin if it took part
    one, other = (leave_patients_out(table).set_index("patient") for table in (masks, changed))
    assert one.loc["p3", "lower"] == other.loc["p3", "lower"]


def test_of_several_scans_of_a_patient_the_worst_counts():
    masks = masks_of(40, scans=2)
    worse = masks.copy()
    worse.loc[worse["case"].str.endswith("-1"), "dice"] *= 0.5
    assert calibrate_region(worse)["margin"] > calibrate_region(masks)["margin"]
    (row,) = summarise_predictions(leave_patients_out(worse))
    assert row["predicted"] == 40


def test_the_summary_counts_patients_and_the_worst_tenth():
    masks = masks_of(20).assign(value=0.9, lower=0.8, sentence="")
    masks["dice"] = np.linspace(0.6, 0.95, 20)
    masks.loc[[0, 1], ["value", "lower"]] = 0.5, 0.4
    (row,) = summarise_predictions(masks)
    assert (row["patients"], row["predicted"]) == (20, 20)
    assert row["covered"] == 20 - int(((masks["dice"] < 0.8) & (masks["lower"] > 0.7)).sum())
    assert (row["worst"], row["caught"], row["warned"], row["warnings"]) == (2, 2, 2, 2)
    assert row["interval"][0] < row["covered"] / 20 < row["interval"][1]


def test_few_patients_have_a_rank_correlation_alone():
    masks = masks_of(5)
    masks["dice"] = masks["expected_dice"]
    (row,) = summarise_predictions(leave_patients_out(masks))
    assert (row["predicted"], row["covered"], row["interval"], row["correlation"]) == (0, 0, None, None)
    assert row["correlation_expected"] == pytest.approx(1)


def test_an_empty_mask_has_no_row(tmp_path):
    rows = (
        rows_of("a", "WT", 0.8) + rows_of("b", "WT", 0.0, note="hallucinated") + rows_of("c", "WT", 0.0, note="missed")
    )
    write(tmp_path, rows)
    numbers = {case: {"WT": {"expected_dice": 0.7}} for case in "ab"} | {"c": {}}
    (tmp_path / "numbers.json").write_text(json.dumps({"made_with": {"tta": False}, "cases": numbers}))
    masks, made_with = read_measured_masks(tmp_path, "numbers.json")
    assert masks[["case", "dice"]].to_numpy().tolist() == [["a", 0.8], ["b", 0.0]]
    assert made_with == {"tta": False}
    assert math.isnan(masks["mirror_agreement"].iloc[0])
    assert "has no other.json" in refused(read_measured_masks, tmp_path, "other.json")
    assert "there is no folder" in refused(read_measured_masks, tmp_path / "none", "other.json")
