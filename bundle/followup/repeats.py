"""How far repeated measurements of one tumour differ: each time point is segmented again, turned and shifted.

Only the part of the network and of the grid is measured so: another scanner, or another day, adds to it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from scipy import stats

from bundle.raw.volumes import resample, to_itk, to_voxels
from scripts.data.images import GridImage, write_nifti

TURN_DEGREES, SHIFT_MM = (4.0, -3.0, 5.0), (2.3, -1.7, 1.1)
SURE = 0.975  # quantile, of both sides together 95 %


def write_displaced(channels: Sequence[np.ndarray], affine: np.ndarray, folder: Path, case: str) -> list[str]:
    """Write the channels of a scan as if the head had been moved: linear interpolation, on the same grid.

    Args:
        channels: [H, W, D] each.
        affine: of the grid, 4 x 4.
        folder: where the files are written.
        case: begins their names.

    Returns:
        the file of each channel.
    """
    first = to_itk(GridImage(channels[0].astype(np.float32), affine))
    moved = sitk.Euler3DTransform()
    moved.SetCenter(first.TransformContinuousIndexToPhysicalPoint(np.divide(first.GetSize(), 2).tolist()))
    moved.SetParameters([*np.radians(TURN_DEGREES), *SHIFT_MM])
    files = []
    for place, voxels in enumerate(channels):
        image = to_itk(GridImage(voxels.astype(np.float32), affine))
        path = folder / f"{case}-{place}.nii"
        write_nifti(path, nib.Nifti1Image(to_voxels(resample(image, first, moved)), affine).to_bytes())
        files.append(str(path))
    return files


def summarise_repeats(pairs: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, Any]:
    """The smallest change of volume of each region that repeated measurements do not explain.

    From the root mean square of the logarithms of the ratios of both volumes, times the 97.5 % quantile of Student's t
    with as many degrees of freedom as there are pairs (the repeatability coefficient of Bland and Altman 1999, with few
    pairs).

    Args:
        pairs: of each time point, by region: the volume in ml, and that of the repetition.

    Returns:
        by region: `pairs`, in which both have a volume, `lost`, in which one of them has none, and the smallest
        increase and decrease in percent; None without a pair, and where a region was lost, which has no ratio.
    """
    found = {}
    for region in pairs[0] if pairs else ():
        logs = np.log([again / volume for volume, again in (own[region] for own in pairs) if volume > 0 and again > 0])
        lost = sum((volume > 0) != (again > 0) for volume, again in (own[region] for own in pairs))
        increase = decrease = None
        if logs.size and not lost:
            limit = float(stats.t.ppf(SURE, logs.size) * np.sqrt(np.mean(logs**2)))
            increase, decrease = (round(100 * float(np.expm1(sign * limit)), 1) + 0.0 for sign in (1, -1))
        found[region] = {
            "pairs": int(logs.size),
            "lost": lost,
            "smallest_increase_percent": increase,
            "smallest_decrease_percent": decrease,
        }
    return found
