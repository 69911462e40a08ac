"""Reading and writing of PNG, TIFF and JPEG; `stack.tif#5` is page 5 of a TIFF that has several.

Pictures are arrays [x, y] or [x, y, colour] as in MONAI: x runs to the right, y down. They have no spacing. Pages are
counted from 0; each is a slice.
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
LOSSY = (".jpg", ".jpeg")  # not for labels: compression changes values at every edge
PICTURES = (".png", *TIFF, *LOSSY)
REDUCED = 254  # the tag NewSubfileType, whose first bit says that a page is a smaller copy of another
GREY = ("1", "L", "I", "F")  # and I;16 of either byte order: Pillow's modes whose values are intensities
COLOURS = ("LA", "RGB", "RGBA")
PAGE = re.compile(r"(.+\.tiff?)#(\d+)", flags=re.IGNORECASE)


def is_picture(name: str | os.PathLike) -> bool:
    """Whether this is the name of a picture, or of a page of one."""
    return file_of_page(name).name.lower().endswith(PICTURES)


def file_and_page(name: str | os.PathLike) -> tuple[Path, int | None]:
    """The file and the page number in a name; None if it names no page."""
    match = PAGE.fullmatch(os.fspath(name))
    return (Path(match[1]), int(match[2])) if match else (Path(name), None)


def file_of_page(name: str | os.PathLike) -> Path:
    """The file of a page; any other name is the file itself."""
    return file_and_page(name)[0]


def page_name(file: Path, number: int) -> Path:
    """The name of a page."""
    return file.with_name(f"{file.name}#{number}")


def count_pages(file: Path) -> int:
    """The number of pages in a file: 1 for all but a TIFF, and for an unreadable one (its reader reports that).

    The levels of a pyramid are not pages.
    """
    if not file.name.lower().endswith(TIFF):
        return 1
    try:
        with Image.open(file) as picture:
            return _count_pages(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
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
        InputError: the file is missing, truncated, damaged or not of the kind of its ending; it does not have the page,
            or has several and none is named; or its values are not intensities or would be changed by reading.
    """
    file, number = file_and_page(name)
    try:
        with Image.open(file) as picture:
            several = _count_pages(picture) if picture.format == "TIFF" else 1
            if number is None and several > 1:
                raise InputError(f"{file} has {several} pages, expected one: name a page, as in {file.name}#0.")
            if number is not None and number >= several:
                raise InputError(f"{file} has {several} pages, so there is no page {number}.")
            picture.seek(number or 0)
            _require_intensities(picture, file)
            picture.load()
            return picture.convert(picture.mode[:-1]) if picture.mode in ("LA", "RGBA") else picture.copy()
    except FileNotFoundError as error:
        raise InputError(f"{file} does not exist: check the path.") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{file} is damaged or not a PNG, TIFF or JPEG file: copy it again.") from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{file} is too large to be read whole ({' '.join(str(error).split())[:60]}): use a smaller level of it;"
            " the recipe large_images trains on patches of larger ones."
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{file} cannot be read to its end ({reason}): copy it again.") from error


def write_picture(path: Path, *arrays: np.ndarray) -> None:
    """Write arrays [x, y] as the pages of a picture, without loss, in the format of the file's ending.

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
    """[x, y] of a grey picture that was saved in colours; any other array unchanged."""
    return array[..., 0] if array.ndim == 3 and array.shape[-1] == 3 and (array == array[..., :1]).all() else array


def _count_pages(picture: Any) -> int:
    number = getattr(picture, "n_frames", 1)
    if number > 1:
        picture.seek(1)
        number = 1 if picture.tag_v2.get(REDUCED, 0) & 1 else number
        picture.seek(0)
    return number


def _require_intensities(picture: ImageFile.ImageFile, file: Path) -> None:
    if not (picture.mode in (*GREY, *COLOURS) or picture.mode.startswith("I;16")):
        raise InputError(
            f"{file} has colour mode {picture.mode}, whose values are not intensities: save it in grey or RGB."
        )
    # Pillow has no mode for them and would truncate them silently
    if picture.mode in COLOURS and any(";16" in str(part) for tile in picture.tile for part in tile):
        raise InputError(f"{file} has 16-bit colours, which would be cut to 8 bits: save one grey file per channel.")
