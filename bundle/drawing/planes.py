"""Planes through the worst error of a prediction: truth and prediction outlined, and the parts that differ filled.

The worst error is the largest connected part that was missed, or added, and the planes cross where it is thickest. They
are radiological: front or top at the top, the patient's right, or front, at the left.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bundle.drawing.axes import mark_sides, outline_mask, write_on
from bundle.drawing.slices import ROOM, encode_figure, fill_labels, intensity_window, to_radiological
from scripts.data.images import bounding_box, connected_components, deepest_voxel

TRUTH, PREDICTION = "#56B4E9", "#E69F00"  # sky blue and orange of Okabe and Ito, safe for colour blindness
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # the axis perpendicular to each, in RAS
SIDES = {"sagittal": "AP", "coronal": "RL", "axial": "RL"}  # letters at the left and the right of a picture
LETTERS = 17  # their size, on tiles that a page shows at less than half their size
PIXELS = 360  # per side of a tile
DETAIL = 0.45  # side of the detail relative to the overview
COLOURS = 96  # of a tile's palette: grey steps and two colours


class WorstError:
    """A case cropped to the head, and the planes through its worst error.

    The scan is [H, W, D] in RAS, 0 outside the head; truth and prediction are boolean of the same shape; the spacing is
    in mm, or 1 where it is unknown.
    """

    def __init__(self, scan: np.ndarray, truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float]):
        seen = (scan != 0) | truth | prediction
        head = bounding_box(seen, [ROOM] * 3)
        self.scan, self.truth, self.prediction = scan[head], truth[head], prediction[head]
        self.spacing = spacing
        self.grey = intensity_window(scan)
        self.centre = _worst(self.truth, self.prediction, spacing)
        self.place = tuple(at + (part.start or 0) for at, part in zip(self.centre, head, strict=True))  # in the scan
        self.side = max(size * step for size, step in zip(self.scan.shape, spacing, strict=True))

    def flat(self, axis: int) -> bool:
        """Whether the planes along this axis are single lines, since another axis has one slice."""
        return min(size for a, size in enumerate(self.scan.shape) if a != axis) == 1

    def draw(self, axis: int, detail: bool, slice_name: str = "") -> bytes:
        """A square PNG; `detail` enlarges a part, with the errors filled.

        With a name of its slice it has that, and letters at the sides: R and L, or A and P.
        """
        across, up = (a for a in range(3) if a != axis)
        scan, truth, prediction = (
            to_radiological(array.take(self.centre[axis], axis=axis))
            for array in (self.scan, self.truth, self.prediction)
        )
        width, height = scan.shape[1] * self.spacing[across], scan.shape[0] * self.spacing[up]
        extent = (0, width, height, 0)
        x = (self.scan.shape[across] - self.centre[across] - 0.5) * self.spacing[across]
        y = (self.scan.shape[up] - self.centre[up] - 0.5) * self.spacing[up]
        figure = Figure(figsize=(PIXELS / 100, PIXELS / 100), facecolor="black")
        cell = figure.add_axes((0, 0, 1, 1))
        cell.imshow(scan, cmap="gray", vmin=self.grey[0], vmax=self.grey[1], extent=extent, interpolation="bilinear")
        if detail:
            fill_labels(
                cell, truth + 2 * prediction, {1: TRUTH, 2: PREDICTION}, 0.6, extent=extent
            )  # 3 where they agree
        for mask, colour in ((truth, TRUTH), (prediction, PREDICTION)):
            outline_mask(cell, mask, colour, 2.0 if detail else 1.4, extent=extent)
        side = self.side * (DETAIL if detail else 1)
        middle = (x, y) if detail else (width / 2, height / 2)
        cell.set(xlim=(middle[0] - side / 2, middle[0] + side / 2), ylim=(middle[1] + side / 2, middle[1] - side / 2))
        cell.set_axis_off()
        if not detail:
            _corners(cell, x, y, self.side * DETAIL / 2)
        if slice_name:
            mark_sides(cell, *SIDES[list(PLANES)[axis]], LETTERS)
            write_on(cell, 0.5, 0.02, slice_name, LETTERS, ha="center", va="bottom")
        return encode_figure(figure, COLOURS)


def _worst(truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float]) -> tuple[int, ...]:
    """The voxel deepest inside the largest error; inside the truth, or in the middle, where there is no error."""
    parts = [_largest(truth & ~prediction), _largest(prediction & ~truth)]
    mask = max(parts, key=np.count_nonzero)
    mask = mask if mask.any() else truth
    if not mask.any():
        return tuple(size // 2 for size in mask.shape)
    return deepest_voxel(mask, spacing)


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask; of equal ones the first."""
    numbered, sizes = connected_components(mask)
    return numbered == 1 + sizes.argmax() if len(sizes) else mask


def _corners(cell: Axes, x: float, y: float, half: float) -> None:
    """The corners of the part that the detail shows."""
    for right, down in product((-half, half), repeat=2):
        across, up = [x + 0.75 * right, x + right, x + right], [y + down, y + down, y + 0.75 * down]
        cell.plot(across, up, color="white", linewidth=0.9, alpha=0.8)
