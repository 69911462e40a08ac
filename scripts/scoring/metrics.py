"""Definitions of all metrics of an evaluation.

Masks are boolean arrays of the same shape, in two or three dimensions; `spacing` is the size of a voxel along each axis
of the array, in mm. The definitions follow Metrics Reloaded (Maier-Hein et al., Nat Methods 21:195, 2024); lesions are
counted in `scripts.scoring.lesions`, cell boundaries are scored in `scripts.scoring.cell_boundaries`.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from scripts.data.images import bounding_box, voxel_size
from scripts.scoring import lesions
from scripts.scoring.surfaces import nearest_distances, voxel_positions

TOLERANCES = (1, 2, 3)  # mm; 2 is the main one: a tolerance of one voxel measures the grid, not the segmentation
BOX_MARGIN = 10.0  # mm around the tumour's box, for calibration
BINS = 10  # of the calibration error and the reliability curve
ROUNDING = 1e-6  # mm, so that five voxels of 0.2 mm are within 1 mm


class Metric(NamedTuple):
    """A metric: its unit, its meaning, and its values for empty masks.

    `absent` is the value if truth and prediction are both empty, `one_empty` if only one of them is; None if the
    formula gives it. The units `length` and `volume` become mm and ml (or pixel) in the table.
    """

    unit: str
    meaning: str
    absent: float | None = None
    one_empty: float | None = None


OVERLAP = {
    "dice": Metric("", "2 TP / (2 TP + FP + FN), in voxels", 1, 0),
    "iou": Metric("", "TP / (TP + FP + FN), in voxels", 1, 0),
    "precision": Metric("", "TP / (TP + FP), in voxels", 1, 0),
    "recall": Metric("", "TP / (TP + FN), in voxels", 1, 0),
}
DISTANCES = {
    "hd95": Metric("length", "the larger of the two directed 95th percentiles between border voxels", 0, math.inf),
    "hd100": Metric("length", "the largest distance from a border voxel to the other border", 0, math.inf),
    "assd": Metric("length", "the mean distance from the border voxels of both masks to the other border", 0, math.inf),
    **{f"nsd_{t}mm": Metric("", f"the part of both borders within {t} mm of the other", 1, 0) for t in TOLERANCES},
}
VOLUMES = {
    "volume_truth": Metric("volume", "volume of the label"),
    "volume_prediction": Metric("volume", "volume of the prediction"),
    "volume_error": Metric("volume", "prediction minus truth: positive is too large"),
    "volume_error_absolute": Metric("volume", "the error without its sign"),
    "volume_error_relative": Metric("", "the signed error over the volume of the truth; inf where nothing is there"),
    "volume_fp": Metric("volume", "predicted outside the truth"),
    "volume_fn": Metric("volume", "true outside the prediction"),
}
LESIONS = {
    "lesions_tp": Metric("", f"largest number of one-to-one pairs of lesions with an IoU over {lesions.FOUND_IOU}"),
    "lesions_fp": Metric("", "predicted lesions without a pair"),
    "lesions_fn": Metric("", "true lesions without a pair"),
    "lesion_f1": Metric("", "2 TP / (2 TP + FP + FN), in lesions", 1, 0),
    "panoptic_quality": Metric(
        "", f"sum of the IoU of pairs over {lesions.PANOPTIC_IOU}, divided by the mean number of lesions", 1, 0
    ),
}
LESIONWISE = {
    "lesionwise_dice_brats2023": Metric("", "the BraTS 2023 rule: mean over true and false positive lesions"),
    "lesionwise_hd95_brats2023": Metric("length", "the same rule, by surface area; a false or missed lesion is 374"),
}
METRICS = {**OVERLAP, **DISTANCES, **VOLUMES, **LESIONS, **LESIONWISE}
BOUNDARY_METRICS = {
    "rand_f": Metric("", "2 / (1 / rand_split + 1 / rand_merge), after the predicted boundary is thinned"),
    "rand_split": Metric("", "of the pairs of pixels in one true segment, those in one predicted segment"),
    "rand_merge": Metric("", "of the pairs of pixels in one predicted segment, those in one true segment"),
    "information_f": Metric("", "2 I / (H(truth) + H(prediction)), of the segments, after thinning"),
    "information_split": Metric("", "I / H(prediction)"),
    "information_merge": Metric("", "I / H(truth)"),
}
CASE_METRICS = {
    "ece": Metric("", f"expected calibration error, {BINS} bins, mean over the regions, in the tumour's box"),
    "brier": Metric("", "mean squared error of the probabilities, over the regions, in the tumour's box"),
}


def empty_note(truth: np.ndarray, prediction: np.ndarray) -> str:
    """Which mask is empty: `absent` (both), `missed` (the prediction), `hallucinated` (the truth), or "" (neither)."""
    if truth.any():
        return "" if prediction.any() else "missed"
    return "hallucinated" if prediction.any() else "absent"


def measure_region(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float],
    brats: lesions.BratsRule = lesions.BRATS_2023,
    wanted: Collection[str] = tuple(METRICS),
    ignored: np.ndarray | None = None,
) -> dict[str, float]:
    """The wanted metrics of one region of one case, in the order of `METRICS`; lengths in mm, volumes in mm to the
    dimension.

    Args:
        truth: [H, W, D] or [H, W] boolean.
        prediction: boolean of the same shape.
        spacing: mm along each axis.
        brats: the parameters of the lesion-wise rule.
        wanted: names of `METRICS`.
        ignored: voxels that are in neither mask, and next to which a mask has no border; None: there are none.
    """
    region = bounding_box(truth | prediction, margin=[max(1, brats.dilations)] * truth.ndim)
    truth, prediction = truth[region], prediction[region]
    ignored = None if ignored is None else ignored[region]
    empty = empty_note(truth, prediction)
    values = volume_metrics(truth, prediction, voxel_size(spacing))
    if not (LESIONS | LESIONWISE).keys().isdisjoint(wanted):
        values |= lesions.measure_lesions(truth, prediction, spacing, brats)
    if not empty:
        values |= overlap_metrics(truth, prediction)
    if not empty and not DISTANCES.keys().isdisjoint(wanted):
        values |= distance_metrics(truth, prediction, spacing, ignored)
    for name, metric in METRICS.items():  # empty masks are handled here, not by any library
        decided = metric.absent if empty == "absent" else metric.one_empty if empty else None
        if decided is not None:
            values[name] = decided
    return {name: float(values[name]) for name in METRICS if name in wanted}


def overlap_metrics(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Dice, IoU, precision and recall of two masks that are not empty."""
    both, true, predicted = (int(np.count_nonzero(mask)) for mask in (truth & prediction, truth, prediction))
    return {
        "dice": 2 * both / (true + predicted),
        "iou": both / (true + predicted - both),
        "precision": both / predicted,
        "recall": both / true,
    }


def volume_metrics(truth: np.ndarray, prediction: np.ndarray, voxel: float) -> dict[str, float]:
    """Volumes and their errors, in the unit of `voxel`, the volume of one voxel."""
    both, true, predicted = (int(np.count_nonzero(mask)) for mask in (truth & prediction, truth, prediction))
    error = predicted - true
    return {
        "volume_truth": true * voxel,
        "volume_prediction": predicted * voxel,
        "volume_error": error * voxel,
        "volume_error_absolute": abs(error) * voxel,
        "volume_error_relative": error / true if true else (math.inf if predicted else 0),
        "volume_fp": (predicted - both) * voxel,
        "volume_fn": (true - both) * voxel,
    }


def distance_metrics(
    truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float], ignored: np.ndarray | None = None
) -> dict[str, float]:
    """HD95, HD100, ASSD and NSD of two masks that are not empty, from one pair of directed distances.

    The same numbers as MONAI's `compute_hausdorff_distance`, `compute_average_surface_distance` (symmetric) and
    `compute_surface_dice`, whose border voxels have a background voxel, or the end of the image, across a face.
    """
    directed = border_distances(truth, prediction, spacing, ignored)
    pooled = np.concatenate(directed)
    return {
        "hd95": max(np.percentile(d, 95) for d in directed),
        "hd100": pooled.max(),
        "assd": pooled.mean(),
        **{f"nsd_{tolerance}mm": np.mean(pooled <= tolerance + ROUNDING) for tolerance in TOLERANCES},
    }


def border_distances(
    a: np.ndarray, b: np.ndarray, spacing: Sequence[float], ignored: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The distance (mm) from every border voxel of `a` to the nearest border voxel of `b`, and vice versa."""
    return nearest_distances(*(voxel_positions(border(mask, ignored), spacing) for mask in (a, b)))


def border(mask: np.ndarray, ignored: np.ndarray | None = None) -> np.ndarray:
    """The border voxels of a mask that is not empty.

    A neighbour that is ignored makes none; but a mask with ignored neighbours alone has those of its own shape.
    """
    if ignored is not None and (known := mask & ~ndimage.binary_erosion(mask | ignored)).any():
        return known
    return mask & ~ndimage.binary_erosion(mask)


def calibration_metrics(
    truth: np.ndarray,
    probability: np.ndarray,
    spacing: Sequence[float],
    bins: np.ndarray | None = None,
    ignored: np.ndarray | None = None,
) -> dict[str, float]:
    """ECE and Brier score of one case, inside the box of its tumour grown by `BOX_MARGIN` on every side.

    The box excludes background, which every model predicts correctly: over a whole head the error looks a hundred times
    better. If the label has no tumour, the whole image counts.

    Args:
        truth: [region, H, W, D] boolean.
        probability: the same shape, 0 to 1.
        spacing: mm along each axis of the image.
        bins: from `reliability_bins` of the same arguments; None: computed here.
        ignored: voxels that do not count, of the shape of the image; None: there are none.
    """
    bins = reliability_bins(truth, probability, spacing, ignored) if bins is None else bins
    voxels, predicted, found = np.moveaxis(bins, -1, 0)
    ece = np.mean(np.abs(predicted - found).sum(axis=1) / voxels.sum(axis=1))
    brier = np.mean([np.square(p - true).mean() for true, p in _near_tumour(truth, probability, spacing, ignored)])
    return {"ece": float(ece), "brier": float(brier)}


def reliability_bins(
    truth: np.ndarray, probability: np.ndarray, spacing: Sequence[float], ignored: np.ndarray | None = None
) -> np.ndarray:
    """Voxels, sum of probabilities and true voxels per region and bin, in the box of `calibration_metrics`.

    Args: the first three of `calibration_metrics`, and `ignored`.

    Returns:
        [region, BINS, 3] float64; bin k holds the probabilities from k / BINS to below (k + 1) / BINS, the last one 1.
    """
    sums = []
    for true, p in _near_tumour(truth, probability, spacing, ignored):
        bins = np.minimum((p * BINS).astype(int), BINS - 1)
        sums.append([np.bincount(bins, weights=weights, minlength=BINS) for weights in (None, p, true)])
    return np.moveaxis(np.array(sums, np.float64), 1, -1)


def _near_tumour(
    truth: np.ndarray, probability: np.ndarray, spacing: Sequence[float], ignored: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Truth and probability of each region inside the grown box, flat, in float64: sums in float32 would saturate."""
    region = bounding_box(np.any(truth, axis=0), margin=[math.ceil(BOX_MARGIN / size) for size in spacing])
    for true, p in zip(truth, probability, strict=True):
        counted = np.ones(true[region].shape, bool) if ignored is None else ~ignored[region]
        yield true[region][counted].astype(np.float64), p[region][counted].astype(np.float64)
