"""Where in the image is a mask? Its box, so that nothing is computed on air."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage


def box(mask: np.ndarray, margin: Sequence[int]) -> tuple[slice, ...]:
    """The smallest box around the mask, grown by `margin` voxels within the image; the whole image if it is empty."""
    slices = []
    for axis, grow in enumerate(margin):
        there = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not there.size:
            return (slice(None),) * mask.ndim
        slices.append(slice(max(int(there[0]) - grow, 0), int(there[-1]) + grow + 1))
    return tuple(slices)


def voxel_ml(image: Any) -> float:
    """The volume of one voxel in ml, from the affine of a `MetaTensor`; 0.001 for a pixel, whose size is unknown."""
    return float(np.prod(np.asarray(image.pixdim))) / 1000 if hasattr(image, "pixdim") else 0.001


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The connected components of a mask, diagonal neighbours included.

    Returns:
        the numbered components (0 outside the mask) and their sizes in voxels, from component 1 on.
    """
    numbered, count = ndimage.label(mask, structure=np.ones([3] * mask.ndim))
    return numbered, np.bincount(numbered.ravel(), minlength=count + 1)[1:]
