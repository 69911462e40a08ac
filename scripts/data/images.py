"""NIfTI files and pictures: reading, writing, reorienting and comparing grids.

All reading goes through `read_image` or `open_nifti`, which read a file to its end, so that a damaged one is noticed;
all writing through `write_image` or `write_like`. Voxels are arrays [H, W, D] or [H, W] in the file's own axis order;
`affine` (4 x 4) is in mm. Pictures (`scripts.data.pictures`) are [x, y] and have no affine.
"""

import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage

from scripts.data import pictures
from scripts.errors import InputError
from scripts.files import atomic_write

try:
    from isal import igzip as gzip  # three times as fast at reading, twelve times at writing
except ImportError:  # as in MONAI Label's environment
    import gzip  # type: ignore[no-redef]

NIFTI = (".nii", ".nii.gz")
ROUNDING = 1e-3  # a label of 0.99999997 is a 1 that was saved as float; one of 0.5 is from an interpolated mask
SAME_GRID = 0.1  # of a voxel's shortest side: converters round headers, and no segmentation is that exact
PICTURE_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])  # the affine of a picture, which runs to the right and down


class GridImage(NamedTuple):
    """An image on its grid: voxels in the file's axis order, and the affine (4 x 4) if the format has one."""

    voxels: np.ndarray
    affine: np.ndarray | None

    def spacing(self, axes: int) -> tuple[float, ...]:
        """The size of a voxel along each of the first axes, in mm; 1 if the format has none."""
        if self.affine is None:
            return (1.0,) * axes
        # rounded, because an affine stored in float32 gives 0.99999994 for 1
        return tuple(float(size) for size in np.round(nib.affines.voxel_sizes(self.affine), 5)[:axes])


# ---- reading -------------------------------------------------------------------------------------------------------


def open_nifti(path: str | os.PathLike) -> nib.Nifti1Image:
    """A NIfTI file, read to its end, so that the checksum after the last voxel is verified.

    Raises:
        InputError: the file is missing, truncated, damaged or not NIfTI.
    """
    return _decode_nifti(Path(path), _content(Path(path)))


def read_image(path: str | os.PathLike) -> GridImage:
    """The image in a NIfTI file, a picture or a page of one, without axes of length one at the end.

    Raises:
        InputError: the file is missing, damaged, a colour picture, or a stack of pictures.
    """
    if not is_nifti(path):
        return GridImage(_read_grey(path), None)
    image = open_nifti(path)
    voxels = np.asanyarray(image.dataobj)
    while voxels.ndim > 2 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    return GridImage(voxels, image.affine)


def read_stored(path: str | os.PathLike) -> tuple[GridImage, str]:
    """An image as stored, with all its axes and colours, and the sha256 of its file.

    Raises:
        InputError: the file cannot be opened, is of an unknown kind, is damaged or truncated.
    """
    path = Path(path)
    file = pictures.file_of_page(path)
    if not file.name.lower().endswith((*NIFTI, *pictures.PICTURES)):
        raise InputError(f"{path} is not a {' or '.join((*NIFTI, *pictures.PICTURES))} file: convert it.")
    if not is_nifti(file):
        return GridImage(pictures.read_picture(path), None), _sha256(file, file.stat().st_mtime_ns)
    content = _content(file)
    sha256 = hashlib.sha256(content).hexdigest()
    image = _decode_nifti(path, content)
    return GridImage(np.asanyarray(image.dataobj), image.affine), sha256


def read_labels(path: str | os.PathLike, known: Iterable[int], rename: Mapping[int, int] | None = None) -> GridImage:
    """Read a label map and check its values.

    Args:
        path: the file.
        known: the values allowed in it besides 0.
        rename: value in the file to value of the scheme.

    Raises:
        InputError: the file cannot be read, or holds values that are not whole numbers or not in the scheme.
    """
    image = read_image(path)
    voxels = to_integer_labels(image.voxels, path) if image.voxels.dtype.kind == "f" else image.voxels
    known, rename = {0, *known}, rename or {}
    values = pd.unique(voxels.ravel(order="K")).tolist()
    if unknown := sorted(value for value in values if rename.get(value, value) not in known):
        raise InputError(
            f"{path} holds the label{'s' * (len(unknown) > 1)} {', '.join(map(str, unknown))}: the scheme has"
            f' {", ".join(map(str, sorted(known)))}; map them with --labels "{unknown[0]}={max(known)}".'
        )
    renamed = voxels.astype(np.min_scalar_type(max(known)))
    for old, new in rename.items():
        renamed[voxels == old] = new
    return GridImage(renamed, image.affine)


def to_integer_labels(voxels: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    """The labels of a float file as int32.

    Raises:
        InputError: a value is further than `ROUNDING` from a whole number, or NaN.
    """
    whole = np.rint(voxels)
    off = ~(np.abs(voxels - whole) <= ROUNDING)  # includes NaN
    if off.any():
        raise InputError(
            f"{path} holds the label {voxels[off][0]:g}: labels must be whole numbers; save the label map instead of"
            " probabilities, and resample it with nearest neighbour."
        )
    return whole.astype(np.int32)


def is_nifti(name: str | os.PathLike) -> bool:
    """Whether this is the name of a NIfTI file."""
    return Path(name).name.lower().endswith(NIFTI)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{file} cannot be read as an image (it does not exist): check the path.") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read as an image ({error.strerror}): copy it again.") from error


@lru_cache(maxsize=2)  # a stack and its label are read for each of their pages
def _sha256(file: Path, changed: int) -> str:
    return hashlib.sha256(_content(file)).hexdigest()


def _decode_nifti(path: Path, content: bytes) -> nib.Nifti1Image:
    try:
        raw = gzip.decompress(content) if path.name.lower().endswith(".gz") else content
        kind = nib.Nifti2Image if raw[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image
        image = kind.from_bytes(raw)
        return kind(np.asanyarray(image.dataobj), image.affine, image.header)
    except Exception as error:  # gzip, isal and nibabel each have their own errors for a damaged file
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        if isinstance(error, EOFError):
            reason = "it is truncated, its compressed data end too early"
        raise InputError(f"{path} cannot be read as an image ({reason}): it may be damaged; copy it again.") from error


def _read_grey(path: str | os.PathLike) -> np.ndarray:
    file = pictures.file_of_page(path)
    if file == Path(path) and (number := pictures.count_pages(file)) > 1:
        raise InputError(f"{path} holds {number} pages: give one file per case, or name the page as {file.name}#0.")
    array = pictures.to_grey(pictures.read_picture(path))
    if array.ndim != 2:
        raise InputError(f"{path} is a colour picture: a label map has one value per pixel; save it in grey.")
    return array


# ---- writing -------------------------------------------------------------------------------------------------------


def write_image(path: str | os.PathLike, image: nib.Nifti1Image) -> None:
    """Write a NIfTI image, whole or not at all; compressed if the name ends in .gz.

    Raises:
        InputError: the file cannot be written.
    """
    raw = image.to_bytes()
    with atomic_write(path) as temporary:
        temporary.write_bytes(gzip.compress(raw, mtime=0) if Path(path).name.endswith(".gz") else raw)


def write_like(path: Path, voxels: np.ndarray, like: str | os.PathLike) -> None:
    """Write voxels on the grid of another file: a NIfTI file, or a picture if `path` ends like one.

    Args:
        path: the file to write.
        voxels: [H, W, D, ...] or, for pictures, [x, y].
        like: the file whose affine, codes and units are kept; a picture has none.
    """
    if pictures.is_picture(path):
        pictures.write_picture(path, voxels)
        return
    if pictures.is_picture(like):
        write_image(path, nib.Nifti1Image(voxels, np.eye(4)))
        return
    source = nib.load(like)  # the header alone: the voxels were read and checked before
    assert isinstance(source, nib.Nifti1Image)
    image = nib.Nifti1Image(voxels, source.affine)
    image.header.set_xyzt_units(*source.header.get_xyzt_units())
    image.set_qform(source.affine, int(source.header["qform_code"]))
    image.set_sform(source.affine, int(source.header["sform_code"]))
    write_image(path, image)


# ---- grids ---------------------------------------------------------------------------------------------------------


def same_grid(one: GridImage, other: GridImage) -> bool:
    """Whether two images have the same shape, and corners within `SAME_GRID` of a voxel of each other."""
    if one.voxels.shape != other.voxels.shape:
        return False
    if one.affine is None or other.affine is None:
        return True
    return corner_distance(one.voxels.shape, one.affine, other.affine) <= grid_tolerance(one.affine)


def grid_tolerance(affine: np.ndarray) -> float:
    """The largest distance (mm) between the corners of two images that count as on one grid."""
    return SAME_GRID * float(nib.affines.voxel_sizes(affine).min())


def corner_distance(shape: Sequence[int], one: np.ndarray, other: np.ndarray) -> float:
    """The largest distance (mm) between the corners of an image of this shape under two affines."""
    corners = np.array(list(itertools.product(*((0, size - 1) for size in (*shape, 1, 1)[:3]))))
    there, here = (nib.affines.apply_affine(affine, corners) for affine in (one, other))
    return float(np.linalg.norm(there - here, axis=1).max())


def grid_difference(truth: GridImage, prediction: GridImage) -> str:
    """How the grid of the prediction differs from the label's, in words; "" if it does not."""
    if truth.voxels.shape != prediction.voxels.shape:
        shapes = (" x ".join(map(str, image.voxels.shape)) for image in (prediction, truth))
        return f"shape {next(shapes)} where the label has {next(shapes)}"
    if truth.affine is None or prediction.affine is None or same_grid(truth, prediction):
        return ""
    both, axes = (prediction, truth), truth.voxels.ndim
    for what, (here, there) in {
        "axes that run to": ["".join(nib.aff2axcodes(image.affine)[:axes]) for image in both],
        "voxels of": [" x ".join(f"{size:g}" for size in image.spacing(axes)) + " mm" for image in both],
    }.items():
        if here != there:
            return f"{what} {here} where the label has {there}"
    apart = corner_distance(truth.voxels.shape, truth.affine, prediction.affine)
    return f"an affine that differs from the label's by up to {apart:.3g} mm"


def resample_labels(prediction: GridImage, truth: GridImage) -> GridImage:
    """The prediction on the grid of the label, by nearest neighbour.

    Raises:
        InputError: one of them has no affine, so that its position is unknown.
    """
    from nibabel.processing import resample_from_to

    if prediction.affine is None or truth.affine is None:
        raise InputError("a picture has no position in space to be resampled from: save it on the label's grid.")
    moved = resample_from_to(
        nib.Nifti1Image(prediction.voxels, prediction.affine), (truth.voxels.shape, truth.affine), order=0
    )
    return GridImage(np.asanyarray(moved.dataobj), truth.affine)


def to_ras(voxels: np.ndarray, affine: np.ndarray | None) -> np.ndarray:
    """Voxels [H, W, D] or [H, W] with axes that run to the patient's right, front and top; a picture as displayed."""
    turn = nib.io_orientation(PICTURE_AFFINE if affine is None else affine)
    return nib.apply_orientation(voxels, turn[: voxels.ndim])


def ras_spacing(image: GridImage, axes: int) -> tuple[float, ...]:
    """The size of a voxel along each axis of `to_ras`, in mm; 1 if the format has none."""
    turn = nib.io_orientation(PICTURE_AFFINE if image.affine is None else image.affine)[:axes]
    return tuple(image.spacing(axes)[axis] for axis in np.argsort(turn[:, 0]))


# ---- masks ---------------------------------------------------------------------------------------------------------


def bounding_box(mask: np.ndarray, margin: Sequence[int]) -> tuple[slice, ...]:
    """The smallest box around a mask, grown by `margin` voxels within the image; the whole image for an empty mask."""
    slices = []
    for axis, grow in enumerate(margin):
        there = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not there.size:
            return (slice(None),) * mask.ndim
        slices.append(slice(max(int(there[0]) - grow, 0), int(there[-1]) + grow + 1))
    return tuple(slices)


def connected_components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The connected components of a mask, diagonal neighbours included.

    Returns:
        the numbered components (0 outside the mask) and their sizes in voxels, from component 1 on.
    """
    numbered, count = ndimage.label(mask, structure=np.ones([3] * mask.ndim))
    return numbered, np.bincount(numbered.ravel(), minlength=count + 1)[1:]


def voxel_ml(image: Any) -> float:
    """The volume of one voxel in ml, from the affine of a `MetaTensor`; 0.001 for a pixel, whose size is unknown."""
    return float(np.prod(np.asarray(image.pixdim))) / 1000 if hasattr(image, "pixdim") else 0.001
