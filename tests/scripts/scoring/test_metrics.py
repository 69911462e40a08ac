"""Metrics on known shapes, and against MONAI's public functions."""

import itertools
import math

import numpy as np
import pytest
import torch
from monai.metrics import (
    calibration_binning,
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)
from scipy import ndimage

from scripts.data.images import bounding_box
from scripts.scoring.metrics import METRICS, calibration_metrics, empty_note, measure_region, reliability_bins

ISOTROPIC = (1.0, 1.0, 1.0)


def ball(shape, centre, radius) -> np.ndarray:
    return sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), centre, strict=True)) <= radius**2


def voxels(shape, *places) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for place in places:
        mask[place] = True
    return mask


def blobs(shape, seed, threshold) -> np.ndarray:
    """A few smooth lesions anywhere in the image, its ends included."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return noise > threshold * noise.std()


def of_monai(truth, prediction, spacing) -> dict:
    y, p = torch.from_numpy(truth)[None, None], torch.from_numpy(prediction)[None, None]
    rules = {"include_background": True, "spacing": list(spacing)}
    return {
        "dice": compute_dice(p, y, include_background=True, ignore_empty=False).item(),
        "iou": compute_iou(p, y, include_background=True, ignore_empty=False).item(),
        "hd95": compute_hausdorff_distance(p, y, percentile=95, **rules).item(),
        "hd100": compute_hausdorff_distance(p, y, **rules).item(),
        "assd": compute_average_surface_distance(p, y, symmetric=True, **rules).item(),
        **{f"nsd_{t}mm": compute_surface_dice(p, y, [float(t)], **rules).item() for t in (1, 2, 3)},
    }


@pytest.mark.parametrize("spacing", [ISOTROPIC, (1.0, 1.0, 5.0), (0.7, 1.3, 2.1)])
@pytest.mark.parametrize("seed", range(4))
def test_overlap_and_distances_are_those_of_monai_on_random_lesions(spacing, seed):
    truth, prediction = (
        blobs((31, 28, 19), seed, 1.2),
        blobs((31, 28, 19), seed + 100, 1.4) | blobs((31, 28, 19), seed, 1.6),
    )
    found = measure_region(truth, prediction, spacing)
    for name, expected in of_monai(truth, prediction, spacing).items():
        assert found[name] == pytest.approx(expected, abs=1e-4), name  # MONAI takes percentiles in float32


def test_picture_is_measured_by_the_code_for_volumes():
    truth, prediction = blobs((60, 50), 1, 1.0), blobs((60, 50), 1, 0.6)
    found = measure_region(truth, prediction, (0.5, 2.0))
    for name, expected in of_monai(truth, prediction, (0.5, 2.0)).items():
        assert found[name] == pytest.approx(expected, abs=1e-4), name  # MONAI takes percentiles in float32
    assert found["volume_truth"] == truth.sum()  # pixels of 0.5 by 2 mm are 1 mm^2 each


def test_shifted_ball_has_geometric_dice_and_the_shift_as_distance():
    shape, radius, shift = (70, 60, 60), 20, 6
    found = measure_region(ball(shape, (27, 30, 30), radius), ball(shape, (27 + shift, 30, 30), radius), ISOTROPIC)
    # the lens that two balls share: 1 - 3/4 (d/r) + 1/16 (d/r)^3
    assert found["dice"] == pytest.approx(1 - 0.75 * shift / radius + (shift / radius) ** 3 / 16, abs=0.005)
    assert found["hd100"] == shift
    assert found["volume_error"] == 0
    assert found["volume_fp"] == found["volume_fn"] > 0


def test_thick_slices_count_in_mm_and_not_in_voxels():
    truth, prediction = voxels((9, 9, 9), (4, 4, 2)), voxels((9, 9, 9), (4, 4, 4))
    found = measure_region(truth, prediction, (1.0, 1.0, 5.0))
    assert found["hd95"] == found["hd100"] == found["assd"] == 10
    assert found["nsd_3mm"] == 0
    assert found["volume_truth"] == 5


def test_two_single_voxels_are_as_far_apart_as_pythagoras_says():
    found = measure_region(voxels((9, 9, 9), (1, 1, 4)), voxels((9, 9, 9), (4, 5, 4)), ISOTROPIC)
    assert found["dice"] == found["precision"] == found["recall"] == 0
    assert found["hd95"] == found["assd"] == 5


def test_tolerance_includes_its_exact_distance_despite_inexact_spacing():
    truth, prediction = voxels((20, 3, 3), (2, 1, 1)), voxels((20, 3, 3), (7, 1, 1))
    assert measure_region(truth, prediction, (0.2, 1.0, 1.0))["nsd_1mm"] == 1  # 7 * 0.2 - 2 * 0.2 is a little over 1


def test_image_end_is_a_border_wherever_the_image_was_cropped():
    truth, prediction = voxels((12, 12, 12), np.s_[:5, 2:9, 2:9]), voxels((12, 12, 12), np.s_[:7, 3:10, 2:9])
    wider = [np.pad(mask, 6) for mask in (truth, prediction)]
    assert measure_region(truth, prediction, ISOTROPIC) == pytest.approx(measure_region(*wider, ISOTROPIC))


def test_lesion_split_in_two_is_found_once_with_one_false():
    truth = voxels((20, 20, 20), np.s_[5:10, 5:10, 4:15])
    prediction = truth & ~voxels((20, 20, 20), np.s_[:, :, 9])
    found = measure_region(truth, prediction, ISOTROPIC)
    assert (found["lesions_tp"], found["lesions_fp"], found["lesions_fn"]) == (1, 1, 0)
    assert found["lesion_f1"] == pytest.approx(2 / 3)
    assert found["panoptic_quality"] == 0  # each half has an IoU of 5/11
    assert found["lesionwise_dice_brats2023"] == pytest.approx(20 / 21)  # BraTS takes both halves together


def test_distant_false_voxel_changes_hd100_and_lesions_but_not_hd95():
    truth = ball((80, 30, 30), (15, 15, 15), 8)
    found = measure_region(truth, truth | voxels((80, 30, 30), (75, 15, 15)), ISOTROPIC)
    assert found["hd95"] == 0
    assert found["hd100"] == 75 - (15 + 8)
    assert (found["lesions_tp"], found["lesions_fp"]) == (1, 1)
    assert found["lesionwise_dice_brats2023"] == 0.5
    assert found["lesionwise_hd95_brats2023"] == 374 / 2


@pytest.mark.parametrize(("length", "expected"), [(9, 0), (10, 52)])
def test_hd95_jumps_at_5_percent_false_surface(length, expected):
    truth = voxels((70, 15, 15), np.s_[4:15, 2:13, 2:11])
    assert np.count_nonzero(truth & ~ndimage.binary_erosion(truth)) == 522
    plate = voxels((70, 15, 15), np.s_[66, 2 : 2 + length, 4:7])  # 27 of 549 border voxels, or 30 of 552
    # pooled over both borders, as other tools have it, neither would show: 30 of 1074
    assert measure_region(truth, truth | plate, ISOTROPIC)["hd95"] == expected


def test_precision_and_recall_distinguish_large_from_small_predictions():
    small, large = voxels((10, 10, 10), np.s_[2:4, 2:4, 2:4]), voxels((10, 10, 10), np.s_[2:6, 2:6, 2:6])
    too_large, too_small = measure_region(small, large, ISOTROPIC), measure_region(large, small, ISOTROPIC)
    assert (too_large["precision"], too_large["recall"]) == (1 / 8, 1)
    assert (too_small["precision"], too_small["recall"]) == (1, 1 / 8)
    assert (too_large["volume_error"], too_large["volume_error_relative"]) == (56, 7)
    assert (too_small["volume_error"], too_small["volume_error_relative"]) == (-56, -7 / 8)
    assert too_small["volume_error_absolute"] == too_small["volume_fn"] == 56


EMPTY = np.zeros((8, 8, 8), dtype=bool)
FULL = voxels((8, 8, 8), np.s_[1:6, 1:6, 1:6])
OVERLAPS = ("dice", "iou", "precision", "recall", "nsd_1mm", "nsd_2mm", "nsd_3mm", "lesion_f1", "panoptic_quality")
DISTANCES = ("hd95", "hd100", "assd")


def test_true_negative_scores_as_correct_and_fills_its_row():
    found = measure_region(EMPTY, EMPTY, ISOTROPIC)
    assert empty_note(EMPTY, EMPTY) == "absent"
    assert {found[name] for name in (*OVERLAPS, "lesionwise_dice_brats2023")} == {1}
    assert {found[name] for name in set(METRICS) - {*OVERLAPS, "lesionwise_dice_brats2023"}} == {0}


@pytest.mark.parametrize(("truth", "prediction", "expected"), [(FULL, EMPTY, "missed"), (EMPTY, FULL, "hallucinated")])
def test_a_missed_or_hallucinated_region_scores_zero_and_infinitely_far(truth, prediction, expected):
    found = measure_region(truth, prediction, ISOTROPIC)
    assert empty_note(truth, prediction) == expected
    assert {found[name] for name in (*OVERLAPS, "lesionwise_dice_brats2023")} == {0}
    assert {found[name] for name in DISTANCES} == {math.inf}
    assert found["lesionwise_hd95_brats2023"] == 374
    assert found["lesions_fn"] + found["lesions_fp"] == 1
    assert found["volume_error_relative"] == (-1 if expected == "missed" else math.inf)
    assert not any(math.isnan(value) for value in found.values())


@pytest.mark.parametrize("seed", range(3))
def test_axis_order_and_flips_change_no_metric(seed):
    shape, spacing = (22, 26, 18), (0.8, 1.1, 2.5)
    truth, prediction = blobs(shape, seed, 1.3), blobs(shape, seed, 1.0) & ~blobs(shape, seed + 50, 1.0)
    expected = measure_region(truth, prediction, spacing)
    assert expected["lesions_tp"] + expected["lesions_fn"] > 1
    for order in itertools.permutations(range(3)):
        for flipped in ((), (0,), (1, 2), (0, 1, 2)):
            turned = [np.flip(mask.transpose(order), flipped) for mask in (truth, prediction)]
            found = measure_region(*turned, [spacing[axis] for axis in order])
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-9), (order, flipped)


def test_background_around_the_head_changes_no_number():
    truth, prediction = blobs((20, 20, 20), 3, 1.5), blobs((20, 20, 20), 3, 1.1)
    wider = [np.pad(mask, ((9, 0), (3, 7), (0, 12))) for mask in (truth, prediction)]
    assert measure_region(*wider, ISOTROPIC) == pytest.approx(measure_region(truth, prediction, ISOTROPIC))


def test_calibrated_probabilities_have_no_calibration_error():
    truth = np.zeros((1, 10, 10, 10), dtype=bool)
    truth[0, :, :, :7] = True
    found = calibration_metrics(truth, np.full(truth.shape, 0.7), ISOTROPIC)
    assert found["ece"] == pytest.approx(0)
    assert found["brier"] == pytest.approx(0.7 * 0.3)


def test_confident_wrong_model_has_the_largest_calibration_error():
    truth = np.zeros((1, 4, 4, 4), dtype=bool)
    truth[0, 0] = True
    assert calibration_metrics(truth, 1.0 - truth, ISOTROPIC) == {"ece": 1, "brier": 1}


def test_calibration_is_that_of_monai_in_the_same_box():
    truth = np.stack([blobs((24, 24, 24), 5, 2.2), blobs((24, 24, 24), 5, 2.6)])
    rng = np.random.default_rng(5)
    probability = np.clip(0.7 * truth + rng.uniform(0, 0.3, truth.shape), 0, 1)
    found = calibration_metrics(truth, probability, (4.0, 4.0, 4.0))
    inside = (slice(None), *bounding_box(truth.any(axis=0), [3, 3, 3]))  # 10 mm are 2.5 voxels
    p, y = (torch.from_numpy(array[inside].astype(np.float64))[None] for array in (probability, truth))
    mean_p, mean_y, count = calibration_binning(p, y, num_bins=10)
    ece = (torch.nan_to_num(mean_p - mean_y).abs() * count).sum(-1) / p[0, 0].numel()
    assert found["ece"] == pytest.approx(ece.mean().item(), abs=1e-6)
    assert found["brier"] == pytest.approx(((p - y) ** 2).mean().item())


def test_reliability_curve_counts_predicted_and_true_voxels():
    truth = np.array([[[0, 1, 1, 0, 1]], [[0, 0, 1, 0, 0]]], dtype=bool)
    probability = np.array([[[0.0, 0.82, 0.88, 0.81, 1.0]], [[0.5, 0.0, 0.0, 0.0, 0.04]]])
    bins = reliability_bins(truth, probability, (1.0, 1.0))
    assert bins.shape == (2, 10, 3)
    assert bins[0, 8] == pytest.approx([3, 0.82 + 0.88 + 0.81, 2])
    assert bins[0, 9] == pytest.approx([1, 1.0, 1])  # a probability of 1 is in the last tenth
    assert bins[0, 0] == pytest.approx([1, 0.0, 0])
    assert bins[1, 0] == pytest.approx([4, 0.04, 1])
    assert bins[1, 5] == pytest.approx([1, 0.5, 0])
    assert bins[..., 0].sum() == 10


def test_sums_of_many_small_probabilities_do_not_lose_digits():
    truth = np.ones((1, 300, 300), dtype=bool)
    small = np.full(truth.shape, 0.01, np.float32)
    bins = reliability_bins(truth, small, (1.0, 1.0))
    assert bins[0, 0] == pytest.approx([90000, 90000 * float(small[0, 0, 0]), 90000], rel=1e-12)


def test_background_does_not_improve_the_calibration():
    truth = np.zeros((1, 60, 60, 60), dtype=bool)
    truth[0, 28:32, 28:32, 28:32] = True
    probability = np.where(truth, 0.6, 0.0)
    wider = [np.pad(array, ((0, 0), (40, 40), (40, 40), (40, 40))) for array in (truth, probability)]
    found = calibration_metrics(truth, probability, ISOTROPIC)
    assert calibration_metrics(*wider, ISOTROPIC) == pytest.approx(found)
    assert found["ece"] == pytest.approx(0.4 * 64 / 24**3)
