"""Pictures of the steps from raw scans to prepared ones: channels in columns, planes before and after in rows.

Arrays [H, W, D] have axes that run to the patient's right, front and top. What is outside `visible` is black, so that
no face is drawn.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from skimage.feature import canny

from bundle.drawing.answer_planes import PLANES
from bundle.drawing.axes import mark_sides, outline_mask
from bundle.drawing.slices import OKABE_ITO, encode_figure, fill_labels, intensity_window, to_radiological
from scripts.data.images import bounding_box

CELL, SIDE, TOP = 2.2, 0.9, 0.3  # inches: a picture, the titles of rows, those of columns
COLOURS = 96
EDGE_MM = 1.5  # width over which edges are smoothed
EDGES, OUTLINE = OKABE_ITO[3], OKABE_ITO[5]
MARGIN = 2  # voxels around what is visible


class Panel(NamedTuple):
    """One picture: a plane of `PLANES` of a scan, with the edges of another scan or the outline of a mask."""

    plane: str
    scan: np.ndarray
    edges_of: np.ndarray | None = None
    mask: np.ndarray | None = None


class PanelRow(NamedTuple):
    """A row of pictures with its title."""

    title: str
    panels: Sequence[Panel]


def draw_panel_rows(
    rows: Sequence[PanelRow], columns: Sequence[str], visible: np.ndarray, spacing: Sequence[float]
) -> bytes:
    """A PNG of rows of pictures, through the centre of what is visible.

    Args:
        rows: from the top.
        columns: their titles.
        visible: mask [H, W, D] of what may be shown.
        spacing: mm along each axis.
    """
    here = bounding_box(visible, [MARGIN] * 3)
    seen = visible[here]
    centre = [round(float(places.mean())) for places in np.nonzero(seen)]
    size = SIDE + CELL * len(columns), TOP + CELL * len(rows)
    figure = Figure(figsize=size, facecolor="white")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    figure.subplots_adjust(SIDE / size[0], 0, 1, 1 - TOP / size[1], 0.02, 0.02)
    for cells, row in zip(axes, rows, strict=True):
        cells[0].set_ylabel(row.title, fontsize=10)
        for cell, panel in zip(cells, row.panels, strict=True):
            axis, letters = PLANES[panel.plane]
            across, up = (spacing[other] for other in range(3) if other != axis)
            cell.set(xticks=[], yticks=[], facecolor="black")
            parts = [None if part is None else _cut(part[here], axis, centre[axis]) for part in panel[1:]]
            _draw(cell, parts, _cut(seen, axis, centre[axis]), (across, up))
            mark_sides(cell, letters[0], letters[1])
    for cell, name in zip(axes[0], columns, strict=True):
        cell.set_title(name, fontsize=11, pad=4)
    return encode_figure(figure, COLOURS)


def _cut(voxels: np.ndarray, axis: int, place: int) -> np.ndarray:
    return to_radiological(voxels.take(place, axis=axis))


def _draw(cell: Axes, parts: Sequence[np.ndarray | None], seen: np.ndarray, spacing: tuple[float, float]) -> None:
    scan, other, mask = parts
    assert scan is not None
    low, high = intensity_window(np.where(seen, scan, 0))
    aspect = spacing[1] / spacing[0]
    cell.imshow(np.where(seen, scan, low), cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    if other is not None:
        edges = canny(np.where(seen, other, 0).astype(float), sigma=max(1.0, EDGE_MM / min(spacing))) & seen
        fill_labels(cell, edges, {1: EDGES}, 0.9, aspect=aspect)
    if mask is not None:
        outline_mask(cell, mask, OUTLINE, 1.6)
