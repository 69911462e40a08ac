"""Reading and writing of PNG, TIFF and JPEG; `stack.tif#5` is page 5 of a TIFF that has several.

Pictures are arrays [x, y] or [x, y, colour] as MONAI has them: x runs to the right, y down. They know no spacing. Pages
are counted from 0; each is a slice.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from scripts.errors import InputError
from scripts.files import atomic_write

TIFF = (".tif", ".tiff")
LOSSY = (".jpg", ".jpeg")  # which keep no label: its values are changed at every edge
PICTURES = (".png", *TIFF, *LOSSY)
GREY = ("1", "L", "I", "F")  # and I;16 of either byte order: the modes of Pillow whose numbers are intensities
COLOURS = ("LA", "RGB", "RGBA")
PAGE = re.compile(r"(.+\.tiff?)#(\d+)", flags=re.IGNORECASE)


def is_picture(name: str | os.PathLike) -> bool:
    """Whether this is the name of a picture, or of a page of one."""
    return file_of_page(name).name.lower().endswith(PICTURES)


def file_and_page(name: str | os.PathLike) -> tuple[Path, int | None]:
    """The file and the page that a name means; None where it names no page."""
    match = PAGE.fullmatch(os.fspath(name))
    return (Path(match[1]), int(match[2])) if match else (Path(name), None)


def file_of_page(name: str | os.PathLike) -> Path:
    """The file in which the page lies; any other name is the file itself."""
    return file_and_page(name)[0]


def page_name(file: Path, number: int) -> Path:
    """The name of a page."""
    return file.with_name(f"{file.name}#{number}")


def count_pages(file: Path) -> int:
    """How many pages a file has: 1 for all but a TIFF, and for one that cannot be read, which its reader will tell."""
    if not file.name.lower().endswith(TIFF):
        return 1
    try:
        with Image.open(file) as picture:
            return getattr(picture, "n_frames", 1)
    except (OSError, SyntaxError, ValueError):
        return 1


def read_picture(name: str | os.PathLike) -> np.ndarray:
    """The page as an array [x, y] or [x, y, colour], as MONAI's `PILReader` gives it.

    Raises:
        InputError: see `open_page`.
    """
    return np.moveaxis(np.asarray(open_page(name)), 0, 1)


def open_page(name: str | os.PathLike) -> Image.Image:
    """The page, decoded to its last pixel and without transparency.

    Raises:
        InputError: the file is missing, cut short, damaged or not the kind its ending says; it has no such page, or
            several where none is named; or its numbers are no intensities or would be changed by reading.
    """
    file, number = file_and_page(name)
    try:
        with Image.open(file) as picture:
            several = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
            if number is None and several > 1:
                raise InputError(f"{file} has {several} pages where one is expected: name it, as {file.name}#0.")
            if number is not None and number >= several:
                raise InputError(f"{file} has {several} pages, so there is no page {number}.")
            picture.seek(number or 0)
            _require_intensities(picture, file)
            picture.load()
            return picture.convert(picture.mode[:-1]) if picture.mode in ("LA", "RGBA") else picture.copy()
    except FileNotFoundError as error:
        raise InputError(f"{file} does not exist: check the path.") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{file} is damaged or no PNG, TIFF or JPEG file: copy it again.") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{file} cannot be read to its end ({reason}): copy it again.") from error


def write_picture(path: Path, *arrays: np.ndarray) -> None:
    """Write arrays [x, y] as a picture, without loss, each a page; the file's ending says in what format.

    Raises:
        InputError: the file cannot be written; none is left behind.
    """
    first, *others = (Image.fromarray(np.ascontiguousarray(array.T)) for array in arrays)
    options: dict[str, Any] = {"save_all": True, "append_images": others} if others else {}
    if path.suffix.lower() in TIFF:
        options["compression"] = "tiff_deflate"
    with atomic_write(path) as temporary:
        first.save(temporary, **options)


def to_grey(array: np.ndarray) -> np.ndarray:
    """[x, y] of a grey picture that was saved in colours; every other array as it is."""
    return array[..., 0] if array.ndim == 3 and array.shape[-1] == 3 and (array == array[..., :1]).all() else array


def _require_intensities(picture: ImageFile.ImageFile, file: Path) -> None:
    if not (picture.mode in (*GREY, *COLOURS) or picture.mode.startswith("I;16")):
        raise InputError(
            f"{file} has the colour mode {picture.mode}, whose numbers are no intensities: save it in grey or RGB."
        )
    # Pillow has no mode for them and would cut them without a word
    if picture.mode in COLOURS and any(";16" in str(part) for tile in picture.tile for part in tile):
        raise InputError(f"{file} has colours of 16 bit, which would be cut to 8: save one grey file a channel.")
