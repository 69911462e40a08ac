"""NIfTI, NRRD and MetaImage files, pictures and files of tensors: reading, writing, reorienting and comparing grids.

All reading goes through `read_image`, `read_stored` or `scripts.data.nifti`, which read a file to its end, so that a
damaged one is noticed, and have one rule for its header; all writing goes through `write_like`. Voxels are arrays
[H, W, D] or [H, W] in the file's own axis order; `affine` (4 x 4) is in mm. Pictures (`scripts.data.pictures`) are
[x, y] and have no affine. A `.pt` file (`scripts.data.tensor_files`) has an image, a label or both.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage

from scripts.data import itk_files, nifti, pictures, tensor_files
from scripts.data.nifti import corner_distance, grid_tolerance
from scripts.errors import InputError
from scripts.files import atomic_write

NIFTI = nifti.SUFFIXES
ENDINGS = (*NIFTI, *itk_files.SUFFIXES, *pictures.PICTURES, tensor_files.SUFFIX)
ROUNDING = 1e-3  # a label of 0.99999997 is a 1 that was saved as float; one of 0.5 is from an interpolated mask
PICTURE_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])  # the affine of a picture, which runs to the right and down


class GridImage(NamedTuple):
    """An image on its grid.

    Attributes:
        voxels: in the file's axis order.
        affine: 4 x 4, to mm; None where the format has none. Its axes are at right angles (`scripts.data.nifti`).
        notes: what the user should know about the header, in sentences without the file's name.
        flat: whether the file has two axes, so that the third size of its affine is a filler.
    """

    voxels: np.ndarray
    affine: np.ndarray | None
    notes: tuple[str, ...] = ()
    flat: bool = False

    def spacing(self, axes: int) -> tuple[float, ...]:
        """The size of a voxel along each of the first axes, in mm; 1 if the format has none."""
        if self.affine is None:
            return (1.0,) * axes
        # rounded, because an affine stored in float32 gives 0.99999994 for 1
        return tuple(float(size) for size in np.round(nib.affines.voxel_sizes(self.affine), 5)[:axes])


# ---- reading -------------------------------------------------------------------------------------------------------


def read_image(path: str | os.PathLike, key: str = "label") -> GridImage:
    """The image in a NIfTI file, a picture or a page of one, without axes of length one at the end.

    Args:
        path: the file.
        key: what to read of a `.pt` file, `image` or `label`.

    Raises:
        InputError: the file is missing, damaged, a colour picture, or a stack of pictures; or see
            `scripts.data.nifti`.
    """
    if tensor_files.is_tensor_file(path):
        return _channels_last(*tensor_files.read_tensor(path, key), key)
    if not is_volume(path):
        return GridImage(_read_grey(path), None)
    image = GridImage(*read_volume(path))
    image = image._replace(flat=image.voxels.ndim == 2)
    while image.voxels.ndim > 2 and image.voxels.shape[-1] == 1:
        image = image._replace(voxels=image.voxels[..., 0])
    return image


def read_stored(path: str | os.PathLike, key: str = "image") -> tuple[GridImage, str]:
    """An image as it is stored, with its channels (last) and colours, and the sha256 of its file.

    Args:
        path: the file.
        key: what to read of a `.pt` file, `image` or `label`.

    Raises:
        InputError: the file cannot be opened, is of an unknown kind, damaged or truncated; or see
            `scripts.data.nifti`.
    """
    path = Path(path)
    file = pictures.file_of_page(path)
    if not file.name.lower().endswith(ENDINGS):
        raise InputError(f"{path} is not a {' or '.join(ENDINGS)} file: convert it.")
    if pictures.is_picture(file):
        return GridImage(pictures.read_picture(path), None), _sha256(file, file.stat().st_mtime_ns)
    content = nifti.file_content(file)
    if itk_files.is_itk_file(file):
        image = GridImage(*itk_files.read_itk_file(file))
    elif tensor_files.is_tensor_file(file):
        image = _channels_last(*tensor_files.decode_tensor(path, content, key), key)
    else:
        image = GridImage(*nifti.decode_nifti(path, content))
    return image, hashlib.sha256(content).hexdigest()


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
    require_label_map(image.voxels.shape, path)
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
    return image._replace(voxels=renamed)


def clear_ignored(truth: GridImage, prediction: GridImage, ignore: int | None, fill: int = 0) -> list[GridImage]:
    """Both label maps, with the background `fill` where the label has the value to ignore; None: there is none."""
    if ignore is None:
        return [truth, prediction]
    ignored = truth.voxels == ignore
    return [image._replace(voxels=np.where(ignored, fill, image.voxels)) for image in (truth, prediction)]


def require_label_map(shape: Sequence[int], path: str | os.PathLike) -> None:
    """Raise `InputError` unless the shape is that of a label map, [H, W, D] or [H, W], with one value per voxel."""
    if len(shape) > 3:
        raise InputError(
            f"{path} holds {shape[-1]} maps ({' x '.join(map(str, shape))}): a label map has one value"
            " per voxel; save the labels themselves in place of one map per label."
        )


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


def is_volume(name: str | os.PathLike) -> bool:
    """Whether this is the name of a file of a volume: NIfTI, NRRD or MetaImage."""
    return is_nifti(name) or itk_files.is_itk_file(name)


def read_volume(path: str | os.PathLike) -> nifti.NiftiFile:
    """The voxels, affine and notes of a NIfTI, NRRD or MetaImage file.

    Raises:
        InputError: see `scripts.data.nifti` and `scripts.data.itk_files`.
    """
    return itk_files.read_itk_file(path) if itk_files.is_itk_file(path) else nifti.read_nifti(path)


def _channels_last(array: np.ndarray, affine: np.ndarray | None, key: str) -> GridImage:
    """The axes as in a NIfTI file: channels last, and no axis for a single one."""
    if key == "image":
        array = np.moveaxis(array, 0, -1) if len(array) > 1 else array[0]
    return GridImage(array, affine)


@lru_cache(maxsize=2)  # a stack and its label are read for each of their pages
def _sha256(file: Path, changed: int) -> str:
    return hashlib.sha256(nifti.file_content(file)).hexdigest()


def _read_grey(path: str | os.PathLike) -> np.ndarray:
    file = pictures.file_of_page(path)
    if file == Path(path) and (number := pictures.count_pages(file)) > 1:
        raise InputError(f"{path} holds {number} pages: give one file per case, or name the page as {file.name}#0.")
    array = pictures.to_grey(pictures.read_picture(path))
    if array.ndim != 2:
        raise InputError(f"{path} is a colour picture: a label map has one value per pixel; save it in grey.")
    return array


# ---- writing -------------------------------------------------------------------------------------------------------


def write_nifti(path: str | os.PathLike, raw: bytes) -> None:
    """Write the bytes of a NIfTI file, whole or not at all; compressed where the name ends in .gz.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_bytes(nifti.gzip.compress(raw, mtime=0) if Path(path).name.endswith(".gz") else raw)


def write_like(path: Path, voxels: np.ndarray, like: str | os.PathLike) -> None:
    """Write voxels on the grid of another file: a NIfTI file, or a picture or `.pt` file if `path` ends like one.

    Args:
        path: the file to write.
        voxels: [H, W, D, ...] or, for pictures, [x, y].
        like: the file whose qform, sform, codes, pixdim and units are kept to the bit; a picture has none. Of a `.pt`,
            NRRD or MetaImage file it is its affine.
    """
    if pictures.is_picture(path):
        pictures.write_picture(path, voxels)
    elif tensor_files.is_tensor_file(like):
        affine = tensor_files.read_affine(like)
        if tensor_files.is_tensor_file(path):
            with atomic_write(path) as temporary:
                temporary.write_bytes(tensor_files.encode_label(voxels, affine))
        else:
            write_nifti(path, nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine).to_bytes())
    elif pictures.is_picture(like):
        write_nifti(path, nib.Nifti1Image(voxels, np.eye(4)).to_bytes())
    elif itk_files.is_itk_file(like):
        write_nifti(path, nib.Nifti1Image(voxels, itk_files.read_itk_file(like).affine).to_bytes())
    else:
        write_nifti(path, nifti.encode_nifti_like(voxels, like))


# ---- grids ---------------------------------------------------------------------------------------------------------


def same_grid(one: GridImage, other: GridImage) -> bool:
    """Whether two images have one shape and their corners lie within `grid_tolerance` of each other."""
    if one.voxels.shape != other.voxels.shape:
        return False
    if one.affine is None or other.affine is None:
        return True
    return corner_distance(one.voxels.shape, one.affine, other.affine) <= grid_tolerance(one.affine, other.affine)


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


def place_in_file(affine: np.ndarray | None, shape: Sequence[int], axis: int, index: int) -> tuple[int, int]:
    """The number of a slice of `to_ras` in its file, counted from 1, and the number of slices.

    Args:
        affine: of the file; None for a picture.
        shape: of the file.
        axis: of RAS that the slice is perpendicular to.
        index: of the slice along it, from 0.
    """
    turns = nib.io_orientation(PICTURE_AFFINE if affine is None else affine)
    own = int(np.flatnonzero(turns[:, 0] == axis)[0])
    length = shape[own] if own < len(shape) else 1
    return (index + 1 if turns[own, 1] > 0 else length - index), length


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
    box = bounding_box(mask, [0] * mask.ndim)  # a tumour takes a small part of a scan
    inside, count = ndimage.label(mask[box], structure=np.ones([3] * mask.ndim))
    numbered = np.zeros(mask.shape, inside.dtype)
    numbered[box] = inside
    return numbered, np.bincount(inside.ravel(), minlength=count + 1)[1:]


def deepest_voxel(mask: np.ndarray, spacing: Sequence[float]) -> tuple[int, ...]:
    """The voxel furthest inside a mask that is not empty; `spacing` along each axis. In a single slice, depth is 2D."""
    thick = [axis for axis, size in enumerate(mask.shape) if size > 1]
    if not thick:
        return (0,) * mask.ndim
    here = bounding_box(mask, [0] * mask.ndim)
    padded = np.pad(mask[here], [(1, 1) if axis in thick else (0, 0) for axis in range(mask.ndim)])
    flat = padded.reshape([padded.shape[axis] for axis in thick])
    depth = ndimage.distance_transform_edt(flat, sampling=[spacing[axis] for axis in thick]).reshape(padded.shape)
    found = np.unravel_index(int(depth.argmax()), depth.shape)
    return tuple(
        int(place) - (axis in thick) + (part.start or 0)
        for axis, (place, part) in enumerate(zip(found, here, strict=True))
    )


def voxel_size(spacing: Sequence[float]) -> float:
    """The volume (mm³) or area (mm²) of a voxel, whose axes are at right angles, as every reader makes sure."""
    return float(np.prod(spacing))


def voxel_ml(image: Any) -> float:
    """The volume of one voxel in ml, from the affine of a `MetaTensor`; 0.001 for a pixel, whose size is unknown."""
    return voxel_size([float(size) for size in image.pixdim]) / 1000 if hasattr(image, "pixdim") else 0.001
