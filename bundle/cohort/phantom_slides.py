"""Synthetic slides: tissue with a darker tumour on a white background, written tile by tile as a pyramidal TIFF."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

TILE = 256  # pixels
WHITE, TISSUE, TUMOUR = (240, 240, 240), (220, 150, 190), (130, 70, 140)  # colours of a stain
NOISE = 12  # standard deviation


def write_slides(folder: Path | str, cases: int = 2, size: int = 1024) -> None:
    """Write slides `s0.tif`, `s1.tif` and so on, each with its label `s0_mask.tif`, into a folder."""
    for case in range(cases):
        write_slide(Path(folder, f"s{case}.tif"), Path(folder, f"s{case}_mask.tif"), size, seed=case)


def write_slide(image: Path, label: Path, size: int = 1024, seed: int = 0, levels: int = 3, parts: int = 1) -> None:
    """Write a slide and its label; memory does not depend on the size.

    Args:
        image: a TIFF of three colours with several levels, each half as large as the one before.
        label: a TIFF of the same size without levels, 1 in the tumour.
        size: pixels per side.
        seed: of the noise, and of the tumours' places.
        levels: of the pyramid.
        parts: pieces of tissue per side, each with a tumour.
    """
    random = np.random.default_rng(seed)
    centres = random.uniform(0.35, 0.65, (parts, parts, 2))

    def place(x: int, y: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Tissue and tumour in a tile [y, x] of a level."""
        columns, rows = np.meshgrid(*((np.arange(TILE) + first) * step / size * parts for first in (x, y)))
        column, row = (np.clip(axis.astype(int), 0, parts - 1) for axis in (columns, rows))
        away = np.hypot(columns - column - 0.5, rows - row - 0.5)
        centre = centres[column, row]
        near = np.hypot(columns - column - centre[..., 0], rows - row - centre[..., 1])
        return away < 0.4, near < 0.15

    def tiles(step: int, colours: bool) -> Iterator[np.ndarray]:
        side = -(-size // step)
        for y in range(0, side, TILE):
            for x in range(0, side, TILE):
                tissue, tumour = place(x, y, step)
                if colours:
                    picture = np.where(tumour[..., None], TUMOUR, np.where(tissue[..., None], TISSUE, WHITE))
                    yield np.clip(picture + random.normal(0, NOISE, picture.shape), 0, 255).astype(np.uint8)
                else:
                    yield tumour.astype(np.uint8)

    options = {"dtype": np.uint8, "tile": (TILE, TILE), "compression": "zlib"}
    image.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(image) as tiff:
        for level in range(levels):
            side = -(-size // 2**level)
            place_of = {"subifds": levels - 1} if not level else {"subfiletype": 1}
            tiff.write(tiles(2**level, True), shape=(side, side, 3), photometric="rgb", **options, **place_of)
    tifffile.imwrite(label, tiles(1, False), shape=(size, size), photometric="minisblack", **options)
