"""Synthetic heads as they come from a scanner: skull, scalp, neck, noisy air, and channels on grids of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bundle.cohort.phantom_anatomy import CHANNELS, make_patient
from scripts.data.images import GridImage
from tests.made import save_nifti

SIZE, SPACING = 52, 5.0  # 260 mm
SCALP = {"T1": 1.5, "T1c": 1.5, "T2": 0.9, "FLAIR": 1.2}  # relative to the mean of the brain
AFFINE = np.array([[-5.0, 0, 0, 130], [0, -5.0, 0, 130], [0, 0, 5.0, -130], [0, 0, 0, 1]])  # LPS


def make_head(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Channels [52, 52, 52] of a head, 5 mm, whole numbers on the grid `AFFINE`, and the mask of the brain."""
    images, _ = make_patient(np.random.default_rng(seed), SIZE, SPACING, 3, "typical")
    brain = images[0] > 0
    rng = np.random.default_rng(seed + 1)
    away = ndimage.distance_transform_edt(~brain, [SPACING] * 3)
    x, y, z = np.indices(brain.shape)
    middle = np.argwhere(brain).mean(0)
    neck = (np.hypot(x - middle[0], y - middle[1] - 3) < 12) & (z < middle[2]) & (away > 8)
    scalp = ((away > 8) & (away <= 22)) | neck
    channels = {}
    for name, image in zip(CHANNELS, images, strict=True):
        signal = image / image[brain].mean() + SCALP[name] * scalp * (1 + 0.1 * rng.standard_normal(brain.shape))
        noise = [0.03 * rng.standard_normal(brain.shape) for _ in range(2)]
        channels[name] = np.rint(500 * np.hypot(signal + noise[0], noise[1])).astype(np.int16)
    return channels, brain


def rigid_matrix(turn: tuple[float, float, float], shift: tuple[float, float, float]) -> np.ndarray:
    """A rigid map of points, 4 x 4: angles about x, y and z in degrees, then a shift in mm."""
    return nib.affines.from_matvec(Rotation.from_euler("xyz", turn, degrees=True).as_matrix(), shift)


def scan_again(voxels: np.ndarray, moved: np.ndarray, shape: tuple[int, ...], affine: np.ndarray) -> GridImage:
    """A channel of `make_head` as another scan shows it, after the head was moved by `moved` (4 x 4, mm)."""
    to_first = np.linalg.inv(AFFINE) @ np.linalg.inv(moved) @ affine
    made = ndimage.affine_transform(voxels.astype(np.float32), to_first[:3, :3], to_first[:3, 3], shape, order=1)
    return GridImage(np.rint(made).astype(np.int16), affine)


GRIDS = {  # shape and affine: LPS as the head; RAS; axes permuted; oblique; slices thicker than wide
    "T1": ((52, 52, 52), AFFINE),
    "T1c": ((58, 58, 58), np.array([[4.5, 0, 0, -130], [0, 4.5, 0, -130], [0, 0, 4.5, -130], [0, 0, 0, 1]])),
    "T2": ((52, 52, 52), np.array([[0, 0, 5.0, -128], [-5.0, 0, 0, 128], [0, 5.0, 0, -128], [0, 0, 0, 1]])),
    "FLAIR": (
        (60, 60, 42),
        rigid_matrix((8, -5, 10), (0, 0, 0))
        @ np.array([[-4.5, 0, 0, 135], [0, -4.5, 0, 135], [0, 0, 6.5, -135], [0, 0, 0, 1]]),
    ),
}
MOVES = {
    "T1": rigid_matrix((4, -3, 5), (6, -4, 3)),
    "T1c": np.eye(4),
    "T2": rigid_matrix((-5, 2, -6), (-7, 5, 4)),
    "FLAIR": rigid_matrix((3, 4, -4), (3, 8, -5)),
}


def scan_head(seed: int = 0) -> dict[str, GridImage]:
    """The four channels of a head on four grids, the head in another position in each."""
    channels, _ = make_head(seed)
    return {name: scan_again(channels[name], MOVES[name], *GRIDS[name]) for name in channels}


def write_head(folder: Path, scans: Mapping[str, GridImage], case: str) -> Path:
    """Write scans as a patient in the layout of BraTS 2021."""
    endings = {"T1": "t1", "T1c": "t1ce", "T2": "t2", "FLAIR": "flair"}
    for name, scan in scans.items():
        save_nifti(folder / case / f"{case}_{endings[name]}.nii.gz", scan.voxels, scan.affine)
    return folder
