"""Pieces of a patch on which a simulated annotator disagrees with the label, so that only a click explains the target.

A network that can explain its training patches from the image alone learns to ignore clicks: it has no errors there
that are worth one. nnInteractive (Isensee et al. 2025) trains on many ambiguous targets for the same reason.
"""

from typing import NamedTuple

import numpy as np
import torch

from scripts.data.clicks import Click
from scripts.data.images import deepest_voxel
from scripts.data.similar_voxels import find_similar_voxels

SMALLEST = 2.0  # radius of a piece, in voxels; the largest is a quarter of the patch
FEWEST = 8  # voxels of a piece
TOLERANCES = 0.5, 2.0  # of intensities, drawn; see `find_similar_voxels`


class Dispute(NamedTuple):
    """A piece that the annotator puts on the other side of a region's border.

    Attributes:
        click: in the middle of the piece.
        voxels: of the piece, their indices along each axis.
        donor: a voxel across the border.
    """

    click: Click
    voxels: tuple[np.ndarray, ...]
    donor: tuple[int, ...]

    def apply(self, label: torch.Tensor) -> None:
        """Give the piece the label of the donor, in place: all channels of [K, ...], so that regions stay nested."""
        voxels = label.movedim(0, -1)
        voxels[tuple(map(torch.from_numpy, self.voxels))] = voxels[self.donor].clone()


def draw_dispute(image: np.ndarray, mask: np.ndarray, locked: np.ndarray, rng: np.random.Generator) -> Dispute | None:
    """A connected piece of similar intensity on one side of a region's border; None if the place drawn has none.

    Args:
        image: channels of the scan [C, ...]; 0 in all of them is background.
        mask: of the region, bool [...].
        locked: voxels that keep their label, bool [...].
        rng: draws place, size and tolerance.
    """
    axes = mask.ndim
    faces = [np.argwhere(np.diff(mask, axis=axis)) for axis in range(axes)]
    steps = np.eye(axes, dtype=int)  # from a voxel to the one across the face
    pairs = np.concatenate([np.stack([own, own + step], 1) for own, step in zip(faces, steps, strict=True)])
    if not len(pairs):
        return None
    pair, radius = rng.choice(pairs), rng.uniform(SMALLEST, max(SMALLEST, min(mask.shape) / 4))
    place = np.clip(np.rint(pair[0] + rng.normal(0, radius / 2, axes)).astype(int), 0, np.array(mask.shape) - 1)
    side = bool(mask[tuple(place)])
    donor = next(tuple(map(int, voxel)) for voxel in pair if mask[tuple(voxel)] != side)
    free = (mask == side) & ~locked
    if locked[donor] or not free[tuple(place)] or not any(channel[tuple(place)] for channel in image):
        return None
    box, piece = find_similar_voxels(image, place.tolist(), radius, free, rng.uniform(*TOLERANCES))
    if piece.sum() < FEWEST:
        return None
    start = np.array([edge.start for edge in box])
    click = Click(tuple(int(at) for at in start + deepest_voxel(piece, [1.0] * axes)), not side)
    return Dispute(click, tuple(own + low for own, low in zip(np.nonzero(piece), start, strict=True)), donor)
