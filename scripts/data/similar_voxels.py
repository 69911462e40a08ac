"""Connected voxels of similar intensity around a place: the piece of a scan that a click most likely means."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from scripts.data.images import connected_components

Box = tuple[slice, ...]


def find_similar_voxels(
    image: np.ndarray, place: Sequence[int], radius: float, free: np.ndarray, tolerance: float
) -> tuple[Box, np.ndarray]:
    """The voxels within a ball that are connected with its middle, and similar to it in all channels.

    Intensities are means over 3 x 3 x 3 voxels.

    Args:
        image: channels of the scan [C, ...]; 0 in all of them is background, which is similar to nothing.
        place: the middle, a voxel.
        radius: of the ball, in voxels.
        free: the voxels to look at, bool [...].
        tolerance: by which a channel may differ, in standard deviations of its voxels around the middle.

    Returns:
        A box around the ball, and which of its voxels they are, bool; none if the middle is not free.
    """
    start = [max(0, at - int(radius)) for at in place]
    box = tuple(slice(low, at + int(radius) + 1) for low, at in zip(start, place, strict=True))
    inner, middle = (
        np.stack([channel[box] for channel in image]),
        tuple(at - low for at, low in zip(place, start, strict=True)),
    )
    seen = (inner != 0).any(0)
    if not (seen & free[box])[middle]:
        return box, np.zeros(seen.shape, bool)
    spread = tolerance * inner[:, seen].std(1)
    smooth = np.moveaxis(ndimage.uniform_filter(inner, [1, *[3] * seen.ndim]), 0, -1)
    near = np.linalg.norm(np.moveaxis(np.indices(seen.shape), 0, -1) - middle, axis=-1) <= radius
    similar = (np.abs(smooth - smooth[middle]) <= spread).all(-1)
    numbered, _ = connected_components(seen & free[box] & near & similar)
    return box, numbered == numbered[middle]
