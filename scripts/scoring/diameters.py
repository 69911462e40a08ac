"""The longest diameter of a lesion in an axial slice, and the longest one perpendicular to it.

The convention: both are measured on the convex hull of the lesion in one axial slice, whose corners are those of its
pixels. So the diameter of a ring goes across its hole, and one pixel of 1 mm has a diameter of 1.41 mm. The slice is
the one with the longest diameter; of equal ones the one with the longer perpendicular. The perpendicular is the longest
chord of the hull at a right angle to the diameter. (Chords that stay inside the mask are shorter: 27 mm in place of
41 mm for a ring of 40 mm with a wall of 6 mm.) The criteria that use two diameters (Macdonald et al., J Clin Oncol
8:1277, 1990; Wen et al., J Clin Oncol 28:1963, 2010) leave their definition on pixels open.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

CONVENTION = (
    "longest diameter and the longest perpendicular to it, of the convex hull of the lesion's pixel corners in one"
    " axial slice; the slice is that with the longest diameter"
)


class Diameters(NamedTuple):
    """The two diameters of a lesion.

    Attributes:
        longest: mm.
        perpendicular: mm.
        slice: index along the third axis.
        ends: of the longest one, [2, 2] in mm along the first two axes, from the centre of voxel 0.
        perpendicular_ends: of the perpendicular.
    """

    longest: float
    perpendicular: float
    slice: int
    ends: np.ndarray
    perpendicular_ends: np.ndarray


def measure_diameters(lesion: np.ndarray, spacing: Sequence[float]) -> Diameters:
    """The diameters of a lesion that is not empty.

    Args:
        lesion: [H, W, D] boolean; the third axis runs from foot to head, so that its slices are axial.
        spacing: mm along each axis.
    """
    found = (_measure_slice(lesion[..., k], k, spacing) for k in np.flatnonzero(lesion.any(axis=(0, 1))))
    return max(found, key=lambda one: (round(one.longest, 6), round(one.perpendicular, 6)))


def _measure_slice(mask: np.ndarray, k: int, spacing: Sequence[float]) -> Diameters:
    hull = _hull_of_corners(mask, spacing)
    distances = squareform(pdist(hull))
    i, j = np.unravel_index(distances.argmax(), distances.shape)
    ends = hull[[i, j]]
    along = (ends[1] - ends[0]) / distances[i, j]
    chord = _longest_chord(hull, along)
    return Diameters(float(distances[i, j]), float(np.linalg.norm(chord[1] - chord[0])), int(k), ends, chord)


def _hull_of_corners(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """The convex hull [N, 2] in mm of the corners of a mask's pixels, in order around it."""
    steps = np.asarray(spacing[:2], float)
    inside = np.pad(mask, 1)
    rim = mask & ~(inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:])
    pixels = np.argwhere(rim)
    corners = np.concatenate([pixels + offset for offset in ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5))])
    points = np.unique(corners, axis=0) * steps
    return points[ConvexHull(points).vertices]


def _longest_chord(hull: np.ndarray, along: np.ndarray) -> np.ndarray:
    """The longest chord [2, 2] of a convex polygon at a right angle to a direction; it passes through a corner."""
    across = np.array([-along[1], along[0]])
    t, s = hull @ along, hull @ across
    following_t, following_s = np.roll(t, -1), np.roll(s, -1)
    best, chord = -1.0, np.array([hull[0], hull[0]])
    for place in t:
        crossed = (np.minimum(t, following_t) <= place) & (place <= np.maximum(t, following_t))
        run = following_t[crossed] - t[crossed]
        share = np.where(run == 0, 0.0, (place - t[crossed]) / np.where(run == 0, 1.0, run))
        heights = s[crossed] + share * (following_s[crossed] - s[crossed])
        heights = np.append(heights, s[np.isclose(t, place)])
        if (length := np.ptp(heights)) > best:
            best = length
            chord = place * along + np.array([heights.min(), heights.max()])[:, None] * across
    return chord
