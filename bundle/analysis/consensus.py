"""Consensus of several raters' masks: the majority, and STAPLE."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scripts.data.consensus import majority_mask, staple_mask
from scripts.data.images import write_like

DEFINITIONS = {
    "majority": "voxels in more than half of the masks of the image; with two raters, in both",
    "staple": "voxels with a probability over 0.5 by STAPLE (Warfield et al. 2004, SimpleITK), computed on the bounding"
    " box of all masks",
}


CONSENSUS = {"majority": majority_mask, "staple": staple_mask}


def write_consensus(mask: np.ndarray, like: Path, levels: Sequence[int], path: Path) -> None:
    """Write a mask in the format, on the grid and with the values of the file `like`: (object, background)."""
    voxels = np.where(mask, *levels).astype(np.result_type(*map(np.min_scalar_type, levels)))
    write_like(path, voxels, like)
