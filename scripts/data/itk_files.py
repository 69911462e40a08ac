"""NRRD and MetaImage files (`.nrrd`, `.mha`), read by SimpleITK; masks of them are written as NIfTI.

ITK's axes run to the left and back (LPS); affines here run to the right and front (RAS), as those of NIfTI.
"""

import os
import re
from pathlib import Path

import numpy as np

from scripts.data.nifti import SIDES_UNKNOWN, NiftiFile, require_box
from scripts.errors import InputError

SUFFIXES = (".nrrd", ".mha")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
HEADER_BYTES = 65536  # of a file, among which the fields of its header are looked for


def is_itk_file(name: str | os.PathLike) -> bool:
    """Whether this is the name of an NRRD or MetaImage file."""
    return Path(name).name.lower().endswith(SUFFIXES)


def read_itk_file(path: str | os.PathLike) -> NiftiFile:
    """The voxels [H, W, D], or [H, W, D, channels], and the affine (mm, RAS) of a file, which is read to its end.

    Raises:
        InputError: the file is missing, damaged or truncated, has other axes, no real numbers, voxels that are not
            boxes, or no size of a voxel in mm.
    """
    import SimpleITK

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} cannot be read as an image (it does not exist): check the path.")
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split()).rpartition("ERROR: ")[2].removeprefix("Unable to ")[:120]
        raise InputError(f"{path} cannot be read as an image ({reason}): it may be damaged; copy it again.") from error
    _require_voxel_size(path)
    array = SimpleITK.GetArrayFromImage(image)
    several = image.GetNumberOfComponentsPerPixel() > 1  # channels, the last axis here as in NIfTI
    voxels = np.moveaxis(array.T, 0, -1) if several else array.T
    axes = image.GetDimension()
    if axes not in (3, 4) or voxels.ndim > 4 or voxels.dtype.kind not in "buif":
        raise InputError(
            f"{path} has {axes} axes of {voxels.dtype}: expected a volume [H, W, D] of plain numbers, with its channels"
            " last where there are several; export it again."
        )
    spacing = np.array(image.GetSpacing())[:3]
    turned = np.array(image.GetDirection()).reshape(axes, axes)[:3, :3] * spacing
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turned, image.GetOrigin()[:3]
    affine = LPS_TO_RAS @ affine
    require_box(path, "directions", affine)
    unknown = path.suffix.lower() == ".nrrd" and not image.HasMetaDataKey("NRRD_space")
    notes = (f"the header names no space, so that {SIDES_UNKNOWN}",) if unknown else ()
    return NiftiFile(voxels, affine, notes)


def _require_voxel_size(path: Path) -> None:
    """Raise `InputError` where the header has no size of a voxel, for which ITK takes 1, or not in mm."""
    with path.open("rb") as stream:
        head = stream.read(HEADER_BYTES).replace(b"\r", b"").partition(b"\n\n")[0].decode("latin-1").lower()
    nrrd = path.suffix.lower() == ".nrrd"
    fields = r"^(?:space directions|spacings):" if nrrd else r"^element(?:spacing|size)\s*="
    if not re.search(fields, head, re.MULTILINE):
        raise InputError(f"{path} has no size of a voxel in its header: export it again with its spacing in mm.")
    units = re.search(r"^space units:(.*)$", head, re.MULTILINE) if nrrd else None
    if other := {*re.findall(r'"([^"]*)"', units[1])} - {"", "mm"} if units else set():
        raise InputError(f"{path} has the unit {min(other)} in its header: export it again with its spacing in mm.")
