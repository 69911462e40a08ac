"""Real scans of one brain and of two, by the check of `follow`; sizes after a move. docs/follow.md has all five.

FOLLOW_SCANS=5 python -m pytest -s tests/end_to_end/test_follow_real.py
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from bundle.followup.alignment import SAME_BRAIN, Anatomy, align, find_anatomy
from bundle.raw.volumes import resample, to_itk, to_voxels
from scripts.data.images import GridImage, read_image
from scripts.errors import InputError
from scripts.scoring.measures import measure_lesions_of, turn_to_patient
from tests.end_to_end.test_raw_accuracy import displaced

SCANS = int(os.environ.get("FOLLOW_SCANS", "2"))
pytestmark = pytest.mark.slow(reason="a registration of whole scans takes seconds, and there are several")


def read_glioma(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """T1c and FLAIR of a skull-stripped scan, 0 outside, and their affine."""
    brain = read_image(folder / "brainmask.nii.gz").voxels > 0
    images = {name: read_image(folder / f"{name}_subtrMeanDivStd.nii.gz") for name in ("T1c", "Flair")}
    shown = {name: np.where(brain, one.voxels - one.voxels.min(), 0).astype(np.float32) for name, one in images.items()}
    return shown, images["T1c"].affine


def random_move(image: sitk.Image, seed: int) -> sitk.Euler3DTransform:
    """A displacement by up to 12 degrees and 15 mm on each axis, about the centre of a scan."""
    rng, moved = np.random.default_rng(seed), sitk.Euler3DTransform()
    moved.SetCenter(image.TransformContinuousIndexToPhysicalPoint(np.divide(image.GetSize(), 2).tolist()))
    moved.SetParameters([*np.radians(rng.uniform(-12, 12, 3)), *rng.uniform(-15, 15, 3)])
    return moved


def scan_again(channels: dict[str, np.ndarray], affine: np.ndarray, seed: int) -> Anatomy:
    """The same brain in another position, with slices of 4 mm and noise of 5 % of the mean."""
    rng, scans = np.random.default_rng(seed), {}
    moved = random_move(to_itk(GridImage(channels["T1c"], affine)), seed)
    for name, voxels in channels.items():
        scan = displaced(to_itk(GridImage(voxels, affine)), moved, np.array(moved.GetCenter()))
        inside = scan.voxels > 0
        noise = 0.05 * scan.voxels[inside].mean() * rng.standard_normal(scan.voxels.shape)
        scans[name] = np.where(inside, np.maximum(scan.voxels + noise, 1e-3), 0).astype(np.float32)
    return find_anatomy(scans, scan.affine, "T1c")


def read_gliomas(folder: Path) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    return [read_glioma(one) for one in sorted(folder.glob("*/brats*"))[:SCANS]]


def test_a_brain_scanned_again_is_the_same(shared_data):
    peaks = [
        align(find_anatomy(*own, "T1c"), scan_again(*own, seed), ("first", "again")).peak
        for seed, own in enumerate(read_gliomas(shared_data("brats2015")))
    ]
    print(f"\nthe same brain: n {len(peaks)}, peaks {np.round(peaks, 2)}")
    assert min(peaks) > SAME_BRAIN


def test_two_brains_are_not_the_same(shared_data):
    anatomies = [find_anatomy(*own, "T1c") for own in read_gliomas(shared_data("brats2015"))]
    found, refused = [], 0
    for one, other in itertools.combinations(anatomies, 2):
        try:
            found.append(align(one, other, ("one", "other"), least=0.0).peak)
        except InputError:
            refused += 1
    print(f"\ntwo brains: n {len(found)}, peaks {np.round(found, 2)}; {refused} refused by the registration")
    assert max(found, default=0) < SAME_BRAIN


def test_volumes_do_not_depend_on_the_position_of_the_head(shared_data):
    changes = []
    for seed, folder in enumerate(sorted(shared_data("brats2015").glob("*/brats*"))[:SCANS]):
        label = read_image(folder / "OTMultiClass.nii.gz")
        image = to_itk(GridImage((label.voxels > 0).astype(np.uint8), label.affine))
        moved = to_voxels(resample(image, image, random_move(image, seed))) > 0
        sizes = []
        for mask in (label.voxels > 0, moved):
            turned = turn_to_patient(mask, label.affine)
            largest = measure_lesions_of(turned.voxels, turned.affine, None, None)[0]
            product = largest["diameter_mm"] * largest["perpendicular_mm"]
            sizes.append([largest["volume_ml"], largest["diameter_mm"], product])
        changes.append(100 * (np.divide(*sizes[::-1]) - 1))
    print(f"\nvolume, diameter, product of a displaced label, % (n {len(changes)}):\n{np.round(changes, 1)}")
    assert np.abs(changes)[:, 0].max() < 2
