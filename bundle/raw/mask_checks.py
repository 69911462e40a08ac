"""Checks of the volume and shape of a brain mask."""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import ConvexHull

from bundle.raw.volumes import resample, to_voxels
from scripts.data.images import connected_components, voxel_size
from scripts.errors import InputError

VOLUME_ML = (700.0, 2000.0)
LARGEST_SHARE = 0.98  # of a mask, in its largest connected component
SOLIDITY = 0.75  # volume by that of the convex hull: brains have about 0.9
IN_HEAD = 0.95  # of a mask, that must lie in the head
COARSE_MM = 3.0  # grid of the convex hull


def check_brain_mask(mask: sitk.Image, head: sitk.Image, whose: str) -> float:
    """The volume of a brain mask in ml.

    Args:
        mask: the mask (uint8).
        head: the mask of the head of the same scan, on any grid.
        whose: the mask in words, for messages.

    Raises:
        InputError: its volume or shape is not that of a brain; the sentence has the number.
    """
    inside, sizes = to_voxels(mask) > 0, mask.GetSpacing()
    volume = np.count_nonzero(inside) * voxel_size(sizes) / 1000
    low, high = VOLUME_ML
    if not low <= volume <= high:
        raise InputError(_refusal(whose, f"has {volume:.0f} ml, and brains have {low:.0f} to {high:.0f} ml"))
    largest = float(connected_components(inside)[1].max() / np.count_nonzero(inside))
    if largest < LARGEST_SHARE:
        raise InputError(_refusal(whose, f"is in pieces: the largest has {largest:.0%} of it, expected one brain"))
    solidity = _solidity(inside, sizes)
    if solidity < SOLIDITY:
        why = f"fills {solidity:.0%} of its convex hull, and brains fill {SOLIDITY:.0%} or more"
        raise InputError(_refusal(whose, why))
    covered = float((to_voxels(resample(head, mask))[inside] > 0).mean())
    if covered < IN_HEAD:
        raise InputError(_refusal(whose, f"lies in the head with {covered:.0%} alone, expected {IN_HEAD:.0%}"))
    return float(volume)


def _solidity(inside: np.ndarray, sizes: Sequence[float]) -> float:
    """The volume of a mask by that of its convex hull, both of a coarse copy."""
    steps = [max(1, int(COARSE_MM / size)) for size in sizes]
    coarse = inside[tuple(slice(None, None, step) for step in steps)]
    border = np.argwhere(coarse & ~ndimage.binary_erosion(coarse))
    corners = np.concatenate([border + offset for offset in np.ndindex(2, 2, 2)])  # of voxels, or small ones lose most
    return float(np.count_nonzero(coarse) / ConvexHull(corners).volume)


def _refusal(whose: str, why: str) -> str:
    return (
        f"{whose} {why}: look at the scan; try another method (--brain hd-bet, --brain deepbet), or give a mask by"
        " --brain_mask."
    )
