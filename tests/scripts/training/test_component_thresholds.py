"""Tests of `scripts/training/component_thresholds.py`."""

import torch
from ignite.engine import Engine

from scripts.training.component_thresholds import CANDIDATES_ML, FEWEST_PATIENTS, ComponentStatistics
from tests.made.volumes import FOUR, REGION, volume

OTHER = (slice(6, 9), 0, 0)  # 0.03 ml
BIG = (slice(0, 10), slice(8, 12), slice(8, 12))  # 1.6 ml


def statistics(
    *cases: tuple[torch.Tensor, torch.Tensor], regions=REGION, ml: float = 0.01, times: int = FEWEST_PATIENTS, **options
) -> ComponentStatistics:
    """Collected by an engine whose batches are single cases of (prediction, truth), each so many times."""
    found = ComponentStatistics(regions, **options)
    engine = Engine(lambda _, batch: [{"pred": batch[0]["pred"], "label": batch[0]["label"]}])
    found.attach(engine)
    batches = [{"pred": pred, "label": truth, "voxel_ml": torch.tensor([ml])} for pred, truth in cases] * times
    engine.run([[{**batch, "case": f"c{number}"}] for number, batch in enumerate(batches)])
    return found


def test_specks_next_to_a_lesion_are_removed():
    assert statistics((volume(BIG, FOUR), volume(BIG))).select_thresholds() == {"tumour": 0.05}


def test_small_true_lesions_are_kept_despite_specks_of_equal_size():
    # without its lesion of 0.03 ml the second case would fall from Dice 1 to 0.73
    cases = [(volume(BIG, FOUR), volume(BIG)), (volume(FOUR, OTHER), volume(FOUR, OTHER))]
    assert statistics(*cases).select_thresholds() == {"tumour": 0.0}


def test_specks_below_the_smallest_true_lesion_are_removed():
    cases = [(volume(BIG, (0, 0, 0)), volume(BIG)), (volume(FOUR, OTHER), volume(FOUR, OTHER))]
    assert statistics(*cases).select_thresholds() == {"tumour": 0.02}


def test_largest_component_stays_though_it_is_a_false_one():
    assert statistics((volume(FOUR), volume())).select_thresholds() == {"tumour": 0.0}
    assert statistics((volume(FOUR, (6, 6, 6)), volume())).select_thresholds() == {"tumour": 0.02}


def test_with_fewer_than_ten_patients_nothing_is_removed(caplog):
    with caplog.at_level("INFO"):
        few = statistics((volume(BIG, FOUR), volume(BIG)), times=FEWEST_PATIENTS - 1)
        assert few.select_thresholds() == few.select_thresholds() == {"tumour": 0.0}
    (message,) = [message for message in caplog.messages if "component" in message]
    assert message.startswith("no component is removed, whatever its size: 9 validation patients are too few")


def test_patients_count_and_not_their_cases():
    patients = {f"c{number}": f"p{number // 2}" for number in range(FEWEST_PATIENTS)}
    case = (volume(BIG, FOUR), volume(BIG))
    assert statistics(case, patients=patients).select_thresholds() == {"tumour": 0.0}
    assert statistics(case, patients={case: case for case in patients}).select_thresholds() == {"tumour": 0.05}


def test_no_volume_above_the_limit_is_selected():
    assert statistics((volume(BIG, FOUR), volume(BIG)), limits={"tumour": 0.04}).select_thresholds() == {"tumour": 0.0}


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
        engine.run([[{"pred": pred, "label": volume(BIG), "voxel_ml": torch.tensor([0.01])}]] * FEWEST_PATIENTS)
    assert len(found.cases) == FEWEST_PATIENTS
    assert found.select_thresholds() == {"tumour": 0.0}


def test_several_processes_choose_from_the_cases_of_all(in_two_processes):
    def select_thresholds(rank: int) -> tuple[int, dict[str, float]]:
        found = statistics((volume(BIG, FOUR), volume(BIG)) if rank == 0 else (volume(BIG), volume(BIG)))
        return len(found.cases), found.select_thresholds()

    assert in_two_processes(select_thresholds) == [(2 * FEWEST_PATIENTS, {"tumour": 0.05})] * 2


def test_cutting_off_nothing_is_a_candidate():
    assert min(CANDIDATES_ML) == 0


def test_each_rater_of_a_case_counts():
    both = torch.cat([volume(BIG), volume(BIG, FOUR)])  # the second drew the speck, too
    found = [case[0] for case in statistics((volume(BIG, FOUR), both), times=1).cases]
    assert [int((own["hit"] == 0).sum()) for own in found] == [1, 0]
