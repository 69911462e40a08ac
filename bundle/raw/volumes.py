"""Volumes for SimpleITK: conversion, resampling, coarser copies, the head in a scan.

Arrays are [H, W, D] with an affine (4 x 4, mm, RAS), as everywhere here; ITK's points run to the left and back (LPS).
"""

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from scripts.data.brain_masks import background_value, find_brain
from scripts.data.channel_checks import HEAD_ML
from scripts.data.images import GridImage, voxel_size
from scripts.data.itk_files import LPS_TO_RAS

HEAD_MM = 3.0  # the head is found on a grid about this wide
CLOSED_MM = 12.0  # gaps of the head that are closed: the skull is as dark as air


def to_itk(image: GridImage) -> sitk.Image:
    """The same volume [H, W, D] as an image of SimpleITK."""
    assert image.affine is not None
    made = sitk.GetImageFromArray(np.ascontiguousarray(image.voxels.T))
    lps = LPS_TO_RAS @ image.affine
    spacing = nib.affines.voxel_sizes(lps)
    made.SetSpacing([float(size) for size in spacing])
    made.SetOrigin([float(place) for place in lps[:3, 3]])
    made.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return made


def to_voxels(image: sitk.Image) -> np.ndarray:
    """The voxels [H, W, D] of an image of SimpleITK."""
    return sitk.GetArrayFromImage(image).T


def resample(moving: sitk.Image, grid: sitk.Image, transform: sitk.Transform | None = None) -> sitk.Image:
    """An image on the grid of another one, 0 outside its field of view; a mask (uint8) by its nearest voxels.

    Args:
        moving: the image.
        grid: the image with the wanted grid.
        transform: from points of `grid` to points of `moving`; by default both are in one space.
    """
    kind = sitk.sitkNearestNeighbor if moving.GetPixelID() == sitk.sitkUInt8 else sitk.sitkLinear
    return sitk.Resample(moving, grid, transform or sitk.Transform(), kind, 0.0)


def coarsen(image: sitk.Image, mm: float) -> sitk.Image:
    """The means of blocks of voxels, about `mm` wide along each axis; axes with larger voxels stay."""
    factors = [max(1, round(mm / size)) for size in image.GetSpacing()]
    factors = [min(factor, max(1, count // 4)) for factor, count in zip(factors, image.GetSize(), strict=True)]
    return sitk.BinShrink(image, factors)


def find_head(image: GridImage) -> sitk.Image:
    """The mask of the head, or of a brain without its skull, on a grid about 3 mm wide: holes and gaps are filled."""
    steps = [max(1, int(HEAD_MM / size)) for size in image.spacing(3)]
    coarse = image.voxels[tuple(slice(None, None, step) for step in steps)].astype(np.float32)
    assert image.affine is not None
    affine = image.affine @ np.diag([*steps, 1.0])
    sizes = nib.affines.voxel_sizes(affine)
    outside, flat = background_value(image.voxels)
    mask, stripped = find_brain(coarse, outside, flat)
    if stripped and np.count_nonzero(mask) * voxel_size(sizes) / 1000 > HEAD_ML:  # its air has one value
        mask, stripped = find_brain(coarse, outside, flat=0.0)
    if not stripped and not mask.all():
        around = [int(CLOSED_MM / size) + 1 for size in sizes]  # or closing would erode the head at the borders
        padded = np.pad(mask, [(width, width) for width in around])
        near = ndimage.distance_transform_edt(~padded, sizes) <= CLOSED_MM / 2
        closed = ndimage.distance_transform_edt(near, sizes) > CLOSED_MM / 2
        inner = tuple(slice(width, -width) for width in around)
        mask = mask | closed[inner]
    mask = ndimage.binary_fill_holes(mask)
    return to_itk(GridImage(mask.astype(np.uint8), affine))
