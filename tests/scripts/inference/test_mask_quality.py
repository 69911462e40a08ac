"""Numbers of a mask that are known without a reference."""

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.data.decision import RegionDecision
from scripts.inference.feature_profile import FEATURES
from scripts.inference.mask_quality import MaskQuality, MeasureQualityd, measure_region_numbers, write_mask_numbers
from scripts.inference.view_agreement import MIRRORS
from tests.made.masks import records_of

REGIONS, LABELS = {"WT": [1, 2], "ET": [2]}, {"ED": 1, "ET": 2}
MADE_WITH = {"tta": False, "min_component_ml": {"WT": 0.0, "ET": 0.5}, "min_component_probability": {}}
CUBE = torch.zeros(12, 12, 12)
CUBE[3:9, 3:9, 3:9] = 1.0


def quality(decision: str = "regions", **changes) -> MaskQuality:
    given = {"calibration": None, "profile": None, "weights": [], "made_with": MADE_WITH}
    return MaskQuality(**{**given, "decision": RegionDecision(decision, REGIONS, LABELS), **changes})


def test_a_certain_mask_expects_dice_one_without_entropy():
    found = measure_region_numbers(CUBE, CUBE > 0, 0.027)
    assert found["expected_dice"] == pytest.approx(1)
    assert found["border_entropy"] == pytest.approx(0, abs=1e-5)
    assert found["volume_ml"] == pytest.approx(216 * 0.027)


def test_expected_dice_is_that_of_labels_drawn_from_the_probabilities():
    rng = np.random.default_rng(0)
    soft = np.clip(0.8 * CUBE.numpy() + rng.uniform(0, 0.15, CUBE.shape), 0, 1)
    drawn = rng.uniform(size=(400, *CUBE.shape)) < soft
    mask = soft > 0.5
    dices = 2 * (drawn & mask).sum((1, 2, 3)) / (drawn.sum((1, 2, 3)) + mask.sum())
    found = measure_region_numbers(torch.from_numpy(soft), torch.from_numpy(mask), 1.0)
    assert found["expected_dice"] == pytest.approx(dices.mean(), abs=0.003)


def test_entropy_is_of_both_sides_of_the_border_alone():
    soft = CUBE.clone()
    soft[5:7, 5:7, 5:7] = 0.9  # inside, no neighbour of the border
    soft[2, 3:9, 3:9] = 0.25  # one side of the border, outside
    rim = 6**3 - 4**3 + 6 * 6**2
    entropy = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    assert measure_region_numbers(soft, soft > 0.5, 1.0)["border_entropy"] == pytest.approx(36 * entropy / rim, 1e-4)


def test_the_largest_component_has_its_share_of_the_mask():
    mask = CUBE > 0
    mask[0, 0, :6] = True
    assert measure_region_numbers(mask.float(), mask, 1.0)["largest_share"] == pytest.approx(216 / 222)


@pytest.mark.parametrize("decision", ["regions", "classes"])
def test_regions_have_the_numbers_of_their_masks(decision):
    inner = torch.zeros_like(CUBE)
    inner[5:7, 5:7, 5:7] = 1.0
    maps = {"regions": [CUBE, inner], "classes": [1 - CUBE, CUBE - inner, inner]}[decision]
    found = quality(decision).measure(torch.stack(maps), 1.0, {})
    assert {name: own["volume_ml"] for name, own in found.items()} == {"WT": 216, "ET": 8}


def test_an_empty_region_has_no_numbers():
    assert [*quality().measure(torch.stack([CUBE, CUBE * 0]), 1.0, {})] == ["WT"]


def test_agreement_and_features_come_from_the_metadata_of_the_output(monkeypatch):
    made = quality()
    made.features = {"mean": [0.0], "scale": [1.0], "directions": [[1.0]], "variances": [1.0], "rest": 1.0}
    output = MetaTensor(torch.stack([CUBE, CUBE]), affine=torch.diag(torch.tensor([3.0, 3, 3, 1])))
    output.meta |= {MIRRORS: torch.tensor([0.9, 0.8]), FEATURES: torch.tensor([2.0])}
    found = MeasureQualityd(made)({"pred": output})["measure_numbers"]()
    assert (found["WT"][MIRRORS], found["ET"][MIRRORS]) == pytest.approx((0.9, 0.8))
    assert found["WT"]["feature_distance"] == pytest.approx(2)
    assert found["WT"]["volume_ml"] == pytest.approx(216 * 0.027)


def test_numbers_of_an_evaluation_are_written_with_their_settings(tmp_path):
    records = records_of(tmp_path / "masks")
    (tmp_path / "masks").mkdir()
    for case, numbers in (("a", {"WT": {"volume_ml": 1.0}}), ("b", None)):
        for path in (tmp_path / "masks" / f"{case}.nii.gz", tmp_path / f"{case}.nii"):
            path.write_bytes(b"voxels")
        records.write(case, str(tmp_path / f"{case}.nii"), [tmp_path / "masks" / f"{case}.nii.gz"], numbers=numbers)
    write_mask_numbers(tmp_path, records, quality())
    content = json.loads((tmp_path / "mask_numbers.json").read_text())
    assert content["cases"] == {"a": {"WT": {"volume_ml": 1.0}}}
    assert content["made_with"]["min_component_ml"] == {"ET": 0.5}  # 0 is none
    assert records.is_finished("a", str(tmp_path / "a.nii"))
