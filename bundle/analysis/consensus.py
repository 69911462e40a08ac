"""Consensus of several raters' masks: the majority, and STAPLE."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from scripts.data.images import bounding_box, write_like

DEFINITIONS = {
    "majority": "voxels that more than half of those who drew the image drew; of two raters, what both drew",
    "staple": "voxels that are the object with a probability over 0.5 by STAPLE (Warfield et al. 2004, SimpleITK),"
    " computed on the box of what anybody drew",
}


def majority_mask(masks: np.ndarray) -> np.ndarray:
    """What more than half of the masks [rater, ...] hold."""
    return 2 * np.count_nonzero(masks, axis=0) > len(masks)


def staple_mask(masks: np.ndarray) -> np.ndarray:
    """What of two masks or more [rater, ...] is the object with a probability over 0.5 by STAPLE.

    Follows Warfield et al. (IEEE TMI 23:903, 2004). Computed on the box of what anybody drew, grown by nothing: how
    much air is around it decides what the raters are believed to be able to, and with much of it whoever draws too much
    is right.
    """
    here = bounding_box(masks.any(axis=0), margin=[0] * (masks.ndim - 1))
    inside = masks[(slice(None), *here)]
    if (inside == inside[0]).all():  # STAPLE has no answer where there is nothing to weigh
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
