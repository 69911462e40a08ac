"""Label maps to regions and back."""

import numpy as np
import pytest
import torch
import yaml
from monai.data import MetaTensor

from scripts.data.regions import LabelsToRegionsd, RegionIndicesd, RegionsToLabelsd, RoundLabelsd
from scripts.errors import InputError

SCHEME = {"NCR": 1, "ED": 2, "ET": 4}
REGIONS = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
LABELS_OUT = {"WT": 2, "TC": 1, "ET": 4}
LINE = torch.tensor([[[[0.0, 1.0, 2.0, 4.0]]]])  # [1, 1, 1, 4]: each value once


def test_regions_overlap_as_declared_in_channel_order():
    masks = LabelsToRegionsd("label", REGIONS)({"label": LINE})["label"]
    assert masks.dtype == torch.uint8
    assert masks[:, 0, 0].tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]


def test_regions_keep_the_place_of_the_scan():
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0]))
    masks = LabelsToRegionsd("label", REGIONS)({"label": MetaTensor(LINE, affine=affine)})["label"]
    assert torch.equal(masks.affine.float(), affine)


def test_label_from_a_float_file_is_a_whole_number_again():
    label = RoundLabelsd("label", SCHEME)({"label": LINE + 4e-4})["label"]
    assert torch.equal(label, LINE)


def test_a_resampled_mask_is_refused_with_file_and_value():
    broken = MetaTensor(LINE.clone(), meta={"filename_or_obj": "/data/a_seg.nii.gz"})
    broken[0, 0, 0, 2] = 1.5
    with pytest.raises(InputError, match=r"/data/a_seg\.nii\.gz holds the label 1\.5: labels must be whole numbers"):
        RoundLabelsd("label", SCHEME)({"label": broken})


def test_value_of_another_scheme_is_refused_instead_of_background():
    with pytest.raises(InputError, match="label holds the label 3: the scheme has"):
        RoundLabelsd("label", SCHEME)({"label": torch.tensor([[0.0, 3.0]])})


def test_background_need_not_be_named_in_the_scheme():
    assert float(RoundLabelsd("label", {"lesion": 1})({"label": torch.zeros(1, 2, 2)})["label"].sum()) == 0


def test_later_regions_lie_on_top():
    certain = torch.tensor([[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]).reshape(3, 1, 1, 4)
    painted = RegionsToLabelsd("pred", REGIONS, LABELS_OUT)({"pred": certain.float()})["pred"]
    assert painted.dtype == torch.uint8
    assert torch.equal(painted.float(), LINE)


def test_part_outside_its_whole_is_still_painted():
    only_core = torch.tensor([0.1, 0.9, 0.1]).reshape(3, 1, 1, 1)
    assert int(RegionsToLabelsd("pred", REGIONS, LABELS_OUT)({"pred": only_core})["pred"]) == 1


def test_voxel_counts_above_the_threshold_and_not_at_it():
    row = torch.tensor([[0.5, 0.51]])
    assert RegionsToLabelsd("pred", {"a": [1]}, {"a": 1})({"pred": row})["pred"].tolist() == [[0, 1]]


def test_unknown_region_in_labels_out_is_refused():
    with pytest.raises(InputError, match="labels_out has TT, which is not a region: expected WT, TC, ET"):
        RegionsToLabelsd("pred", REGIONS, {"TT": 1})


def test_every_task_paints_back_the_regions_that_it_reads(at_root):
    for path in sorted((at_root / "configs" / "tasks").glob("*.yaml")):
        task = yaml.safe_load(path.read_text(encoding="utf-8"))
        fill = task.get("labels_fill", 0)
        values = [fill, *task["labels"].values()]
        label = torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)
        to_regions = LabelsToRegionsd("label", task["regions"])
        masks = to_regions({"label": label})["label"]
        painted = RegionsToLabelsd("pred", task["regions"], task["labels_out"], fill)({"pred": masks.float()})["pred"]
        again = to_regions({"label": painted.float()})["label"]
        assert np.array_equal(again, masks), path.name


def test_voxels_outside_all_regions_get_the_tasks_background_value():
    row = torch.tensor([[0.1, 0.9]])
    painted = RegionsToLabelsd("pred", {"cell": [0]}, {"cell": 0}, fill=255)({"pred": row})["pred"]
    assert painted.tolist() == [[255, 0]]


NESTED = torch.tensor([[0, 1, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 0]]).reshape(3, 1, 5)
EXCLUSIVE = torch.tensor([[0, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]).reshape(3, 1, 5)
BRAIN = torch.tensor([[0, 5, 0, 0, -3], [0, 0, 2, 2, 0]]).reshape(2, 1, 5)  # air at 0: all channels are 0


def indices_of(masks: torch.Tensor, image: torch.Tensor = BRAIN, centre_regions=None) -> dict[str, list]:
    found = RegionIndicesd("label", REGIONS, centre_regions=centre_regions)({"label": masks, "image": image})
    return {
        name: [*map(torch.Tensor.tolist, found[f"label{name}"])] for name in ("_fg_indices", "_bg_indices", "_indices")
    }


@pytest.mark.parametrize("masks", [NESTED, EXCLUSIVE])
def test_patches_are_centred_on_the_first_region_too(masks):
    assert indices_of(masks)["_fg_indices"] == [1, 2, 3]


@pytest.mark.parametrize("masks", [NESTED, EXCLUSIVE])
def test_background_is_brain_in_no_region_even_below_zero(masks):
    assert indices_of(masks)["_bg_indices"] == [4]


def test_crop_by_classes_finds_background_and_each_region():
    assert indices_of(NESTED)["_indices"] == [[4], [1, 2, 3], [2, 3], [3]]


def test_centre_regions_leave_the_others_to_the_background():
    found = indices_of(NESTED, centre_regions=["TC", "ET"])
    assert found == {"_fg_indices": [2, 3], "_bg_indices": [1, 4], "_indices": [[1, 4], [2, 3], [3]]}


def test_a_blank_image_without_labels_still_has_centres():
    assert indices_of(torch.zeros(3, 1, 5), torch.zeros(2, 1, 5))["_bg_indices"] == [0, 1, 2, 3, 4]


def test_case_without_centre_regions_is_centred_on_any_region():
    only_whole_tumour = NESTED.clone()
    only_whole_tumour[1:] = 0
    found = indices_of(only_whole_tumour, centre_regions=["TC", "ET"])
    assert found["_fg_indices"] == indices_of(only_whole_tumour)["_fg_indices"] != []


@pytest.mark.parametrize("wrong", [["TT"], []])
def test_unknown_centre_regions_are_refused(wrong):
    with pytest.raises(InputError, match=r"centre_regions is .*: expected names among WT, TC, ET, or null"):
        RegionIndicesd("label", REGIONS, centre_regions=wrong)


def test_regions_are_found_in_masks_of_single_labels():
    classes = {"background": [0], "NCR": [1], "ED": [2], "ET": [4]}
    masks = torch.tensor([[1, 0, 0, 0, 1], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0]]).reshape(4, 1, 5)
    found = RegionIndicesd("label", REGIONS, classes)({"label": masks, "image": BRAIN})["label_indices"]
    assert [part.tolist() for part in found] == indices_of(NESTED)["_indices"]
