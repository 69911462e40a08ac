"""Masks of several raters and voxels to ignore, on the way from label maps to patches."""

import numpy as np
import pytest
import torch

from scripts.data.consensus import staple_mask
from scripts.data.imperfect_labels import IGNORED, RemoveIgnoredd, draw_rater, split_raters
from scripts.data.regions import LabelsToRegionsd, RegionIndicesd, RoundLabelsd
from scripts.errors import InputError

REGIONS = {"WT": [1, 2], "TC": [1]}
# three raters [3, 1, 6]; the third ignores two voxels, and all of them the last
LABELS = torch.tensor([[[0.0, 1, 1, 2, 0, 255]], [[0, 1, 2, 2, 1, 255]], [[0, 1, 2, 255, 255, 255]]])


def masks(raters: str, labels: torch.Tensor = LABELS) -> torch.Tensor:
    return LabelsToRegionsd("label", REGIONS, ignore=255, raters=raters)({"label": labels})["label"].squeeze(1)


def test_every_rater_keeps_the_own_masks_for_the_draw():
    by_rater = split_raters(masks("draw"), 2)
    assert len(by_rater) == 3
    assert by_rater[0].tolist() == [[0, 1, 1, 1, 0, 2], [0, 1, 1, 0, 0, 2]]
    assert by_rater[2].tolist() == [[0, 1, 1, 2, 2, 2], [0, 1, 0, 2, 2, 2]]


def test_majority_is_the_share_of_those_who_do_not_ignore():
    whole, core = masks("majority")
    assert whole.tolist() == [0, 1, 1, 1, 0.5, IGNORED]
    assert core.tolist() == pytest.approx([0, 1, 1 / 3, 0, 0.5, IGNORED])


def test_staple_is_of_each_region_and_ignores_for_any_rater():
    random = np.random.default_rng(0)
    labels = torch.from_numpy(random.integers(0, 3, (3, 1, 40, 40)).astype(np.float32))
    labels[1, 0, :, 30:] = 255
    whole, core = LabelsToRegionsd("label", REGIONS, ignore=255, raters="staple")({"label": labels})["label"].squeeze(1)
    drawn = (labels[:, 0] == 1).numpy() & (labels[:, 0] < 255).numpy()
    assert np.array_equal(core[:, :30].numpy(), staple_mask(drawn)[:, :30])
    assert (whole[:, 30:] == IGNORED).all()
    assert core.dtype == torch.uint8


@pytest.mark.parametrize("raters", ["draw", "majority", "staple"])
def test_one_rater_is_the_same_by_every_method(raters):
    assert masks(raters, LABELS[:1]).tolist() == split_raters(masks("draw"), 2)[0].tolist()


def test_the_value_to_ignore_is_refused_unless_declared():
    with pytest.raises(InputError, match="label holds the label 255: the scheme has"):
        RoundLabelsd("label", {"a": 1, "b": 2})({"label": LABELS})
    assert torch.equal(RoundLabelsd("label", {"a": 1, "b": 2}, ignore=255)({"label": LABELS})["label"], LABELS)


def test_patches_are_centred_where_any_rater_drew():
    data = {"image": torch.ones(1, 1, 6), "label": masks("draw").unsqueeze(1)}
    found = RegionIndicesd("label", REGIONS)(data)
    assert found["label_fg_indices"].tolist() == [1, 2, 3, 4]
    assert found["label_bg_indices"].tolist() == [0]


def test_the_seed_of_a_patch_draws_its_rater():
    three = masks("draw")
    drawn = [draw_rater(three, 2, seed) for seed in range(300)]
    assert all(torch.equal(draw_rater(three, 2, seed), drawn[seed]) for seed in range(10))
    counts = [sum(torch.equal(own, rater) for own in drawn) for rater in split_raters(three, 2)]
    assert sum(counts) == 300
    assert min(counts) > 75


def test_a_single_label_is_not_drawn_at_all():
    label = masks("draw", LABELS[:1])
    assert draw_rater(label, 2, 0) is label


def test_ignored_voxels_are_cleared_from_prediction_and_label():
    label, pred = masks("draw"), torch.full((2, 6), 0.9)
    cleared = RemoveIgnoredd(["pred", "label"])({"pred": pred, "label": label})
    assert (cleared["pred"] > 0).tolist() == [[True, True, True, False, False, False]] * 2
    assert cleared["label"].max() == 1
    assert not cleared["label"][:, 3:].any()
