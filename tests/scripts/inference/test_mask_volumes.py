"""Volumes of masks, and their check against the labels of the training cases."""

import json

import pytest
import torch
from monai.data import MetaTensor

from scripts.data.decision import RegionDecision
from scripts.data.imperfect_labels import IGNORED
from scripts.data.profile import Profile, profile_content
from scripts.files import write_json
from scripts.inference.mask_volumes import CheckVolumesd, measure_label_volumes

REGIONS, LABELS = {"WT": [1, 2], "ET": [2]}, {"ED": 1, "ET": 2}
SMALLEST, LARGEST = 40, 59  # ml of whole tumours of twenty training cases


@pytest.fixture
def check(tmp_path):
    """The check of a mask with this many voxels of 1 ml of oedema and of enhancing tumour; None if none is made."""

    def check(oedema: int, enhancing: int, cases: int = 20, numbers: dict | None = None) -> dict | None:
        volumes = [float(ml) for ml in range(SMALLEST, LARGEST + 1)]
        known = {"volume WT": volumes, "volume ET": volumes[:15]} if numbers is None else numbers
        path = tmp_path / "profile.json"
        write_json(path, profile_content(Profile(cases, ["FLAIR"], known, {}, {})))
        mask = torch.zeros(1, 10, 10, 20, dtype=torch.uint8)
        mask.view(-1)[:oedema] = 1
        mask.view(-1)[oedema : oedema + enhancing] = 2
        affine = torch.diag(torch.tensor([10.0, 10, 10, 1]))
        data = CheckVolumesd(str(path), REGIONS)({"pred": MetaTensor(mask, affine=affine), "checks": "[]"})
        return next(iter(json.loads(data["checks"])), None)

    return check


def test_usual_volumes_are_no_reason_for_a_note(check):
    found = check(0, 50)
    assert (found["name"], found["status"]) == ("mask volume", "ok")


@pytest.mark.parametrize(("oedema", "words"), [(500, "of WT has 550 ml"), (1900, "of WT has 1950 ml")])
def test_more_than_any_training_case_is_noted(check, oedema, words):
    found = check(oedema, 50)
    assert found["status"] == "note"
    assert words in found["sentence"]
    assert "99 of 100 training cases (n = 20) have at most" in found["sentence"]
    assert found["place"] is None
    assert LARGEST < found["limit"] < 100


def test_region_that_all_training_cases_have_must_not_be_empty(check):
    found = check(0, 0)
    assert found["status"] == "note"
    assert "The mask of WT has 0 ml" in found["sentence"]
    assert "at least" in found["sentence"]


def test_region_that_some_training_cases_lack_may_be_empty(check):
    assert check(50, 0)["status"] == "ok"


def test_training_cases_without_the_region_are_not_counted(check):
    assert "99 of 100 training cases that have it (n = 15) have at least" in check(49, 1)["sentence"]


@pytest.mark.parametrize("given", [{"cases": 7}, {"numbers": {"voxel": [1.0] * 20}}])
def test_few_training_cases_or_an_older_profile_check_nothing(check, given):
    assert check(1900, 50, **given) is None


def test_unchecked_scan_has_no_check_of_its_mask():
    assert "checks" not in CheckVolumesd(None, REGIONS)({"pred": torch.zeros(1, 2, 2, 2)})


def test_ignored_voxels_count_in_no_volume():
    label = torch.zeros(2, 2, 2, 2, dtype=torch.uint8)
    label[0, 0], label[0, 1, 0] = 1, IGNORED
    assert measure_label_volumes(label, RegionDecision("regions", REGIONS, LABELS), 0.5) == {"volume WT": 2.0}


def test_several_raters_count_by_their_mean():
    label = torch.zeros(4, 2, 2, 2, dtype=torch.uint8)  # WT and ET of two raters
    label[0, 0], label[2] = 1, 1
    assert measure_label_volumes(label, RegionDecision("regions", REGIONS, LABELS), 1.0) == {"volume WT": 6.0}


def test_labels_of_classes_are_united_to_regions():
    label = torch.zeros(3, 2, 2, 2, dtype=torch.uint8)  # background, ED, ET
    label[0, 0], label[1, 1, 0], label[2, 1, 1] = 1, 1, 1
    found = measure_label_volumes(label, RegionDecision("classes", REGIONS, LABELS), 1.0)
    assert found == {"volume WT": 4.0, "volume ET": 2.0}
