"""Masks of several raters: the files of each image, and the object in each file.

Masks of one image have the same name: the path inside their folder, without the ending and without a word such as
`seg_` in front or `_mask` behind (`SUFFIXES` of `scripts.scoring.prediction_files`), ignoring case. Page 7 of X.tif,
counted from 0, is the image X_7.

The object is the voxels that equal `foreground`, by default all that are not 0. A note names other values.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bundle.analysis.consensus import CONSENSUS
from scripts.data import pictures as pages
from scripts.data.images import read_image, require_label_map, to_integer_labels
from scripts.errors import InputError
from scripts.scoring.prediction_files import SUFFIXES, image_stem, images_in

MODEL = "model"  # its name in the tables, next to the raters and `CONSENSUS`
WORDS = re.compile(rf"^(?:{'|'.join(SUFFIXES)})[_.-]|[_.-](?:{'|'.join(SUFFIXES)})$", flags=re.IGNORECASE)
MOST_VALUES = 16  # more are a picture or a smoothed mask


class Image(NamedTuple):
    """One image: the masks of the raters who drew it, and the model's mask and the scan if there are any."""

    name: str
    raters: dict[str, Path]
    model: Path | None
    scan: Path | None

    @property
    def masks(self) -> dict[str, Path]:
        """All masks by rater, the model's last."""
        return self.raters if self.model is None else {**self.raters, MODEL: self.model}


class Mask(NamedTuple):
    """One mask: boolean [H, W, D] or [H, W], the affine (None for pictures), and how it was read.

    `values` counts the voxels of each value in the file, `note` names unexpected ones, `header` what is odd about the
    header.
    """

    inside: np.ndarray
    affine: np.ndarray | None
    values: pd.Series
    note: str
    header: tuple[str, ...] = ()


class UnreadableMask(InputError):
    """A file that is damaged or not a mask, without which the others can still be compared."""


def name_raters(folders: Sequence[str | os.PathLike]) -> dict[str, Path]:
    """A name for each rater: that of the folder, or the whole path where that is not unique.

    Raises:
        InputError: there are fewer than two folders, or one is given twice.
    """
    paths = [Path(str(folder)) for folder in folders]
    if len(paths) < 2:
        raise InputError(f"agreement needs two or more folders of masks, one per rater: got {len(paths)}.")
    resolved = [path.resolve() for path in paths]
    if twice := [path for path, number in Counter(resolved).items() if number > 1]:
        raise InputError(f"{twice[0]} is given twice: each rater needs a folder of masks.")
    taken = Counter(path.name for path in resolved) + Counter((MODEL, *CONSENSUS))
    return {
        place.name if taken[place.name] == 1 else str(path): path for path, place in zip(paths, resolved, strict=True)
    }


def find_images(
    raters: Mapping[str, Path], model: str | os.PathLike | None = None, scans: str | os.PathLike | None = None
) -> list[Image]:
    """Find every image that a rater drew, sorted by name, in the folders of two or more raters, model and scans.

    Raises:
        InputError: a folder is missing or empty, has no name in common with the others, or has two files of one image;
            or some masks are pictures and others NIfTI files.
    """
    drawn = {rater: _files(folder) for rater, folder in raters.items()}
    everything = Counter(key for files in drawn.values() for key in files)
    for rater, files in drawn.items():
        if not any(everything[key] > 1 for key in files):
            others = next(theirs for name, theirs in drawn.items() if name != rater)
            raise InputError(
                f"{raters[rater]} has no name in common with the other raters: it holds {_some(files)}, the first of"
                f" them {_some(others)}; masks of one image need the same name."
            )
    by_model, beneath = (_files_of(folder, everything) for folder in (model, scans))
    _require_one_kind([*(path for files in drawn.values() for path in files.values()), *by_model.values()])
    found = []
    for key in sorted(everything):
        masks = {rater: files[key] for rater, files in drawn.items() if key in files}
        first = next(iter(masks))
        found.append(Image(_name(masks[first], raters[first]), masks, by_model.get(key), beneath.get(key)))
    return found


def read_mask(path: Path, foreground: int | None = None) -> Mask:
    """Read the object from a mask file.

    Raises:
        UnreadableMask: the file is damaged, is a colour picture, or holds fractions or more values than a mask does.
    """
    try:
        image = read_image(path)
        voxels = image.voxels
        require_label_map(voxels.shape, path)
        if voxels.dtype.kind == "f":
            voxels = to_integer_labels(voxels, path)
    except InputError as error:
        raise UnreadableMask(str(error)) from error
    if voxels.dtype.kind == "b":
        voxels = voxels.astype(np.uint8)
    values = pd.Series(voxels.ravel(order="K")).value_counts().sort_index()
    if foreground is None and len(values) > MOST_VALUES:
        raise UnreadableMask(
            f"{path} holds {len(values)} values: a mask has two; save it without smoothing, or give the value of the"
            " object by --foreground."
        )
    inside = voxels != 0 if foreground is None else voxels == foreground
    return Mask(np.ascontiguousarray(inside), image.affine, values, _unexpected_values(values, foreground), image.notes)


def mask_levels(values: pd.Series, foreground: int | None) -> tuple[int, int]:
    """The values of object and background with which to write a mask like those counted."""
    others = values[values.index != (foreground or 0)]
    if foreground is None:
        return (int(others.index[0]) if len(others) == 1 else 1), 0
    return foreground, int(others.idxmax()) if len(others) else int(foreground == 0)


def _unexpected_values(values: pd.Series, foreground: int | None) -> str:
    if len(values) == 1 and not (foreground is None and values.index[0] == 0):
        every = foreground in (None, values.index[0])
        return f"holds only {values.index[0]}: {'everything' if every else 'nothing'} is the object"
    if len(values) < 3:
        return ""
    found = ", ".join(f"{value} ({number} voxel{'s' * (number > 1)})" for value, number in values.head(8).items())
    more = f" and {len(values) - 8} more values" if len(values) > 8 else ""
    return f"holds {found}{more}: {'all but 0' if foreground is None else f'only {foreground}'} is the object"


def _files(folder: str | os.PathLike) -> dict[str, Path]:
    """The file or page of each image in a folder, by its name in lower case."""
    found: dict[str, Path] = {}
    for file in images_in(folder):
        number = pages.count_pages(file)
        for path in [file] if number == 1 else [pages.page_name(file, page) for page in range(number)]:
            key = _name(path, Path(folder)).lower()
            if key in found:
                raise InputError(
                    f"{found[key]} and {path} have the same name apart from words such as _mask: rename one if they are"
                    " of two images; else give a folder with one mask per image."
                )
            found[key] = path
    return found


def _files_of(folder: str | os.PathLike | None, known: Mapping[str, int]) -> dict[str, Path]:
    """The same, of known images only."""
    files = {} if folder is None else _files(str(folder))
    found = {key: path for key, path in files.items() if key in known}
    if files and not found:
        raise InputError(
            f"{folder} has no name in common with the raters: it holds {_some(files)}, they have {_some(known)}; rename"
            " its files."
        )
    return found


def _name(path: Path, folder: Path) -> str:
    file, page = pages.file_and_page(path)
    plain = WORDS.sub("", image_stem(file) or file.name) or file.name
    return file.relative_to(folder).with_name(plain if page is None else f"{plain}_{page}").as_posix()


def _require_one_kind(files: Sequence[Path]) -> None:
    pictures = [path for path in files if pages.is_picture(path)]
    if pictures and len(pictures) < len(files):
        other = next(path for path in files if not pages.is_picture(path))
        raise InputError(
            f"{pictures[0]} is a picture and {other} a NIfTI file: a picture has no spacing in mm; save all masks in"
            " one format."
        )


def _some(keys: Mapping[str, object]) -> str:
    return ", ".join(sorted(keys)[:2]) + (", ..." if len(keys) > 2 else "")
