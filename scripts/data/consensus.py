"""Consensus of several raters' masks: the majority, and STAPLE."""

import numpy as np

from scripts.data.images import bounding_box


def majority_mask(masks: np.ndarray) -> np.ndarray:
    """The voxels in more than half of the masks [rater, ...]."""
    return 2 * np.count_nonzero(masks, axis=0) > len(masks)


def staple_mask(masks: np.ndarray) -> np.ndarray:
    """The voxels with a probability over 0.5 by STAPLE, from two or more masks [rater, ...].

    Follows Warfield et al. (IEEE TMI 23:903, 2004). Computed on the bounding box of all masks, without a margin: the
    amount of background around it changes the raters' estimated specificity, and with much of it the largest mask wins.
    """
    import SimpleITK as sitk  # which whoever needs no STAPLE should not wait for

    here = bounding_box(np.any(masks, axis=0), margin=[0] * (masks.ndim - 1))
    box = (slice(None), *here)
    inside = masks[box]
    if (inside == inside[0]).all():  # STAPLE is undefined where all raters agree
        return masks[0].copy()
    found = sitk.STAPLEImageFilter()
    found.SetForegroundValue(1)
    images = [sitk.GetImageFromArray(np.ascontiguousarray(mask, dtype=np.uint8)) for mask in inside]
    together = np.zeros(masks.shape[1:], bool)
    together[here] = sitk.GetArrayFromImage(found.Execute(images)) > 0.5
    return together
