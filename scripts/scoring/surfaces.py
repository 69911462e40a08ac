"""Distances between surfaces, weighted by area: the HD95 of BraTS 2023.

A surface element is a corner between eight voxels of which some are inside and some outside; its weight is the area of
the marching-cubes surface through the midpoints of the edges between them, as in DeepMind's surface-distance.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

CORNERS = 2 ** np.arange(8, dtype=np.uint8).reshape(2, 2, 2)  # the bit of each of the eight voxels in their code


def hd95_by_area(a: np.ndarray, b: np.ndarray, spacing: Sequence[float]) -> float:
    """The larger of the two directed 95th percentiles (mm) over the surfaces of two masks that are not empty."""
    areas = areas_by_code(tuple(spacing))
    points, weights = [], []
    for mask in (a, b):
        code = _codes(mask)
        surface = (code > 0) & (code < 255)
        points.append(voxel_positions(surface, spacing))
        weights.append(areas[code[surface]])
    return max(_weighted_percentile_95(d, w) for d, w in zip(nearest_distances(*points), weights, strict=True))


def surface_area(mask: np.ndarray, spacing: Sequence[float]) -> float:
    """The area (mm^2) of the surface of a mask [H, W, D]; the end of the image is background."""
    code = _codes(mask)
    return float(areas_by_code(tuple(spacing))[code].sum())


def voxel_positions(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """The positions of a mask's voxels, [voxel, axis] in mm."""
    # flat indices first: several times faster than np.argwhere
    return np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape), axis=-1) * np.asarray(spacing, dtype=float)


def nearest_distances(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distance from each point of `a` [n, axis] to the nearest of `b`, and vice versa."""
    # each tree is queried once, so a faster build is worth more than a faster query
    trees = [cKDTree(points, leafsize=32, compact_nodes=False, balanced_tree=False) for points in (a, b)]
    return trees[1].query(a)[0], trees[0].query(b)[0]


@lru_cache(maxsize=64)
def areas_by_code(spacing: tuple[float, ...]) -> np.ndarray:
    """The area (mm^2; in two dimensions mm) of the surface between eight voxels, [256] by the code of those inside."""
    sides = np.array([*spacing, *[1.0] * (3 - len(spacing))])
    faces = sides.prod() / sides
    areas = np.zeros(256)
    for code in range(256):
        inside = (CORNERS & code) > 0
        if np.count_nonzero(inside) > 4:
            inside = ~inside
        joined, count = ndimage.label(inside)  # voxels that share a face are cut off by one patch
        areas[code] = sum(_patch(np.argwhere(joined == number), faces) for number in range(1, count + 1))
    return areas


def _patch(corners: np.ndarray, faces: np.ndarray) -> float:
    """The area of the cut that separates up to four connected corners from a box with face areas `faces` by axis."""
    edges = [(i, j) for i in range(len(corners)) for j in range(i) if np.abs(corners[i] - corners[j]).sum() == 1]
    axes = [int(np.argmax(corners[i] != corners[j])) for i, j in edges]
    ends = np.bincount(np.ravel(edges).astype(int), minlength=len(corners))  # edges that meet in each corner
    slant = float(np.linalg.norm(faces))
    if len(corners) == 1:
        return slant / 8
    if len(corners) == 2:  # an edge: a rectangle along it
        return _without(faces, axes[0]) / 2
    if len(corners) == 3:  # a bend: a triangle and a trapezoid, and a half face
        return 3 * slant / 8 + float(faces[_missing(axes)]) / 2
    if len(edges) == 4:  # a face
        return float(faces[_missing(axes)])
    if ends.max() == 3:  # a corner with its three neighbours: a hexagon
        return 3 * slant / 4
    outer = [axis for axis, edge in zip(axes, edges, strict=True) if ends[list(edge)].min() == 1]
    return slant / 2 + sum(_without(faces, axis) for axis in outer) / 4  # a path along all three axes


def _without(faces: np.ndarray, axis: int) -> float:
    return float(np.linalg.norm(np.delete(faces, axis)))


def _missing(axes: list[int]) -> int:
    return ({0, 1, 2} - set(axes)).pop()


def _codes(mask: np.ndarray) -> np.ndarray:
    """The code of the eight voxels around each corner; a flat image is repeated above and below."""
    padded = np.pad(mask, 1).astype(np.uint8)
    if mask.ndim == 3:
        return ndimage.correlate(padded, CORNERS, mode="constant")
    return ndimage.correlate(padded, CORNERS.sum(axis=2, dtype=np.uint8), mode="constant")


def _weighted_percentile_95(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(reached, 0.95)), len(values) - 1)])
