"""A synthetic patient over time: the tumour grows, a lesion appears, and the head lies in another place."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage

from bundle.cohort.phantom_anatomy import CHANNELS, ED, ET, make_patient
from tests.made import save_nifti
from tests.made.head import rigid_matrix

ENDINGS = {"T1": "t1", "T1c": "t1ce", "T2": "t2", "FLAIR": "flair"}
DEEP_MM = 14.0  # from the border of the brain, where a lesion is added
MOVES = (
    rigid_matrix((0, 0, 0), (0, 0, 0)),
    rigid_matrix((4, -3, 6), (5, -4, 3)),
    rigid_matrix((-5, 2, -4), (-6, 5, 4)),
)


class Visit(NamedTuple):
    """A scan of the patient: channels and label [H, W, D], affine, and where the head was moved (4 x 4, mm)."""

    channels: dict[str, np.ndarray]
    label: np.ndarray
    affine: np.ndarray
    moved: np.ndarray


def make_visit(
    seed: int, growth: int = 0, move: int = 0, added_mm: float = 0.0, size: int = 64, kind: str = "small"
) -> Visit:
    """One scan of the patient of a seed.

    Args:
        seed: of the patient.
        growth: how often the radius of the tumour has grown by a quarter.
        move: number of the position of the head in `MOVES`.
        added_mm: radius of a further lesion, of oedema with an enhancing core, on the other side; 0: none.
        size: voxels per side, of 192 mm together.
        kind: of the patient.
    """
    mm = 192 / size
    images, label = make_patient(np.random.default_rng(seed), size, mm, 3, kind, growth)
    half = mm * (size - 1) / 2
    affine = nib.affines.from_matvec(np.diag([-mm, -mm, mm]), [half, half, -half])
    if added_mm:
        images, label = _add_lesion(images, label, added_place(seed, size, kind), mm, added_mm)
    back = np.linalg.inv(affine) @ np.linalg.inv(MOVES[move]) @ affine

    def scan(voxels: np.ndarray, order: int) -> np.ndarray:
        return ndimage.affine_transform(voxels, back[:3, :3], back[:3, 3], order=order)

    brain = scan((images[0] > 0).astype(np.uint8), 0) > 0
    channels = {
        name: np.where(brain, np.maximum(np.rint(scan(image, 1)), 1), 0).astype(np.int16)
        for name, image in zip(CHANNELS, images, strict=True)
    }
    return Visit(channels, np.where(brain, scan(label, 0), 0).astype(np.uint8), affine, MOVES[move])


def added_place(seed: int, size: int = 64, kind: str = "small") -> np.ndarray:
    """The voxel at the centre of the added lesion: deep in the brain, as far as possible from the largest tumour."""
    mm = 192 / size
    images, label = make_patient(np.random.default_rng(seed), size, mm, 3, kind, 2)
    deep = ndimage.distance_transform_edt(images[0] > 0) * mm > DEEP_MM
    away = ndimage.distance_transform_edt(label == 0)
    return np.array(np.unravel_index(np.argmax(np.where(deep, away, 0)), label.shape))


def write_visit(folder: Path, visit: Visit, case: str = "scan", label: bool = False) -> Path:
    """Write a scan as a patient of BraTS 2021, and its label if wanted."""
    for name, voxels in visit.channels.items():
        save_nifti(folder / f"{case}_{ENDINGS[name]}.nii.gz", voxels, visit.affine)
    if label:
        save_nifti(folder / f"{case}_seg.nii.gz", visit.label, visit.affine)
    return folder


def _add_lesion(
    images: np.ndarray, label: np.ndarray, place: np.ndarray, mm: float, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Paint a ball of oedema and an enhancing core of half its radius, with the intensities of the patient's tumour."""
    images, label = images.copy(), label.copy()
    away = np.linalg.norm(np.indices(label.shape) - place.reshape(3, 1, 1, 1), axis=0) * mm
    rng = np.random.default_rng(0)
    means = {value: images[:, label == value].mean(axis=1) for value in (ED, ET)}
    for value, ball in ((ED, away < radius), (ET, away < radius / 2)):
        noise = 1 + 0.05 * rng.standard_normal((len(images), np.count_nonzero(ball)))
        images[:, ball] = np.maximum(means[value][:, None] * noise, 1)
        label[ball] = value
    return images, label
