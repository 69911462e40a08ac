"""Parts that figures share: dots side by side, outlines of masks, a diagonal, and scales with few ticks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullLocator

from bundle.drawing.svg import Ink, new_figure

WIDTH, HEIGHT = 340, 236  # CSS pixels: one fills a phone, three fit side by side on a screen
SMALL = 9.5  # size of remarks inside a figure
CLASSES = 32  # of heights, in which dots are side by side
WIDEST = 0.3  # how far dots go to a side, where strips are 1 apart


def new_axes(height: float = HEIGHT) -> tuple[Figure, Axes]:
    """A figure `WIDTH` wide with one axes, its grid behind the data."""
    figure = new_figure(WIDTH, height)
    axes = figure.subplots()
    axes.set_axisbelow(True)
    return figure, axes


def draw_dots(axes: Axes, x: Any, y: Any, colour: str = Ink.ACCENT, gid: str = "dots") -> None:
    """Draw dots, smaller where there are many."""
    area = 44 if len(x) <= 40 else 28 if len(x) <= 120 else 16  # square CSS pixels
    axes.scatter(x, y, s=area, alpha=0.6, linewidths=0, color=colour, gid=gid)


def move_aside(heights: np.ndarray) -> np.ndarray:
    """How far each dot moves to the side, so that dots of about the same height are side by side."""
    span = np.ptp(heights) if len(heights) else 0
    classes = np.zeros(len(heights), int) if not span else ((heights - heights.min()) / span * CLASSES).astype(int)
    step = min(0.08, 2 * WIDEST / np.bincount(classes).max(initial=1))
    same = pd.Series(classes).groupby(classes)
    return ((same.cumcount() - (same.transform("size") - 1) / 2) * step).to_numpy()


def draw_diagonal(axes: Axes, top: float, above: str, below: str, height: float = 0.12) -> None:
    """Draw a diagonal from 0 to `top`, with a label above and below it."""
    axes.plot([0, top], [0, top], color=Ink.GRID)
    remark = {"transform": axes.transAxes, "fontsize": SMALL, "color": Ink.SOFT}
    axes.text(0.04, 0.97, above, va="top", **remark)
    axes.text(0.98, height, below, ha="right", **remark)
    axes.set(xlim=(-0.03 * top, top), ylim=(-0.03 * top, top))


def outline_mask(
    cell: Axes,
    mask: np.ndarray,
    colour: str,
    width: float,
    style: Any = "solid",
    level: float = 0.5,
    extent: Sequence[float] | None = None,
    closed: bool = True,
) -> None:
    """Draw the outline of a mask [row, column]; leaves the limits of the cell as they are.

    At `level` 0.5 it runs along the edges of the voxels, above inside of them. `extent` is that of `imshow`. `closed`
    draws it along the end of the picture too, where the mask reaches it.
    """
    if not mask.any():
        return
    high, wide = mask.shape
    left, right, bottom, top = extent or (-0.5, wide - 0.5, high - 0.5, -0.5)
    around = int(closed)
    x = left + (np.arange(-around, wide + around) + 0.5) * ((right - left) / wide)
    y = top + (np.arange(-around, high + around) + 0.5) * ((bottom - top) / high)
    limits = {"xlim": cell.get_xlim(), "ylim": cell.get_ylim()}
    cell.contour(x, y, np.pad(mask, around), levels=[level], colors=[colour], linewidths=width, linestyles=[style])
    cell.set(**limits)


def write_on(cell: Axes, x: float, y: float, text: str, size: float = SMALL, **place: Any) -> None:
    """Write white text with a dark rim on a picture, at a share of its width and height."""
    rim = [withStroke(linewidth=2, foreground="black")]
    cell.text(x, y, text, color="white", fontsize=size, path_effects=rim, transform=cell.transAxes, **place)


def mark_sides(cell: Axes, left: str, right: str, size: float = SMALL) -> None:
    """Write a letter into the upper corners of a picture: R and L, or A and P."""
    write_on(cell, 0.02, 0.97, left, size, ha="left", va="top")
    write_on(cell, 0.98, 0.97, right, size, ha="right", va="top")


def show_0_to_1(*several: Axis) -> None:
    """Show the range 0 to 1 on one axis or both, with a grid."""
    for axis in several:
        axis.axes.set(**{f"{axis.axis_name}lim": (-0.03, 1.03)})
        axis.set_ticks(np.linspace(0, 1, 6))
        axis.grid(True)


def show_few_ticks(axes: Axes) -> None:
    """Show at most five steps on both axes."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))


def show_logarithmic(axes: Axes, low: float, high: float) -> None:
    """Show a logarithmic x axis with plain ticks such as 0.5, 5, 50."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = range(1, 10) if high / low < 5 else (1, 2, 5) if high / low < 150 else (1,)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks([step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def cut_name(name: str, most: int) -> str:
    """A name, or three dots and its end if it is longer than `most` letters."""
    return name if len(name) <= most else f"...{name[-most + 3 :]}"
