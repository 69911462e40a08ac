"""Volumes of DICOM stacks: voxels with their affine, written as NIfTI for the network."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bundle.dicom.stacks import SliceStack, require_even_slices
from scripts.data.images import write_nifti
from scripts.errors import InputError

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # and back


def read_datasets(stack: SliceStack) -> list[Any]:
    """The files of a stack, with their pixels."""
    import pydicom

    return [pydicom.dcmread(path) for path in stack.files]


def read_stack(stack: SliceStack) -> tuple[np.ndarray, np.ndarray]:
    """The voxels [columns, rows, slices] of a stack, scaled by its header, and their affine (4 x 4, mm, RAS).

    Raises:
        InputError: slices are missing, doubled or unevenly spaced, or a file is damaged.
    """
    import highdicom

    require_even_slices(stack)
    try:
        datasets = read_datasets(stack)
        if "NumberOfFrames" in datasets[0]:
            volume = highdicom.Image.from_dataset(datasets[0]).get_volume(dtype=np.float32)
        else:
            volume = highdicom.get_volume_from_series(datasets, dtype=np.float32)
    except Exception as error:  # pydicom, highdicom and their decoders raise errors of many kinds
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"series {stack.name} cannot be read as a volume ({reason}): export it again.") from error
    return volume.array.transpose(2, 1, 0), RAS_TO_LPS @ volume.affine[:, [2, 1, 0, 3]]


def write_stack(stack: SliceStack, path: Path) -> None:
    """Write a stack as a NIfTI file; whole numbers stay whole numbers."""
    voxels, affine = read_stack(stack)
    small = np.abs(voxels).max(initial=0) < 2**15 and not (voxels % 1).any()
    write_nifti(path, nib.Nifti1Image(voxels.astype(np.int16) if small else voxels, affine).to_bytes())
