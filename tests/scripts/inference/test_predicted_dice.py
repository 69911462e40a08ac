"""The Dice predicted from a calibration: its value, its bound, and when there is none."""

import json
import math

import pytest

from scripts.data.datalist import file_hash
from scripts.files import write_json
from scripts.inference.predicted_dice import (
    MEMBERS,
    describe_prediction,
    find_obstacle,
    find_quality,
    log_odds,
    predict_dice,
    read_quality,
)
from tests.made import refused

# of the expected Dice alone, with slope 1: what is expected is predicted
OWN = {
    "patients": 40,
    "numbers": ["expected_dice", "volume_ml"],
    "slopes": [1.0, 0.0],
    "intercept": 0.0,
    "ranges": [[log_odds(0.5), log_odds(0.9)], [math.log(10), math.log(100)]],
    "margin": 1.0,
}
NUMBERS = {"expected_dice": 0.8, "volume_ml": 30.0}


def test_value_and_bound_are_on_the_scale_of_the_logit():
    found = predict_dice(OWN, NUMBERS)
    assert found["value"] == 0.8
    assert found["lower"] == pytest.approx(1 / (1 + math.exp(1 - log_odds(0.8))), abs=1e-4)
    assert found["sentence"] == "Predicted Dice 0.80, with 90 % confidence at least 0.60, from 40 patients."


def test_a_wide_margin_bounds_by_zero():
    assert predict_dice({**OWN, "margin": 20.0}, NUMBERS)["lower"] == 0


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        (None, "the mask of this region is empty"),
        ({**NUMBERS, "volume_ml": 1.0}, "the volume in ml is 1, unlike that of the 40 patients"),
        ({**NUMBERS, "expected_dice": 0.05}, "by the network's own probabilities is 0.05, unlike"),
        ({"expected_dice": 0.8}, "the volume in ml was not measured"),
        ({**NUMBERS, "volume_ml": math.nan}, "the volume in ml was not measured"),
    ],
)
def test_nothing_is_predicted_beyond_the_calibration(numbers, reason):
    found = predict_dice(OWN, numbers)
    assert found["value"] is found["lower"] is None
    assert found["sentence"].startswith("Not predicted: ")
    assert reason in found["sentence"]


def test_a_quarter_of_the_range_may_be_exceeded():
    edge = math.exp(OWN["ranges"][1][1] + 0.25 * math.log(10))
    assert predict_dice(OWN, {**NUMBERS, "volume_ml": edge * 0.99})["value"] is not None
    assert predict_dice(OWN, {**NUMBERS, "volume_ml": edge * 1.01})["value"] is None


def test_a_region_of_few_patients_says_so():
    found = predict_dice({"patients": 3, "reason": "Not calibrated: 3 patients."}, NUMBERS)
    assert found == {"value": None, "lower": None, "patients": 3, "sentence": "Not calibrated: 3 patients."}


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    return tmp_path / "model.pt"


def test_other_weights_or_settings_are_an_obstacle(weights, tmp_path):
    known = {"weights": [file_hash(weights)], "made_with": {"tta": False, "overlap": 0.5}}
    assert find_obstacle(known, [weights], {"tta": False, "overlap": 0.5, "more": 1}) == ""
    assert "calibrated with tta false, and this mask was made with true" in find_obstacle(
        known, [weights], {"tta": True, "overlap": 0.5}
    )
    (tmp_path / "other.pt").write_bytes(b"other")
    assert "of other weights" in find_obstacle(known, [weights, tmp_path / "other.pt"], known["made_with"])
    assert "came without a calibration" in find_obstacle(None, [weights], {})


def test_the_file_is_next_to_the_weights(weights):
    assert find_quality([weights]) is None
    write_json(weights.with_name("quality.json"), {"quality_version": 7, "regions": {}})
    path = find_quality([weights])
    assert "is not a calibration of version 1" in refused(read_quality, path)
    write_json(path, {"quality_version": 1, "regions": {}})
    assert read_quality(path) == json.loads('{"quality_version": 1, "regions": {}}')


def test_predictions_of_a_mask_fit_on_a_line():
    known, empty = predict_dice(OWN, NUMBERS), predict_dice(OWN, None)
    line = describe_prediction({"WT": known, "ET": empty})
    assert line == "predicted Dice, with its 90 % bound: WT 0.80 (at least 0.60), ET not predicted"
    assert describe_prediction({"WT": empty, "ET": empty}) == empty["sentence"]
    assert describe_prediction({}) == ""


def test_members_need_a_calibration_of_members():
    own = {**OWN, "numbers": [MEMBERS], "slopes": [1.0], "ranges": [[0.0, 2.0]]}
    assert "members was not measured" in predict_dice(own, NUMBERS)["sentence"]


def test_the_mean_of_calibrated_networks_is_said_to_be_one():
    found = predict_dice(OWN, {**NUMBERS, MEMBERS: 0.9})
    assert found["value"] == 0.8
    assert found["sentence"].endswith("Calibrated on masks of the single networks, not of their mean.")
    assert "single" not in predict_dice(OWN, {**NUMBERS, MEMBERS: math.nan})["sentence"]  # of one network in a table
