"""Clicks of an annotator on a scan: their checks, and their place in the prepared image.

A click is sent as the voxel indices i, j, k of the scan's own file (nibabel's order); orientation, resampling and crop
move it, so that it is mapped by the affines of both grids.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scripts.errors import InputError


class Click(NamedTuple):
    """A click.

    Attributes:
        voxel: its indices.
        positive: whether the voxel belongs to the region.
    """

    voxel: tuple[int, ...]
    positive: bool


def read_clicks(region: str, foreground: Any, background: Any, shape: Sequence[int]) -> list[Click]:
    """The clicks on one region in voxels of the scan, each once.

    Args:
        region: its name.
        foreground: voxels that belong to it, [[i, j, k], ...].
        background: voxels that do not.
        shape: of the scan, in voxels.

    Raises:
        InputError: there is none, one is not a voxel of the scan, or is both in the region and not.
    """
    both = [
        _read_voxels(region, name, points, shape)
        for name, points in (("foreground", foreground), ("background", background))
    ]
    if not any(both):
        raise InputError(
            f"no click on {region} is given: expected foreground or background, lists of voxels [i, j, k]."
        )
    if contradicting := {*both[0]} & {*both[1]}:
        raise InputError(
            f"voxel {list(min(contradicting))} is clicked as foreground and as background of {region}: remove one of"
            " the two clicks."
        )
    return [Click(voxel, own is both[0]) for own in both for voxel in dict.fromkeys(own)]


def _read_voxels(region: str, name: str, points: Any, shape: Sequence[int]) -> list[tuple[int, ...]]:
    points = [] if points is None else points
    try:
        found = np.asarray(points if len(points) else np.empty((0, len(shape))), dtype=float)
        fits = found.ndim == 2 and found.shape[1] == len(shape) and bool(np.isfinite(found).all())
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            f"{name} clicks on {region} are {points!r}: expected a list of voxels of {len(shape)} indices each, such as"
            f" [{[int(length) // 2 for length in shape]}]."
        )
    voxels = [tuple(map(int, point)) for point in np.rint(found)]
    for voxel in voxels:
        if not all(0 <= place < length for place, length in zip(voxel, shape, strict=True)):
            raise InputError(
                f"the {name} click on {region} at {list(voxel)} lies outside the scan, which has"
                f" {' x '.join(map(str, shape))} voxels, counted from 0: click within it."
            )
    return voxels


def map_voxel(
    voxel: Sequence[int], scan_affine: np.ndarray, image_affine: np.ndarray, size: Sequence[int]
) -> tuple[int, ...] | None:
    """The voxel of the prepared image that is nearest to the centre of a voxel of the scan.

    Args:
        voxel: of the scan.
        scan_affine: from voxels of the scan to mm.
        image_affine: from voxels of the prepared image to mm, of the same size.
        size: of the prepared image, in voxels.

    Returns:
        None if it lies more than one voxel outside the image: in the background that the crop has removed.
    """
    homogeneous = np.zeros(len(scan_affine))
    homogeneous[: len(voxel)], homogeneous[-1] = voxel, 1
    place = np.linalg.solve(image_affine, scan_affine @ homogeneous)[: len(voxel)]
    nearest = np.clip(np.rint(place), 0, np.array(size) - 1)
    return tuple(map(int, nearest)) if (np.abs(place - nearest) <= 1).all() else None
