"""Small components are dropped from a region, and the largest one stays."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.data.decision import RegionDecision
from scripts.inference.small_components import RemoveSmallComponentsd, find_components, label_around
from tests.made.volumes import AFFINE, FOUR, volume

LABELS = {"NCR": 1, "ED": 2, "ET": 4}
REGIONS = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
PAINTED = {"WT": 2, "TC": 1, "ET": 4}
NESTED = RegionDecision("regions", REGIONS, LABELS)
CLASSES = RegionDecision("classes", REGIONS, LABELS)
SIX = (slice(0, 6), 5, 5)  # 0.06 ml
ONE = (11, 11, 11)  # 0.01 ml


def labelled(*boxes: tuple[int, tuple]) -> MetaTensor:
    """A label map [1, 12, 12, 12] with a value in each box."""
    return MetaTensor(sum(value * volume(box) for value, box in boxes).to(torch.uint8), affine=AFFINE)


def clean(labels: MetaTensor, probabilities=None, decision=NESTED, means=None, **minima: float) -> np.ndarray:
    data = {"pred": labels, **({} if probabilities is None else {"component_probabilities": probabilities})}
    return RemoveSmallComponentsd("pred", decision, PAINTED, minima, means)(data)["pred"][0].numpy()


def test_minimum_is_in_ml_of_the_scans_voxels():
    # in voxels of 1 mm3 both would be below
    found = clean(labelled((2, FOUR), (2, SIX)), WT=0.05)
    assert set(found[SIX]) == {2}
    assert not found[FOUR].any()


def test_largest_component_of_a_region_stays_whatever_its_size():
    found = clean(labelled((4, FOUR), (4, SIX)), WT=100.0, TC=100.0, ET=100.0)
    assert set(found[SIX]) == {4}
    assert not found[FOUR].any()


def test_dropped_enhancing_tumour_becomes_core_and_no_hole():
    core = (slice(0, 12), slice(0, 6), slice(0, 6))
    found = clean(labelled((1, core), (3, SIX), (3, FOUR)), ET=0.05)  # 1 + 3
    assert set(found[SIX]) == {4}
    assert set(found[FOUR]) == {1}
    assert (found[core] > 0).all()


def test_dropped_core_becomes_oedema_with_the_enhancing_part_in_it():
    found = clean(labelled((1, SIX), (4, FOUR), (4, (slice(0, 5), 9, 9))), TC=0.05)
    assert set(found[FOUR]) == {2}


def test_component_that_holds_the_largest_of_an_inner_region_stays():
    oedema = (slice(0, 12), slice(8, 12), slice(8, 12))
    found = clean(labelled((2, oedema), (4, FOUR)), WT=0.05)  # the only enhancing tumour is in a small WT
    assert set(found[FOUR]) == {4}


def test_each_region_has_its_minimum_and_others_keep_all():
    found = clean(labelled((4, SIX), (4, FOUR), (4, ONE)), ET=0.02)
    assert set(found[FOUR]) == {4}
    assert found[ONE] == 1


def test_map_without_any_region_stays_empty():
    assert not clean(labelled((0, SIX)), WT=1.0).any()


def test_doubtful_components_are_dropped_by_their_mean_probability():
    probabilities = torch.cat([volume(SIX, FOUR)] * 3)
    probabilities[2] *= 0.9
    probabilities[2][FOUR] = 0.6
    found = clean(labelled((4, SIX), (4, FOUR)), probabilities, means={"ET": 0.7})
    assert set(found[SIX]) == {4}
    assert set(found[FOUR]) == {1}


def test_component_above_one_of_two_minima_stays():
    probabilities = torch.cat([volume(SIX, FOUR)] * 3) * 0.8
    found = clean(labelled((4, SIX), (4, FOUR)), probabilities, means={"ET": 0.7}, ET=0.05)
    assert set(found[FOUR]) == {4}


def test_probability_of_a_region_is_the_sum_of_its_classes():
    probabilities = torch.stack([torch.full((2, 2), p) for p in (0.1, 0.2, 0.3, 0.4)])  # background, NCR, ED, ET
    found = CLASSES.region_probabilities(probabilities)[:, 0, 0].tolist()
    assert found == pytest.approx([0.9, 0.6, 0.4])


def test_classes_are_cleaned_as_regions_are():
    found = clean(labelled((4, SIX), (4, FOUR)), decision=CLASSES, ET=0.05)
    assert set(found[FOUR]) == {1}


def test_component_is_not_dropped_without_minima():
    labels = labelled((4, SIX), (4, FOUR)).numpy()[0]
    assert not find_components(labels, "ET", REGIONS, 0.01).find_dropped().any()


def test_label_around_is_that_of_the_smallest_region_around():
    assert label_around("ET", REGIONS, PAINTED) == 1
    assert label_around("TC", REGIONS, PAINTED) == 2
    assert label_around("WT", REGIONS, PAINTED, fill=9) == 9
    assert label_around("ET", REGIONS, {}) == 1
