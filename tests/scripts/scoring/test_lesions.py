"""Lesion-wise metrics follow the published rules."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from scripts.data.images import connected_components
from scripts.scoring.lesions import FOUND_IOU, BratsRule, match_lesions, measure_lesions, true_lesions

SHAPE = (60, 30, 30)
ISOTROPIC = (1.0, 1.0, 1.0)


def blocks(*boxes) -> np.ndarray:
    """A mask of cubes, each (x, side)."""
    mask = np.zeros(SHAPE, dtype=bool)
    for x, side in boxes:
        mask[x : x + side, 10 : 10 + side, 10 : 10 + side] = True
    return mask


def test_voxels_that_touch_at_a_corner_are_one_lesion():
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert len(connected_components(mask)[1]) == 1


def test_roughly_outlined_lesion_is_found_but_adds_no_panoptic_quality():
    truth, prediction = blocks((5, 8)), blocks((5, 5))  # an IoU of 125 / 512
    found = measure_lesions(truth, prediction, ISOTROPIC)
    assert (found["lesions_tp"], found["lesions_fp"], found["lesions_fn"]) == (1, 0, 0)
    assert found["panoptic_quality"] == 0


def test_barely_touched_lesion_is_missed():
    found = measure_lesions(blocks((5, 8)), blocks((5, 3)), ISOTROPIC)  # an IoU of 27 / 512
    assert (found["lesions_tp"], found["lesions_fp"], found["lesions_fn"]) == (0, 1, 1)


def test_panoptic_quality_is_f1_times_mean_iou_of_matched_lesions():
    truth, prediction = blocks((2, 6), (20, 6), (40, 6)), blocks((2, 6), (21, 6), (52, 6))
    found = measure_lesions(truth, prediction, ISOTROPIC)
    assert found["lesion_f1"] == pytest.approx(2 / 3)
    assert found["panoptic_quality"] == pytest.approx((1 + 5 / 7) / 3)


def test_two_lesions_under_one_prediction_are_one_hit_one_miss():
    truth = blocks((5, 6), (14, 6))
    prediction = truth.copy()
    prediction[5:20, 10:16, 10:16] = True
    found = measure_lesions(truth, prediction, ISOTROPIC)
    assert (found["lesions_tp"], found["lesions_fp"], found["lesions_fn"]) == (1, 0, 1)


def test_largest_possible_number_of_pairs_is_matched():
    # the first prediction covers both lesions, the second only the first lesion: taken greedily, one would be missed
    truth = np.zeros((40, 9), dtype=bool)
    truth[0:10, 0:3] = truth[0:10, 4:7] = True
    prediction = np.zeros_like(truth)
    prediction[0:6, 0:7] = True  # shares 18 with each: an IoU of 18 / 54
    prediction[7:10, 0:3] = True  # shares 9 with the first: an IoU of 9 / 30
    found = measure_lesions(truth, prediction, (1.0, 1.0))
    assert (found["lesions_tp"], found["lesions_fp"], found["lesions_fn"]) == (2, 0, 0)


def test_false_positive_of_257_voxels_costs_a_third_under_brats2023():
    truth = blocks((5, 7), (25, 7))
    prediction = truth | blocks((50, 6))
    prediction[56, 10:16, 10:16] = False
    prediction[50:56, 16, 10] = True
    assert measure_lesions(truth, prediction, ISOTROPIC)["lesionwise_dice_brats2023"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("gap", "expected"), [(6, 2 / 3), (7, 1 / 2)])
def test_true_lesions_that_merge_when_dilated_are_one_lesion(gap, expected):
    # three dilations on each side bridge six voxels; only the first of two equal cubes is predicted
    truth, prediction = blocks((5, 6), (11 + gap, 6)), blocks((5, 6))
    assert measure_lesions(truth, prediction, ISOTROPIC)["lesionwise_dice_brats2023"] == pytest.approx(expected)


def test_meningioma_and_metastases_merge_over_a_smaller_gap():
    truth, prediction = blocks((5, 6), (15, 6)), blocks((5, 6))
    assert measure_lesions(truth, prediction, ISOTROPIC)["lesionwise_dice_brats2023"] == pytest.approx(2 / 3)
    of_metastases = measure_lesions(truth, prediction, ISOTROPIC, BratsRule(dilations=1, smallest=2))
    assert of_metastases["lesionwise_dice_brats2023"] == pytest.approx(1 / 2)


def test_prediction_next_to_a_lesion_is_not_a_false_positive():
    truth, prediction = blocks((5, 6)), blocks((5, 6), (12, 2))
    found = measure_lesions(truth, prediction, ISOTROPIC)
    assert found["lesionwise_dice_brats2023"] == pytest.approx(2 * 216 / (216 + 216 + 8))
    assert found["lesions_fp"] == 1  # which the plain count does not forgive


@pytest.mark.parametrize(("spacing", "expected"), [(ISOTROPIC, 1.0), ((1.0, 1.0, 2.0), 0.5)])
def test_true_lesion_up_to_50_mm3_is_ignored_with_predictions(spacing, expected):
    truth = blocks((5, 6), (30, 3))  # 27 voxels: 27 or 54 mm^3
    found = measure_lesions(truth, blocks((5, 6)), spacing)
    assert found["lesionwise_dice_brats2023"] == expected
    touched = measure_lesions(truth, blocks((5, 6), (30, 2)), ISOTROPIC)
    assert touched["lesionwise_dice_brats2023"] == 1
    assert touched["lesionwise_hd95_brats2023"] == 0


def test_a_thousand_false_specks_are_each_counted():
    truth, prediction = blocks((5, 6)), blocks((5, 6))
    prediction[20::3, ::3, ::3] = True
    specks = len(range(20, 60, 3)) * 10 * 10
    found = measure_lesions(truth, prediction, ISOTROPIC)
    assert found["lesions_fp"] == specks
    assert found["lesionwise_hd95_brats2023"] == pytest.approx(374 * specks / (specks + 1))


def test_every_true_lesion_has_size_and_dice_largest_first():
    truth, prediction = blocks((2, 3), (20, 6), (40, 6)), blocks((21, 6), (40, 6), (52, 4))
    dice = 2 * 5 * 36 / (2 * 216)  # of the lesion that is found a voxel further
    assert true_lesions(truth, prediction) == [(216, 1, pytest.approx(dice)), (216, 1, 1.0), (27, 0, 0.0)]


def test_lesion_table_agrees_with_the_counts():
    rng = np.random.default_rng(0)
    truth, prediction = (ndimage.gaussian_filter(rng.normal(size=(40, 40, 20)), 1.5) for _ in range(2))
    truth, prediction = truth > 0.1, (truth + 0.7 * prediction) > 0.1
    counts, table = measure_lesions(truth, prediction, ISOTROPIC), true_lesions(truth, prediction)
    assert 1 < counts["lesions_tp"] < len(table)
    assert sum(found for _, found, _ in table) == counts["lesions_tp"]
    assert sum(size for size, _, _ in table) == truth.sum()
    flipped = true_lesions(truth[::-1, :, ::-1], prediction[::-1, :, ::-1])
    assert sorted(flipped) == pytest.approx(sorted(table))


def test_best_outlined_pair_counts_although_another_matching_has_more_pairs():
    truth, prediction = np.zeros((2, 40, 20), dtype=bool)
    truth[0:10, 0:10] = truth[0:10, 12:14] = True  # 100 and 20 pixels
    prediction[0:7, 0:14] = True  # an IoU of 70 / 128 with the first, and of 14 / 104 with the second
    prediction[8:11, 0:10] = True  # of 20 / 110 with the first
    found = measure_lesions(truth, prediction, (1.0, 1.0))
    assert found["lesions_tp"] == 2
    assert found["panoptic_quality"] == pytest.approx((70 / 128) / 2)


@pytest.mark.parametrize("seed", range(40))
def test_matching_by_groups_equals_one_dense_assignment(seed):
    draw = np.random.default_rng(seed)
    true, predicted, overlaps = draw.integers(1, 25, 3)
    pairs = np.unique(draw.integers(0, (true, predicted), (overlaps * 3, 2)), axis=0)
    iou = draw.random(len(pairs))
    dense = np.zeros((true, predicted))
    dense[tuple(pairs.T)] = np.where(iou > FOUND_IOU, iou + true, 0)
    rows, columns = linear_sum_assignment(dense, maximize=True)
    rows, columns = (own[dense[rows, columns] > 0] for own in (rows, columns))
    found, values = match_lesions(*(pairs + 1).T, iou)
    np.testing.assert_array_equal(found, rows + 1)
    np.testing.assert_allclose(values, dense[rows, columns] - true, atol=1e-12)


def test_memory_does_not_grow_with_the_square_of_lesions():
    numbers = np.arange(1, 8001)
    tracemalloc.start()
    found, values = match_lesions(numbers, numbers, np.full(8000, 0.5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(found), values.sum()) == (8000, 4000)
    assert peak < 20e6  # bytes; one dense table has 512 MB
