"""Lesion metrics of one region of one case: counts, panoptic quality and the BraTS 2023 lesion-wise scores.

A lesion is a connected component (voxels that touch by a face, an edge or a corner). Masks should be cropped to their
content, with a margin for the rule's dilation, as `scripts.scoring.metrics.measure_region` does.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as sparse_components

from scripts.data.images import bounding_box, connected_components, voxel_size
from scripts.scoring.surfaces import hd95_by_area

FOUND_IOU = 0.1  # IoU over which a predicted lesion counts as the true one: found, however roughly segmented
PANOPTIC_IOU = 0.5  # IoU over which pairs are unique (Kirillov et al., CVPR 2019)


class BratsRule(NamedTuple):
    """The parameters of the BraTS 2023 lesion-wise scores; the defaults are those of glioma.

    `dilations` (steps) is 1 for meningioma and metastases; true lesions up to `smallest` (mm^3, 2 for metastases) are
    left out; `penalty` (mm) is the HD95 of a false or missed lesion.
    """

    dilations: int = 3
    smallest: float = 50.0
    penalty: float = 374.0


BRATS_2023 = BratsRule()


def measure_lesions(
    truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float], brats: BratsRule = BRATS_2023
) -> dict[str, float]:
    """All lesion metrics of two boolean masks of the same shape; `spacing` in mm along each axis."""
    true, predicted = connected_components(truth), connected_components(prediction)
    return {
        **detection_metrics(true, predicted),
        **lesionwise_metrics(truth, predicted[0], len(predicted[1]), spacing, brats),
    }


def detection_metrics(
    true: tuple[np.ndarray, np.ndarray], predicted: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
    """Lesions found, false and missed, their F1, and the panoptic quality.

    A pair is one true and one predicted lesion with an IoU over `FOUND_IOU`; a lesion is in at most one pair, and the
    number of pairs is the largest possible. Panoptic quality counts only the pairs over `PANOPTIC_IOU`.
    """
    overlaps = lesion_ious(true[0], predicted[0])
    n_true, n_predicted, found = len(true[1]), len(predicted[1]), len(match_lesions(*overlaps)[0])
    mean_number, iou = (n_true + n_predicted) / 2, overlaps[2]
    return {
        "lesions_tp": found,
        "lesions_fp": n_predicted - found,
        "lesions_fn": n_true - found,
        "lesion_f1": found / mean_number if mean_number else 1,
        "panoptic_quality": iou[iou > PANOPTIC_IOU].sum() / mean_number if mean_number else 1,
    }


def true_lesions(truth: np.ndarray, prediction: np.ndarray) -> list[tuple[int, int, float]]:
    """All true lesions, the largest first: size in voxels, whether found (1 or 0), and Dice with the predicted lesion
    of the pair (0 if missed).
    """
    here = bounding_box(truth | prediction, margin=[0] * truth.ndim)
    truth, prediction = truth[here], prediction[here]
    numbered, sizes = connected_components(truth)
    found, iou = match_lesions(*lesion_ious(numbered, connected_components(prediction)[0]))
    dice = np.zeros(len(sizes))
    dice[found - 1] = 2 * iou / (1 + iou)
    return [(int(sizes[k]), int(dice[k] > 0), float(dice[k])) for k in np.argsort(-sizes, kind="stable")]


def lesion_ious(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The numbers of the true and the predicted lesions that share voxels, and their IoU."""
    a, b, common = overlapping_components(true, predicted)
    sizes_true, sizes_predicted = np.bincount(true[true > 0]), np.bincount(predicted[predicted > 0])
    return a, b, common / (sizes_true[a] + sizes_predicted[b] - common)


def match_lesions(a: np.ndarray, b: np.ndarray, iou: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the true lesions that are in a pair, and the IoU of each pair.

    Of all matchings with the largest number of pairs, the one with the largest sum of IoU. Lesions that overlap,
    directly or through others, are matched group by group, so that memory is not quadratic in their number.
    """
    near = iou > FOUND_IOU
    a, b, iou = a[near], b[near], iou[near]
    (rows, row), (columns, column) = (np.unique(n, return_inverse=True) for n in (a, b))
    size = len(rows) + len(columns)
    overlaps = coo_array((np.ones(len(row)), (row, len(rows) + column)), (size, size))
    group = sparse_components(overlaps, directed=False)[1][row]  # of each overlap
    order = np.argsort(group, kind="stable")
    found, shared = [np.zeros(0, int)], [np.zeros(0)]
    for own in np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(order) else ():
        matched, values = _match_group(row[own], column[own], iou[own])
        found.append(rows[matched])
        shared.append(values)
    numbers, values = np.concatenate(found), np.concatenate(shared)
    ascending = np.argsort(numbers)
    return numbers[ascending], values[ascending]


def _match_group(row: np.ndarray, column: np.ndarray, iou: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are in a pair, and the IoU of each pair, by a dense table of one group of overlaps."""
    if len(row) == 1:
        return row, iou
    (rows, row), (columns, column) = (np.unique(n, return_inverse=True) for n in (row, column))
    table, worth = np.zeros((2, len(rows), len(columns)))
    table[row, column] = iou
    worth[row, column] = iou + len(rows)  # so that one more pair outweighs any gain in IoU
    row, column = linear_sum_assignment(worth, maximize=True)
    made = worth[row, column] > 0
    return rows[row[made]], table[row, column][made]


def lesionwise_metrics(
    truth: np.ndarray, predicted: np.ndarray, n_predicted: int, spacing: Sequence[float], rule: BratsRule
) -> dict[str, float]:
    """The lesion-wise Dice and HD95 (mm) of BraTS 2023 (github.com/rachitsaluja/BraTS-2023-Metrics).

    True lesions that merge when dilated count as one. The union of all predicted lesions that touch the dilated lesion
    is scored against it; those that touch none are false positives. A lesion that none touches, and each false
    positive, score 0 and the penalty. True lesions of at most `rule.smallest` are left out, and so are predicted ones
    that touch them.
    """
    zones, n_zones = _zones(truth, rule.dilations)
    zone, touching, _ = overlapping_components(zones, predicted)
    false = n_predicted - len(np.unique(touching))
    voxel = voxel_size(spacing)
    dices, hausdorffs = [0.0] * false, [rule.penalty] * false
    sizes = np.bincount(zones[truth], minlength=n_zones + 1)
    boxes_true, boxes_predicted = ndimage.find_objects(zones), ndimage.find_objects(predicted)
    for number in range(1, n_zones + 1):
        if sizes[number] * voxel <= rule.smallest:
            continue
        own = touching[zone == number]
        here = _around(boxes_true[number - 1], *(boxes_predicted[n - 1] for n in own))
        lesion, union = truth[here] & (zones[here] == number), np.isin(predicted[here], own)
        together = np.count_nonzero(lesion & union)
        dices.append(2 * together / (sizes[number] + np.count_nonzero(union)))
        hausdorffs.append(hd95_by_area(lesion, union, spacing) if len(own) else rule.penalty)
    return {
        "lesionwise_dice_brats2023": float(np.mean(dices)) if dices else 1.0,
        "lesionwise_hd95_brats2023": float(np.mean(hausdorffs)) if hausdorffs else 0.0,
    }


def _zones(truth: np.ndarray, dilations: int) -> tuple[np.ndarray, int]:
    """The components of the dilated mask, numbered from 1, and their number."""
    zones = np.zeros(truth.shape, dtype=np.int32)
    here = bounding_box(truth, margin=[dilations] * truth.ndim)
    dilated = truth[here]
    if dilations > 0:  # faces and edges, not corners
        dilated = ndimage.binary_dilation(
            dilated, ndimage.generate_binary_structure(truth.ndim, 2), iterations=dilations
        )
    zones[here], sizes = connected_components(dilated)
    return zones, len(sizes)


def overlapping_components(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The components that share voxels: their numbers in `a` and in `b`, and how many voxels they share."""
    both = (a > 0) & (b > 0)
    stride = int(b.max(initial=0)) + 1
    codes, common = np.unique(a[both].astype(np.int64) * stride + b[both], return_counts=True)
    return codes // stride, codes % stride, common


def _around(*boxes: tuple[slice, ...]) -> tuple[slice, ...]:
    """The smallest box around all boxes."""
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes, strict=True))
