"""The axial slice of a case through a part that is in question: image, label and mask side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bundle.drawing.axes import mark_sides, write_on
from bundle.drawing.planes import COLOURS, PREDICTION, TRUTH
from bundle.drawing.slices import ROOM, encode_figure, fill_labels, intensity_window, to_radiological
from scripts.data.images import bounding_box

PANEL = 2.4  # inches per side
AROUND = 3  # voxels between a part and the rectangle around it


class PartView(NamedTuple):
    """What to draw: arrays [H, W, D] in RAS, scan 0 outside the head; the part's ends along each axis; the slice."""

    scan: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    box: Sequence[tuple[int, int]]
    index: int
    spacing: Sequence[float]


def draw_part(view: PartView, slice_name: str) -> bytes:
    """A PNG with the image, the label in blue and the mask in orange, and a rectangle around the part.

    Radiological: the front at the top, the patient's right on the left. `slice_name` is written below the image.
    """
    head = bounding_box((view.scan != 0).any(2) | (view.truth | view.prediction).any(2), [ROOM, ROOM])
    cut = (*head, view.index)
    scan, truth, prediction = (to_radiological(array[cut]) for array in (view.scan, view.truth, view.prediction))
    high, wide = scan.shape
    across, up = view.spacing[:2]
    extent = (0.0, wide * across, high * up, 0.0)
    low, top = intensity_window(view.scan)
    corner = [part.start or 0 for part in head]
    x, y = ((size + start - end) for size, start, (_, end) in zip((wide, high), corner, view.box, strict=False))
    width, height = ((end - start + 2 * AROUND) for start, end in view.box[:2])
    figure = Figure(figsize=(3 * PANEL, PANEL), facecolor="black")
    for number, (name, mask, colour) in enumerate(
        (("image", None, ""), ("label", truth, TRUTH), ("mask", prediction, PREDICTION))
    ):
        cell = figure.add_axes((number / 3, 0, 1 / 3, 1))
        cell.imshow(scan, cmap="gray", vmin=low, vmax=top, extent=extent, interpolation="bilinear")
        if mask is not None:
            fill_labels(cell, mask.astype(int), {1: colour}, 0.55, extent=extent)
        place = ((x - AROUND) * across, (y - AROUND) * up)
        cell.add_patch(Rectangle(place, width * across, height * up, fill=False, edgecolor="white", linewidth=1))
        side = max(extent[1], extent[2])
        cell.set(xlim=_centred(extent[1], side), ylim=_centred(extent[2], side)[::-1])
        cell.set_axis_off()
        mark_sides(cell, "R", "L")
        write_on(cell, 0.5, 0.97, name, ha="center", va="top")
        write_on(cell, 0.5, 0.02, slice_name, ha="center", va="bottom")
    return encode_figure(figure, COLOURS)


def _centred(length: float, side: float) -> tuple[float, float]:
    """The limits of an axis of this length in the middle of a square with this side."""
    return length / 2 - side / 2, length / 2 + side / 2
