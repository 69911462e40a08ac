"""Rigid registration of a time point to the first one, and the check that both show the same brain.

Brains of two patients fit onto each other too: mutual information grows and their outlines overlap. What they do not
share is detail: the phase correlation of two scans of one brain (Kuglin and Hines 1975) has a sharp peak where they
fit, that of two brains has none.
"""

from collections.abc import Mapping
from typing import NamedTuple

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from scipy import fft, ndimage

from bundle.raw.registration import Registration, register_rigid
from bundle.raw.volumes import coarsen, find_head, resample, to_itk, to_voxels
from scripts.data.images import GridImage, bounding_box
from scripts.data.itk_files import LPS_TO_RAS
from scripts.errors import InputError

COARSE_MM = 3.0  # grid of the phase correlation
RIM_MM = 9.0  # of the brain, whose border is the same for any two
SMOOTHED = 0.7  # voxels
NEIGHBOURS = 1  # voxels of the coarse grid around where the scans lie, in which the peak may be
SAME_BRAIN = 0.25  # of the peak, at least; docs/follow.md has what was measured
ADVICE = "check that both are scans of one patient"


class Alignment(NamedTuple):
    """The position of a time point on the first one.

    Attributes:
        registration: from points of the first to points of this one.
        to_first: 4 x 4, from mm of this time point to mm of the first, RAS.
        peak: of the phase correlation with the first, 0 to 1.
    """

    registration: Registration
    to_first: np.ndarray
    peak: float


class Anatomy(NamedTuple):
    """What a time point is registered by.

    Attributes:
        scan: the channel that is registered.
        head: its head, or brain.
        coarse: all channels by name, on a coarse grid.
    """

    scan: sitk.Image
    head: sitk.Image
    coarse: dict[str, sitk.Image]


def find_anatomy(channels: Mapping[str, np.ndarray], affine: np.ndarray, reference: str) -> Anatomy:
    """What a time point is registered by.

    Args:
        channels: name to voxels [H, W, D], on one grid.
        affine: of the grid, 4 x 4.
        reference: name of the channel that is registered.
    """
    scans = {name: to_itk(GridImage(voxels.astype(np.float32), affine)) for name, voxels in channels.items()}
    head = find_head(GridImage(channels[reference], affine))
    return Anatomy(scans[reference], head, {name: coarsen(scan, COARSE_MM) for name, scan in scans.items()})


def align(first: Anatomy, other: Anatomy, names: tuple[str, str], least: float = SAME_BRAIN) -> Alignment:
    """Register a time point to the first.

    Args:
        first: which stays.
        other: which is moved.
        names: of both, for messages.
        least: peak of two scans of one brain.

    Raises:
        InputError: the registration fails its checks, or the two are not scans of one brain.
    """
    found = register_rigid(first.scan, other.scan, (first.head, other.head), names, ADVICE)
    peak = max(correlate_phases(first, other, name, found.transform) for name in first.coarse)
    if peak < least:
        raise InputError(
            f"{names[1]} does not show the brain of {names[0]}: after registration the highest peak of their phase"
            f" correlation is {peak:.2f}, less than {least:.2f}; {ADVICE}, and if you are sure, give --same_patient."
        )
    return Alignment(found, np.linalg.inv(to_matrix(found.transform)), peak)


def correlate_phases(first: Anatomy, other: Anatomy, channel: str, transform: sitk.Transform) -> float:
    """The peak of the phase correlation of a channel inside both brains, where they lie: 1 for a scan with itself."""
    grid, moved = first.coarse[channel], resample(other.coarse[channel], first.coarse[channel], transform)
    heads = [to_voxels(resample(first.head, grid)), to_voxels(resample(other.head, grid, transform))]
    rim = max(1, round(RIM_MM / float(np.median(grid.GetSpacing()))))
    inside = ndimage.binary_erosion(np.logical_and(*heads), iterations=rim)
    if not inside.any():
        return 0.0
    here = bounding_box(inside, [0] * 3)
    inside, spectra = inside[here], []
    for voxels in (to_voxels(grid)[here], to_voxels(moved)[here]):
        clipped = np.clip(voxels, *np.percentile(voxels[inside], [1, 99]))
        values = np.where(inside, clipped - clipped[inside].mean(), 0)
        spectra.append(fft.rfftn(ndimage.gaussian_filter(values, SMOOTHED)))
    cross = spectra[0] * spectra[1].conj()
    surface = fft.irfftn(cross / np.maximum(np.abs(cross), 1e-12), inside.shape)
    around = [np.arange(-NEIGHBOURS, NEIGHBOURS + 1) % size for size in inside.shape]
    return float(surface[np.ix_(*around)].max())


def to_matrix(transform: sitk.Euler3DTransform) -> np.ndarray:
    """A rigid transform as 4 x 4, from mm to mm, RAS."""
    turn, centre = np.array(transform.GetMatrix()).reshape(3, 3), np.array(transform.GetCenter())
    lps = nib.affines.from_matvec(turn, np.array(transform.GetTranslation()) + centre - turn @ centre)
    return LPS_TO_RAS @ lps @ LPS_TO_RAS
