"""Which file is the prediction of a case, and does it lie on the label's grid? Finds and reads label maps, 3D and 2D.

A file belongs to case X when its name without the ending is X, or X followed by `_`, `-` or `.` and one of `SUFFIXES`
(X.nii.gz, X_pred.nii.gz, X-seg.nii.gz, X_mask.png), at any depth; or when it is the only image in a folder named X.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd

from scripts.data import pictures
from scripts.data.case_files import NIFTI
from scripts.errors import InputError

PICTURES = (".png", *pictures.TIFF)
SUFFIXES = ("pred", "prediction", "seg", "segmentation", "mask", "label", "labels", "output")
PROBABILITY_SUFFIXES = ("prob", "probs", "probability", "probabilities")
AFFINE_TOLERANCE = 1e-3  # mm; scanners and converters round the header to about this
ROUNDING = 1e-3  # a label of 0.99999997 is 1 that went through a float file; a label of 0.5 is an interpolated mask


class GridImage(NamedTuple):
    """An image on its grid: voxels in the file's axis order, and the affine (4 x 4) where the format has one."""

    voxels: np.ndarray
    affine: np.ndarray | None

    def spacing(self, axes: int) -> tuple[float, ...]:
        """The size of a voxel along each of the first axes, in mm; 1 where the format has none."""
        if self.affine is None:
            return (1.0,) * axes
        # rounded, because an affine stored in float32 gives 0.99999994 for 1
        return tuple(float(size) for size in np.round(nib.affines.voxel_sizes(self.affine), 5)[:axes])


def images_in(folder: str | os.PathLike) -> list[Path]:
    """Every image under a folder, without the probabilities that lie in a folder of that name (`PROBABILITY_SUFFIXES`).

    Raises:
        InputError: the folder is missing or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that holds one image a case.")
    files = sorted(
        path
        for path in folder.rglob("*")
        if stem(path) is not None
        and not path.name.startswith(".")
        and path.is_file()
        and not {part.lower() for part in path.relative_to(folder).parts[:-1]}.intersection(PROBABILITY_SUFFIXES)
    )
    if not files:
        raise InputError(f"{folder} holds no image: expected one {', '.join((*NIFTI, *PICTURES))} file a case.")
    return files


def match(files: Iterable[Path], cases: Iterable[str], suffixes: Sequence[str] = SUFFIXES) -> dict[str, Path]:
    """The file of each case that has one, by the rule above.

    Raises:
        InputError: no case has a file, or two files claim the same case.
    """
    files, cases = list(files), list(cases)
    by_name, by_folder = defaultdict(set), defaultdict(set)
    ending = re.compile(rf"[_.-]({'|'.join(suffixes)})$", flags=re.IGNORECASE)
    for file in files:
        by_name[stem(file)].add(file)
        by_name[ending.sub("", stem(file))].add(file)
        by_folder[file.parent.name].add(file)
    found = {}
    for case in cases:
        claims = by_name.get(case) or (by_folder[case] if len(by_folder.get(case, ())) == 1 else set())
        if len(claims) > 1:
            raise InputError(f"case {case} has more than one file: {' and '.join(map(str, sorted(claims)))}; keep one.")
        found.update((case, file) for file in claims)
    if not found:
        raise InputError(
            f"no file is named after a case: expected {cases[0]}.nii.gz, {cases[0]}_{suffixes[0]}.nii.gz or the like,"
            f" found {nearest_names(cases[0], files)}; rename the files, or take the data list that they belong to."
        )
    return found


def find(files: Iterable[Path], entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The file of each case of a data list that has one; a case whose label is a page of a stack may have its
    prediction on the same page of the stack that is named after its volume.

    Raises:
        InputError: no case has a file, or two files claim the same case.
    """
    stacks = {
        entry["case"]: entry.get("volume", entry["patient"])
        for entry in entries
        if pictures.file_of(entry["label"]) != Path(entry["label"])
    }
    cases = [entry["case"] for entry in entries]
    found = match(files, [*cases, *sorted({*stacks.values()} - {*cases})])
    for entry in entries:
        case = entry["case"]
        if case not in found and stacks.get(case) in found:
            found[case] = pictures.page_of(found[stacks[case]], pictures.split(entry["label"])[1])
    return {case: str(found[case]) for case in cases if case in found}


def nearest_names(case: str, files: Iterable[Path]) -> str:
    """The names of up to three files that are most like a case's, for a message."""
    return ", ".join(difflib.get_close_matches(case, sorted({file.name for file in files}), n=3, cutoff=0))


def stem(path: Path) -> str | None:
    """The file's name without the ending of an image, None if it has no such ending."""
    for suffix in sorted((*NIFTI, *PICTURES), key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return None


def read_image(path: str | os.PathLike) -> GridImage:
    """The image in a NIfTI file, a picture or a page of one, without axes of length one at the end.

    Pictures come as [x, y] and have no affine.

    Raises:
        InputError: the file is missing, damaged, a picture with different colours, or a stack of pictures.
    """
    if not Path(path).name.lower().endswith(NIFTI):
        return GridImage(_read_picture(path), None)
    try:
        image = nib.load(path)
        voxels = np.asanyarray(image.dataobj)
    except Exception as error:  # each reader has its own set of errors for a damaged file
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path} cannot be read as an image ({reason[:200]}): it may be damaged; copy it again."
        ) from error
    while voxels.ndim > 2 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    return GridImage(voxels, image.affine)


def read_labels(path: str | os.PathLike, known: Iterable[int], rename: Mapping[int, int] | None = None) -> GridImage:
    """A label map, its values checked.

    Args:
        path: the file.
        known: the values that may stand in it besides 0.
        rename: value in the file to value of the scheme.

    Raises:
        InputError: the file cannot be read, or holds values that are not whole numbers or not known.
    """
    image = read_image(path)
    voxels = image.voxels
    if voxels.dtype.kind == "f":
        voxels = _whole(voxels, path)
    known, rename = {0, *known}, rename or {}
    values = pd.unique(voxels.ravel(order="K")).tolist()
    if unknown := sorted(value for value in values if rename.get(value, value) not in known):
        raise InputError(
            f"{path} holds the label{'s' * (len(unknown) > 1)} {', '.join(map(str, unknown))}: the scheme has"
            f' {", ".join(map(str, sorted(known)))}; say what they mean with --labels "{unknown[0]}={max(known)}".'
        )
    renamed = voxels.astype(np.min_scalar_type(max(known)))
    for old, new in rename.items():
        renamed[voxels == old] = new
    return GridImage(renamed, image.affine)


def grid_difference(truth: GridImage, prediction: GridImage) -> str:
    """How the grid of the prediction differs from the label's, in words; "" if it does not."""
    if truth.voxels.shape != prediction.voxels.shape:
        return f"shape {_shape(prediction)} where the label has {_shape(truth)}"
    if truth.affine is None or prediction.affine is None:
        return ""
    off = np.abs(truth.affine - prediction.affine).max()
    if off <= AFFINE_TOLERANCE:
        return ""
    both, axes = (prediction, truth), truth.voxels.ndim
    for what, (here, there) in {
        "axes that run to": ["".join(nib.aff2axcodes(image.affine)[:axes]) for image in both],
        "voxels of": [" x ".join(f"{size:g}" for size in image.spacing(axes)) + " mm" for image in both],
    }.items():
        if here != there:
            return f"{what} {here} where the label has {there}"
    return f"an affine that differs from the label's by up to {off:.3g} mm"


def onto_grid(prediction: GridImage, truth: GridImage) -> GridImage:
    """The prediction on the grid of the label, by nearest neighbour.

    Raises:
        InputError: one of them has no affine, so that nobody knows where it lies.
    """
    from nibabel.processing import resample_from_to

    if prediction.affine is None or truth.affine is None:
        raise InputError("a picture has no place in space, so it cannot be resampled: save it on the label's grid.")
    moved = resample_from_to(
        nib.Nifti1Image(prediction.voxels, prediction.affine), (truth.voxels.shape, truth.affine), order=0
    )
    return GridImage(np.asanyarray(moved.dataobj), truth.affine)


def _read_picture(path: str | os.PathLike) -> np.ndarray:
    file = pictures.file_of(path)
    if file == Path(path) and (number := pictures.count(file)) > 1:
        raise InputError(f"{path} holds {number} pages: give one file a case, or name the page as {file.name}#0.")
    array = pictures.grey(pictures.read(path))
    if array.ndim != 2:
        raise InputError(f"{path} is a picture in colours: a label map has one value a pixel; save it in grey.")
    return array


def _whole(voxels: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    whole = np.rint(voxels)
    off = ~(np.abs(voxels - whole) <= ROUNDING)  # so that NaN is off too
    if off.any():
        raise InputError(
            f"{path} holds the label {voxels[off][0]:g}: labels must be whole numbers; save the label map instead of"
            " probabilities, and resample it with nearest neighbour."
        )
    return whole.astype(np.int32)


def _shape(image: GridImage) -> str:
    return " x ".join(map(str, image.voxels.shape))
