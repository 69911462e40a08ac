"""A brain mask from nilearn's copy of MNI152 (Fonov et al. 2009), registered to the scan by an affine map."""

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import product

import numpy as np
import SimpleITK as sitk

from bundle.raw.mutual_information import MutualInformation
from bundle.raw.volumes import resample, to_itk, to_voxels
from scripts.data.images import GridImage
from scripts.errors import InputError

MISSING = (
    "the brain mask needs the template of nilearn, which is not installed: pip install -r requirements-raw.txt, or give"
    " a mask by --brain_mask."
)
LICENCE = (
    "MNI ICBM152 nonlinear symmetric 2009a, as nilearn 0.14.1 has it (BSD-3-Clause). Copyright (C) 1993-2009 Louis"
    " Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill University: use, copies and"
    " changes are free where this notice is kept; no warranty"
)
RIM_MM = 5.0  # around the template's brain, in which it is compared: its border says how large it is
HEAD_LENGTH_MM = 130.0  # from the top of a head to the end of its brain
SHIFTS_MM, PITCHES_DEGREES = (-20.0, 0.0, 20.0), (-20.0, 0.0, 20.0)  # of the starts that are compared
CLIMBED = 6  # of the starts
START_MM, RIGID_MM, AFFINE_MM = (8.0,), (4.0,), (8.0, 4.0)  # levels


def require_template() -> None:
    """Raise `InputError` unless nilearn is installed."""
    if find_spec("nilearn") is None:
        raise InputError(MISSING)


def read_template() -> sitk.Image:
    """The T1 of MNI152 without its skull, 1 mm; 0 outside the brain."""
    require_template()
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=1)
    return to_itk(GridImage(np.asarray(image.dataobj, np.float32), image.affine))


def mask_by_template(scan: sitk.Image, head: sitk.Image) -> sitk.Image:
    """The brain mask (uint8) on the grid of a scan, of any contrast and orientation.

    Args:
        scan: the scan of a head.
        head: the mask of the head.
    """
    template = read_template()
    brain = sitk.BinaryFillhole(sitk.Cast(template > 0, sitk.sitkUInt8))
    near = sitk.BinaryDilate(brain, [round(RIM_MM)] * 3)
    information = MutualInformation(template, scan, near)
    starts = sorted(_starts(brain, head), key=information.measure)[-CLIMBED:]
    rigid = max((information.climb(start, START_MM) for start in starts), key=information.measure)
    rigid = information.climb(rigid, RIGID_MM)
    affine = sitk.AffineTransform(3)
    affine.SetCenter(rigid.GetCenter())
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    found = information.climb(affine, AFFINE_MM)
    soft = resample(sitk.Cast(brain, sitk.sitkFloat32), scan, found.GetInverse())
    return sitk.Cast(soft > 0.5, sitk.sitkUInt8)


def _starts(brain: sitk.Image, head: sitk.Image) -> Iterator[sitk.Euler3DTransform]:
    """Positions of the template's brain in the upper part of a head."""
    points = _points(head)
    top = np.percentile(points[:, 2], 99.9)
    middle = points[points[:, 2] > top - HEAD_LENGTH_MM].mean(0)
    centre = _points(brain).mean(0)
    for pitch, front, up in product(PITCHES_DEGREES, SHIFTS_MM, SHIFTS_MM):
        start = sitk.Euler3DTransform()
        start.SetCenter(centre)
        start.SetParameters([np.radians(pitch), 0.0, 0.0, *(middle - centre + [0.0, front, up])])
        yield start


def _points(mask: sitk.Image) -> np.ndarray:
    """The points [n, 3] of the voxels of a mask, in mm."""
    places = np.argwhere(to_voxels(mask)) * mask.GetSpacing()
    return places @ np.array(mask.GetDirection()).reshape(3, 3).T + mask.GetOrigin()
