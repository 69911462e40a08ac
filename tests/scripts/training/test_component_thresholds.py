"""Tests of `scripts/training/component_thresholds.py`."""

import torch
from ignite.engine import Engine

from scripts.training.component_thresholds import CANDIDATES_ML, ComponentStatistics
from tests.made.volumes import FOUR, REGION, volume

BIG = (slice(0, 10), slice(8, 12), slice(8, 12))  # 1.6 ml


def statistics(*cases: tuple[torch.Tensor, torch.Tensor], regions=REGION, ml: float = 0.01) -> ComponentStatistics:
    """Collected by an engine whose batches are single cases of (prediction, truth)."""
    found = ComponentStatistics(regions)
    engine = Engine(lambda _, batch: [{"pred": batch[0]["pred"], "label": batch[0]["label"]}])
    found.attach(engine)
    engine.run([[{"pred": pred, "label": truth, "voxel_ml": torch.tensor([ml])}] for pred, truth in cases])
    return found


def test_specks_next_to_a_lesion_are_removed():
    assert statistics((volume(BIG, FOUR), volume(BIG))).select_thresholds() == {"tumour": 0.05}


def test_small_true_lesions_are_kept_despite_specks_of_equal_size():
    # without 0.04 ml the second case would fall from Dice 1 to 0
    cases = [(volume(BIG, FOUR), volume(BIG)), (volume(FOUR), volume(FOUR))]
    assert statistics(*cases).select_thresholds() == {"tumour": 0.0}


def test_specks_below_the_smallest_true_lesion_are_removed():
    cases = [(volume(BIG, (0, 0, 0)), volume(BIG)), (volume(FOUR), volume(FOUR))]
    assert statistics(*cases).select_thresholds() == {"tumour": 0.02}


def test_hallucination_in_a_case_without_the_region_is_removed():
    assert statistics((volume(FOUR), volume())).select_thresholds() == {"tumour": 0.05}


def test_hallucination_without_the_region_weighs_like_a_whole_case():
    # the lesion's part of 4 voxels is worth 0.02 of Dice, the hallucination of 4 voxels 1
    assert statistics((volume(BIG, FOUR), volume(BIG, FOUR)), (volume(FOUR), volume())).select_thresholds() == {
        "tumour": 0.05
    }


def test_correct_masks_lose_no_component():
    assert statistics((volume(BIG), volume(BIG)), (volume(), volume())).select_thresholds() == {"tumour": 0.0}


def line(*parts: tuple[int, int]) -> torch.Tensor:
    """A line [1, 1, 1, 3000] of ones from start to stop of each part."""
    made = torch.zeros(1, 1, 1, 3000)
    for start, stop in parts:
        made[..., start:stop] = 1
    return made


def test_cleaner_mask_may_cost_at_most_a_thousandth_of_dice():
    # a part of the lesion and a speck, 1 voxel each: 2 * 999 / 2000 = 0.9990 with them, 2 * 998 / 1998 = 0.9990 without
    cheap = (line((0, 998), (999, 1000), (2000, 2001)), line((0, 1000)))
    assert statistics(cheap).select_thresholds() == {"tumour": 0.02}
    # a small lesion with a part of 4 voxels: 2 * 99 / 199 = 0.995 with it, 2 * 95 / 195 = 0.974 without;
    # a speck of 4 voxels beside a large lesion: 2 * 1000 / 2004 = 0.998 with it, 1 without: the mean would fall
    dear = (line((0, 95), (96, 100)), line((0, 100)))
    speck = (line((0, 1000), (2000, 2004)), line((0, 1000)))
    assert statistics(dear, speck).select_thresholds() == {"tumour": 0.0}


def test_each_region_gets_its_own_threshold():
    pred, truth = torch.cat([volume(BIG, FOUR), volume(BIG)]), torch.cat([volume(BIG), volume(BIG)])
    assert statistics((pred, truth), regions=["WT", "ET"]).select_thresholds() == {"WT": 0.05, "ET": 0.0}


def test_threshold_is_in_ml_of_each_cases_voxels():
    assert statistics((volume(BIG, FOUR), volume(BIG)), ml=0.1).select_thresholds() == {"tumour": 0.5}


def test_a_later_pass_is_not_mixed_with_an_earlier_one():
    found = ComponentStatistics(REGION)
    engine = Engine(lambda _, batch: [{"pred": batch[0]["pred"], "label": batch[0]["label"]}])
    found.attach(engine)
    for pred in (volume(BIG, FOUR), volume(BIG)):
        engine.run([[{"pred": pred, "label": volume(BIG), "voxel_ml": torch.tensor([0.01])}]])
    assert len(found.cases) == 1
    assert found.select_thresholds() == {"tumour": 0.0}


def test_several_processes_choose_from_the_cases_of_all(in_two_processes):
    def select_thresholds(rank: int) -> tuple[int, dict[str, float]]:
        found = statistics((volume(BIG, FOUR), volume(BIG)) if rank == 0 else (volume(BIG), volume(BIG)))
        return len(found.cases), found.select_thresholds()

    assert in_two_processes(select_thresholds) == [(2, {"tumour": 0.05})] * 2


def test_cutting_off_nothing_is_a_candidate():
    assert min(CANDIDATES_ML) == 0
