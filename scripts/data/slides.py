"""Images larger than memory, such as whole slides: regions read from the tiles of a pyramidal TIFF.

Level 0 of a slide has its full resolution, each further one is smaller. `Slide` reads regions of one level, and an
overview on a coarse one for what concerns the whole slide: where tissue is (Otsu 1979), and the mean and standard
deviation of each channel in it, to which patches are normalised. Arrays are [C, x, y], as those of pictures.

Files of other formats, such as NIfTI of two dimensions, are held in memory as slides of one level.
"""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from skimage.filters import threshold_otsu

from scripts.data import pictures
from scripts.data.images import read_stored
from scripts.errors import InputError

OVERVIEW = 1024  # pixels: the longest side of an overview, if the file has such a level
LARGEST_OVERVIEW = 4096  # pixels: what is read at once at most
BLOCK = 1024  # pixels: side of the blocks in which a whole level is walked through


def is_slide(name: str | os.PathLike) -> bool:
    """Whether this is a TIFF with several levels."""
    if not str(name).lower().endswith(pictures.TIFF) or not Path(name).is_file():
        return False
    try:
        with tifffile.TiffFile(name) as tiff:
            return len(tiff.series[0].levels) > 1
    except Exception:  # tifffile raises errors of many kinds, TypeError too, for a damaged file: its reader says so
        return False


class Slide:
    """An image at one level, from one file of all channels or one file per channel.

    Args:
        files: the files; those of several channels have one size.
        level: of the pyramid, 0 the finest.
        key: what to read of a `.pt` file.

    Attributes:
        shape: (x, y) of the level, in pixels.

    Raises:
        InputError: a file is missing, damaged or compressed in a way that needs another package; it lacks the level; or
            the files have different sizes.
    """

    def __init__(
        self, files: str | os.PathLike | Sequence[str | os.PathLike], level: int = 0, key: str = "image"
    ) -> None:
        several = [files] if isinstance(files, str | os.PathLike) else files
        self.files, self.level = [Path(file) for file in dict.fromkeys(map(str, several))], level
        self.held = {file: _whole(file, key) for file in self.files if not is_tiff(file)}  # of formats without tiles
        shapes = [[self.held[file].shape[1:]] if file in self.held else _level_shapes(file) for file in self.files]
        for file, known in zip(self.files, shapes, strict=True):
            if level >= len(known):
                raise InputError(f"{file} has {len(known)} levels, so there is no level {level}: give a lower --level.")
            if known != shapes[0]:
                raise InputError(f"{file} has the levels {known}, {self.files[0]} {shapes[0]}: expected the same.")
        self.levels: list[tuple[int, int]] = shapes[0]
        self.shape = self.levels[level]

    def read(self, start: Sequence[int], size: Sequence[int]) -> np.ndarray:
        """The region [C, x, y] of this size that begins at `start`, both in pixels of the level, within the slide."""
        return self._read(self.level, start, size)

    def _read(self, level: int, start: Sequence[int], size: Sequence[int]) -> np.ndarray:
        (x, y), (width, height) = start, size
        return np.concatenate(
            [
                self.held[file][:, x : x + width, y : y + height]
                if file in self.held
                else _read_region(file, level, start, size)
                for file in self.files
            ]
        )

    @cached_property
    def summary(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the overview: where tissue is [x, y], and mean and standard deviation of each channel in it, [C, 1, 1].

        Tissue has another colour than the border of the slide; a slide of one colour is all tissue.
        """
        overview = self._overview()
        sides = [np.moveaxis(overview, axis, 1)[:, end] for axis in (1, 2) for end in (0, -1)]
        signal = np.abs(overview - np.median(np.concatenate(sides, 1), axis=1)[:, None, None]).max(0)
        tissue = signal > threshold_otsu(signal) if np.ptp(signal) else np.ones(signal.shape, bool)
        inside = overview[:, tissue]
        return tissue, inside.mean(1)[:, None, None], np.maximum(inside.std(1), 1e-6)[:, None, None]

    def read_normalised(self, start: Sequence[int], size: Sequence[int]) -> np.ndarray:
        """A region, float32, with mean 0 and standard deviation 1 in the tissue of the slide; 0 beyond its end."""
        valid = [min(length, total - first) for first, length, total in zip(start, size, self.shape, strict=True)]
        _, mean, deviation = self.summary
        array = (self.read(start, valid).astype(np.float32) - mean) / deviation
        return np.pad(array, [(0, 0), *((0, wanted - have) for wanted, have in zip(size, valid, strict=True))])

    def in_tissue(self, start: Sequence[int], size: Sequence[int]) -> bool:
        """Whether any tissue is in a region."""
        tissue = self.summary[0]
        x, y = (
            slice(int(first * n / total), int(np.ceil((first + length) * n / total)))
            for first, length, n, total in zip(start, size, tissue.shape, self.shape, strict=True)
        )
        return bool(tissue[x, y].any())

    def _overview(self) -> np.ndarray:
        """The whole slide [C, x, y], float32, on its coarsest level that is large enough to show tissue."""
        level = next((k for k, shape in enumerate(self.levels) if max(shape) <= OVERVIEW), len(self.levels) - 1)
        shape = self.levels[level]
        if max(shape) > LARGEST_OVERVIEW and is_tiff(self.files[0]):
            raise InputError(
                f"{self.files[0]} has no level of at most {LARGEST_OVERVIEW} pixels: its smallest is"
                f" {shape[0]} x {shape[1]}; write it again with more levels."
            )
        step = -(-max(shape) // LARGEST_OVERVIEW)
        return self._read(level, (0, 0), shape)[:, ::step, ::step].astype(np.float32)


def refuse_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings that need whole images.

    Args:
        settings: name to whether it is set.

    Raises:
        InputError: names the first one that is.
    """
    if names := [name for name, given in settings.items() if given]:
        raise InputError(f"{names[0]} needs whole images, which large_images does not read: leave it at its default.")


def is_tiff(file: Path) -> bool:
    """Whether a file is read tile by tile."""
    return file.name.lower().endswith(pictures.TIFF)


def walk_blocks(shape: Sequence[int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The blocks that cover an image (x, y): the first pixel and the size of each."""
    return [
        ((x, y), (min(BLOCK, shape[0] - x), min(BLOCK, shape[1] - y)))
        for x in range(0, shape[0], BLOCK)
        for y in range(0, shape[1], BLOCK)
    ]


def _level_shapes(file: Path) -> list[tuple[int, int]]:
    """The size (x, y) of each level."""
    with _opened(file) as tiff:
        return [(level.keyframe.imagewidth, level.keyframe.imagelength) for level in tiff.series[0].levels]


def _read_region(file: Path, level: int, start: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """A region [C, x, y] within the level, of which only the tiles that it touches are read."""
    (x, y), (width, height) = start, size
    with _opened(file) as tiff:
        page = tiff.series[0].levels[level].keyframe
        if page.planarconfig != 1 or page.imagedepth != 1:
            raise InputError(f"{file} keeps its colours in separate planes: write those of a pixel together.")
        region = np.zeros((height, width, page.samplesperpixel), page.dtype)
        tall, wide, across = page.chunks[0], page.chunks[1], page.chunked[1]
        for row in range(y // tall, -(-(y + height) // tall)):
            for column in range(x // wide, -(-(x + width) // wide)):
                tile = _decode(file, tiff, page, row * across + column)
                if tile is None:  # left out by the writer, since it is empty
                    continue
                top, left = row * tall, column * wide
                rows = slice(max(y, top), min(y + height, top + tile.shape[0]))
                columns = slice(max(x, left), min(x + width, left + tile.shape[1]))
                region[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x] = tile[
                    rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
                ]
    return region.transpose(2, 1, 0)


def _decode(file: Path, tiff: tifffile.TiffFile, page: Any, index: int) -> np.ndarray | None:
    """A tile or strip [y, x, C]."""
    length = page.databytecounts[index]
    if not length:
        return None
    tiff.filehandle.seek(page.dataoffsets[index])
    content = tiff.filehandle.read(length)
    try:
        if len(content) < length:
            raise EOFError("it is truncated")
        tile = page.decode(content, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)[0]
    except Exception as error:  # each codec raises its own
        reason = " ".join(str(error).split())[:120]
        advice = "install it (pip install imagecodecs)" if "imagecodecs" in reason else "copy it again"
        raise InputError(f"{file} cannot be read to its end ({reason}): {advice}.") from error
    return None if tile is None else tile[0]


def _opened(file: Path) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(file)
    except FileNotFoundError as error:
        raise InputError(f"{file} does not exist: check the path.") from error
    except Exception as error:  # tifffile and struct raise their own
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{file} is damaged or not a TIFF file ({reason}): copy it again.") from error


def _whole(file: Path, key: str) -> np.ndarray:
    """An image [C, x, y] of another format."""
    array = read_stored(file, key)[0].voxels
    while array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim > 3:
        raise InputError(f"{file} has shape {array.shape}: expected an image of two dimensions.")
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
