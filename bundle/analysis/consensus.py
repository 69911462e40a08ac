"""Consensus of several raters' masks: the majority, and STAPLE."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from scripts.data.images import bounding_box, write_like

DEFINITIONS = {
    "majority": "voxels in more than half of the masks of the image; with two raters, in both",
    "staple": "voxels with a probability over 0.5 by STAPLE (Warfield et al. 2004, SimpleITK), computed on the bounding"
    " box of all masks",
}


def majority_mask(masks: np.ndarray) -> np.ndarray:
    """The voxels in more than half of the masks [rater, ...]."""
    return 2 * np.count_nonzero(masks, axis=0) > len(masks)


def staple_mask(masks: np.ndarray) -> np.ndarray:
    """The voxels with a probability over 0.5 by STAPLE, from two or more masks [rater, ...].

    Follows Warfield et al. (IEEE TMI 23:903, 2004). Computed on the bounding box of all masks, without a margin: the
    amount of background around it changes the raters' estimated specificity, and with much of it the largest mask wins.
    """
    here = bounding_box(masks.any(axis=0), margin=[0] * (masks.ndim - 1))
    inside = masks[(slice(None), *here)]
    if (inside == inside[0]).all():  # STAPLE is undefined where all raters agree
        return masks[0].copy()
    found = sitk.STAPLEImageFilter()
    found.SetForegroundValue(1)
    images = [sitk.GetImageFromArray(np.ascontiguousarray(mask, dtype=np.uint8)) for mask in inside]
    together = np.zeros(masks.shape[1:], bool)
    together[here] = sitk.GetArrayFromImage(found.Execute(images)) > 0.5
    return together


CONSENSUS = {"majority": majority_mask, "staple": staple_mask}


def write_consensus(mask: np.ndarray, like: Path, levels: Sequence[int], path: Path) -> None:
    """Write a mask in the format, on the grid and with the values of the file `like`: (object, background)."""
    voxels = np.where(mask, *levels).astype(np.result_type(*map(np.min_scalar_type, levels)))
    write_like(path, voxels, like)
