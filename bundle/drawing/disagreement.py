"""Picture of the disagreement of raters on one image: all outlines, and how many raters drew each voxel."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image as Picture

from bundle.drawing.axes import cut_name, mark_sides, outline_mask, write_on
from bundle.drawing.slices import OKABE_ITO, encode_figure, intensity_window, to_radiological
from scripts.data.images import GridImage, bounding_box, place_in_file, ras_spacing, to_ras
from scripts.files import atomic_write

SIDE = 4.2  # inches of a panel's longer side
ROW, KEYS = 0.21, 4  # inches per line of the legends, and numbers per line
LONGEST, LETTERS = 40, 60  # of a name, and per line of names
AROUND = 0.15  # of the size of the masks, shown around them
AGREED = "#b9b9b4"  # where all raters agree
PALETTE = 256  # colours of the file
BARE = 0.25  # grey beneath outlines where there is no scan
STYLES = ("solid", (0, (5, 1.5)), (0, (1.5, 1)))  # for more raters than colours


def draw_disagreement(
    masks: Mapping[str, np.ndarray],
    majority: np.ndarray,
    affine: np.ndarray | None,
    path: Path,
    scan: np.ndarray | None = None,
    model: str = "model",
) -> None:
    """Write the picture of an image as PNG; of a volume, the axial slice with the most disputed voxels,
    with its number in the file, counted from 1.

    Masks are boolean [H, W, D] or [H, W], that of `model` dashed and without a vote; `affine` is None for pictures.
    The outline of the majority is drawn on the right, and the outlines over the scan, which is on the same grid, grey
    or the colours of a picture.
    """
    raters = [who for who in masks if who != model]
    flat = _Slice(masks, raters, affine)
    masks = {who: flat(mask) for who, mask in masks.items()}
    high, wide = masks[raters[0]].shape
    names = {who: cut_name(who, LONGEST) for who in masks}
    colours = [*colormaps["plasma"](np.linspace(0.9, 0.15, len(raters) - 1)), AGREED]  # of 1 to all raters
    keys, columns = _vote_keys(colours), max(1, LETTERS // (max(map(len, names.values())) + 6))
    below = ROW * max(math.ceil(len(masks) / columns), math.ceil(len(keys) / KEYS)) + 0.15
    tall = SIDE * min(high * flat.aspect / wide, 1.0)
    figure = Figure(figsize=(2 * SIDE + 0.1, max(tall, SIDE / 4) + below), facecolor="white")
    left, right = figure.subplots(1, 2)
    bottom = below / figure.get_figheight()
    figure.subplots_adjust(0.005, bottom, 0.995, 0.995, 0.01, 0)
    _show_scan(left, None if scan is None else flat(scan), masks[raters[0]].shape, flat.aspect)
    several = itertools.product(STYLES, OKABE_ITO)  # colours first, then other dashes
    looks = {who: {"colour": colour, "style": style} for who, (style, colour) in zip(raters, itertools.cycle(several))}
    for who in raters:
        outline_mask(left, masks[who], width=1.5, **looks[who])
    if model in masks:  # black between white dashes, visible on every grey
        looks[model] = {"colour": "black", "style": "dashed"}
        outline_mask(left, masks[model], "black", 1.5)
        outline_mask(left, masks[model], "white", 1.5, "dashed")
    votes = np.ma.masked_equal(np.sum([masks[who] for who in raters], axis=0), 0)
    norm = BoundaryNorm(np.arange(0.5, len(raters) + 1), len(raters))
    right.imshow(votes, cmap=ListedColormap(colours), norm=norm, aspect=flat.aspect, interpolation="nearest")
    outline_mask(right, flat(majority), "black", 1.2)
    lines = [
        Line2D([], [], linewidth=2, label=names[who], color=look["colour"], linestyle=look["style"])
        for who, look in looks.items()
    ]
    legend = {"loc": "upper center", "frameon": False, "fontsize": 9, "handlelength": 1.4, "columnspacing": 1.2}
    figure.legend(handles=lines, bbox_to_anchor=(0.25, bottom), ncols=columns, **legend)
    figure.legend(handles=keys, bbox_to_anchor=(0.75, bottom), ncols=KEYS, **legend)
    for cell in (left, right):
        cell.set(xticks=[], yticks=[])
        if flat.number:
            mark_sides(cell, "R", "L")
            write_on(cell, 0.5, 0.02, flat.number, ha="center", va="bottom")
    with atomic_write(path) as temporary:
        temporary.write_bytes(encode_figure(figure, PALETTE, Picture.Quantize.FASTOCTREE))


class _Slice:
    """Cuts the slice to show from arrays on one grid, as [row from the top, column]."""

    def __init__(self, masks: Mapping[str, np.ndarray], raters: Sequence[str], affine: np.ndarray | None):
        self.affine = affine
        votes = np.sum([self._turn(masks[who]) for who in raters], axis=0)
        disputed = ((votes > 0) & (votes < len(raters))).sum((0, 1))
        self.k = int(np.argmax(disputed if disputed.any() else (votes > 0).sum((0, 1))))
        shape = masks[raters[0]].shape
        volume = affine is not None and len(shape) == 3
        self.number = "axial {}/{}".format(*place_in_file(affine, shape, 2, self.k)) if volume else ""
        seen = np.any([self._turn(mask) for mask in masks.values()], axis=0)[..., self.k]
        around = [int(AROUND * (part.stop - part.start)) + 4 for part in bounding_box(seen, (0, 0)) if part.stop] or [
            0,
            0,
        ]
        self.cut = bounding_box(seen, around)
        wide, high = ras_spacing(GridImage(seen, affine), 3)[:2]
        self.aspect = high / wide

    def __call__(self, array: np.ndarray) -> np.ndarray:
        plane = self._turn(array)[:, :, self.k][self.cut]
        return np.swapaxes(plane, 0, 1) if self.affine is None else to_radiological(plane)

    def _turn(self, array: np.ndarray) -> np.ndarray:
        """[H, W, D] in RAS; pictures as they are, [x, y, 1] or [x, y, 1, colour]."""
        if self.affine is None:
            return array[:, :, None]
        return to_ras(array if array.ndim == 3 else array[..., None], self.affine)


def _show_scan(cell: Axes, scan: np.ndarray | None, shape: tuple[int, ...], aspect: float) -> None:
    if scan is None:
        scan, limits = np.full(shape, BARE), (0.0, 1.0)
    elif scan.ndim == 3:
        scan, limits = scan / max(float(scan.max()), 1e-6), (0.0, 1.0)
    else:
        limits = intensity_window(scan)
    cell.imshow(scan, cmap="gray", vmin=limits[0], vmax=limits[1], aspect=aspect, interpolation="nearest")


def _vote_keys(colours: Sequence[Any]) -> list[Patch | Line2D]:
    raters = len(colours)
    numbers = range(1, raters + 1) if raters <= 7 else sorted({1, raters // 4, raters // 2, 3 * raters // 4, raters})
    keys = [Patch(color=colours[n - 1], label=f"{n} of {raters}") for n in numbers if n]
    return [*keys, Line2D([], [], color="black", linewidth=1.2, label="majority")]
