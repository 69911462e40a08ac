"""What a missing channel costs is paired by case, from evaluations of the same weights."""

from __future__ import annotations

import pytest

from bundle.analysis.channel_costs import describe_channel_costs, measure_channel_costs
from scripts.files import write_json
from tests.made import cohort, write

DICES = [0.9, 0.8, 0.7, 0.6, 0.85, 0.75]


@pytest.fixture
def run(tmp_path):
    write(tmp_path / "evaluation", cohort(DICES), about={"sha256": "a"})
    falls = (0.1, 0.2, 0.0, 0.1, 0.3, 0.1)
    lower = cohort([dice - fall for dice, fall in zip(DICES, falls, strict=True)])
    write(tmp_path / "evaluation_without_T2", lower, about={"sha256": "a", "without": ["T2"]})
    write(tmp_path / "evaluation_without_T1", lower, about={"sha256": "of other weights", "without": ["T1"]})
    return tmp_path


def test_the_fall_of_dice_is_the_mean_over_cases(run):
    costs = measure_channel_costs(run, "a")
    assert [*costs] == ["T2"]
    assert costs["T2"]["patients"] == 6
    assert costs["T2"]["dice"]["WT"] == pytest.approx(0.8 / 6)
    low, high = costs["T2"]["intervals"]["WT"]
    assert 0.03 < low < 0.8 / 6 < high < 0.25
    (line,) = describe_channel_costs(costs)
    assert line.startswith("without T2, mean fall of Dice, n = 6 patients: WT 0.133 (")


def test_nothing_is_said_without_an_evaluation_of_the_weights(run):
    assert measure_channel_costs(run, "of other weights") == {}


@pytest.mark.parametrize(("tta", "counted"), [(False, ["T2"]), (True, [])])
def test_masks_of_other_settings_are_not_compared(run, tta, counted):
    write_json(run / "evaluation" / "mask_numbers.json", {"made_with": {"tta": False, "without": []}})
    write_json(run / "evaluation_without_T2" / "mask_numbers.json", {"made_with": {"tta": tta, "without": ["T2"]}})
    assert [*measure_channel_costs(run, "a")] == counted
