"""Parts of pages with several pictures: their heading, the orientation of slices, and plain axes."""

from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bundle.drawing.slices import to_radiological

DARK = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")  # lines on white, one per case
CELL = 1.75  # inches per side


def draw_heading(figure: Figure, title: str, beneath: str) -> None:
    """A title, and below it small text, wrapped to the width of the figure."""
    wide, high = figure.get_size_inches()
    figure.text(0.1 / wide, 1 - 0.1 / high, title, ha="left", va="top", fontsize=14)
    lines = wrap(beneath, int(wide / 0.07))
    figure.text(0.1 / wide, 1 - 0.42 / high, "\n".join(lines), ha="left", va="top", fontsize=9)


def turn_slice(picture: np.ndarray, upright: bool) -> np.ndarray:
    """A slice as rows and columns to show: upright as in a photograph, or radiological from RAS."""
    return picture.T if upright else to_radiological(picture)


def title_axes(cell: Axes, title: str) -> None:
    """Small ticks, a title on the left and no frame on top and right."""
    cell.set_title(title, fontsize=9, loc="left")
    cell.tick_params(labelsize=8)
    cell.spines[["top", "right"]].set_visible(False)
