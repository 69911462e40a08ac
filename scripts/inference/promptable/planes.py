"""Slices of a scan for models of pictures: which plane, the way to slices and back, and where a voxel lies in them."""

from collections.abc import Sequence

import nibabel as nib
import numpy as np

PLANES = {"axial": "SPL", "coronal": "AIL", "sagittal": "LIP"}  # where slices, rows and columns run to, as displayed
ACROSS = ("sagittal", "coronal", "axial")  # the plane across each axis of RAS
EQUAL = 1.1  # voxel sides that differ by less count as equal
PERCENTILES = (0.5, 99.5)


def choose_plane(affine: np.ndarray) -> str:
    """The plane of the finest pixels, across the longest side of a voxel; axial where it is one of the longest.

    Args:
        affine: of the scan, from voxels to mm.
    """
    axes = nib.io_orientation(affine)[:, 0]
    sides = nib.affines.voxel_sizes(affine)[np.argsort(axes)]
    return "axial" if sides[2] * EQUAL >= sides.max() else ACROSS[int(sides.argmax())]


class SliceView:
    """A scan as slices [S, rows, columns] of a plane, in the way they are displayed: the front or the head on top.

    Axes are reordered and flipped, never resampled: of an oblique scan the slices are its own that are nearest to the
    plane.

    Args:
        shape: of the scan, [H, W, D].
        affine: of the scan, from voxels to mm.
        plane: of `PLANES`.
    """

    def __init__(self, shape: Sequence[int], affine: np.ndarray, plane: str) -> None:
        own, shown = nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(PLANES[plane]))
        self.turn = nib.orientations.ornt_transform(own, shown)
        self.turn_back = nib.orientations.ornt_transform(shown, own)
        self.to_slice = np.linalg.inv(nib.orientations.inv_ornt_aff(self.turn, shape))

    def slices(self, voxels: np.ndarray) -> np.ndarray:
        """An array of the scan [H, W, D] as slices [S, rows, columns]."""
        return nib.apply_orientation(voxels, self.turn)

    def scan(self, slices: np.ndarray) -> np.ndarray:
        """Slices [S, rows, columns] as an array of the scan [H, W, D]."""
        return nib.apply_orientation(slices, self.turn_back)

    def place(self, voxel: Sequence[int]) -> tuple[int, int, int]:
        """The slice, row and column of a voxel of the scan."""
        slice_, row, column = np.rint(self.to_slice @ [*voxel, 1])[:3].astype(int).tolist()
        return slice_, row, column


def to_grey_values(voxels: np.ndarray) -> np.ndarray:
    """Intensities as grey values from 0 to 1 (float32), the background 0.

    Those of the voxels that are not 0 are clipped to their percentiles 0.5 and 99.5, as for MedSAM (Ma et al. 2024).
    """
    inside = voxels[voxels != 0]
    low, high = np.percentile(inside, PERCENTILES) if inside.size else (0.0, 1.0)
    grey = (np.clip(voxels, low, high) - low) / max(high - low, 1e-8)
    return np.where(voxels == 0, 0, grey).astype(np.float32)
