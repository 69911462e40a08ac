"""Pages of cases under several normalisations, one per channel and scope."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from bundle.cohort.fingerprint import Choice, NormalizedCase
from bundle.drawing.axes import mark_sides
from bundle.drawing.page_parts import CELL, DARK, draw_heading, turn_slice
from bundle.drawing.slices import intensity_window, save_figure
from scripts.progress import progress_bar

SCOPES = {"volume": "per image", "slice": "per slice", "dataset": "by statistics of the training cases"}
NAMES = 1.6  # inches left of the rows, for the cases' names
BINS = 64


def write_normalization_pages(
    folder: Path,
    channels: Sequence[str],
    examples: Sequence[NormalizedCase],
    choices: Sequence[Choice],
    upright: bool = False,
) -> list[Path]:
    """Write one page per channel and scope as PNG, and return their paths.

    `upright`: the first axis runs to the right and the second down, as in a photograph, rather than in RAS. Raises
    InputError where a file cannot be written.
    """
    scopes = list(dict.fromkeys(scope for _, scope in choices))
    plan = {
        folder / f"normalization_{re.sub(r'[^0-9A-Za-z.-]+', '_', channel)}_{scope}.png": (number, scope)
        for number, channel in enumerate(channels)
        for scope in scopes
    }
    for path, (number, scope) in progress_bar(plan.items(), desc="drawing", unit="page"):
        _write_page(path, channels[number], number, examples, scope, upright)
    return list(plan)


def _write_page(
    path: Path, channel: str, number: int, examples: Sequence[NormalizedCase], scope: str, upright: bool
) -> None:
    """One row per case, one column for the images as stored, after each removal of artefacts, and per method.

    Each column has one grey scale, from the 1st to the 99th percentile of all its cases, so that cases look similar
    where the method makes them similar. Histograms are below.
    """
    columns = [choice for choice in examples[0].pictures if choice is None or choice[1] in ("", scope)]
    rows = [CELL * min(max(high / wide, 0.5), 2.5) for wide, high in (_extent(e, number, upright) for e in examples)]
    wide, high = NAMES + CELL * len(columns) + 0.1, 1.15 + sum(rows) + 1.4
    figure = Figure(figsize=(wide, high), facecolor="white")
    draw_heading(
        figure,
        f"{channel} by {scope}: {SCOPES[scope]}",
        "One grey scale per column. Slices are counted from below and from behind, in the image as cropped; R is the"
        " patient's right. At the bottom: histograms of the voxels that are not 0 as stored, one line per case, and the"
        " mean overlap of two lines.",
    )
    place = {"left": NAMES / wide, "right": 1 - 0.1 / wide, "top": 1 - 1.15 / high, "bottom": 0.3 / high}
    grid = GridSpec(len(rows) + 1, len(columns), figure, height_ratios=[*rows, 1.1], wspace=0.04, hspace=0.04, **place)
    for column, choice in enumerate(columns):
        voxels = [example.voxels[choice][number] for example in examples]
        grey = intensity_window(np.concatenate(voxels))
        for row, example in enumerate(examples):
            cell = figure.add_subplot(grid[row, column])
            stored = zip(example.pictures[choice][number], example.background[number], strict=True)
            _stack(cell, [np.where(zero, grey[0], slice_) for slice_, zero in stored], example.spacing, grey, upright)
            if column == 0 and example.slices and not upright:
                mark_sides(cell, "R", "L")
            if row == 0:
                cell.set_title(choice[0] if choice else "as stored", fontsize=11, pad=4)
            if column == 0:
                look = {"ha": "right", "va": "center", "fontsize": 8, "weight": "bold", "color": DARK[row % len(DARK)]}
                numbers = zip(("axial", "coronal"), example.slices, strict=False)
                lines = [*wrap(example.case, 22), *(f"{plane} {k}/{length}" for plane, (k, length) in numbers)]
                cell.set_ylabel("\n".join(lines), rotation=0, labelpad=6, **look)
        _histograms(figure.add_subplot(grid[-1, column]), voxels)
    save_figure(figure, path)


def _extent(example: NormalizedCase, number: int, upright: bool) -> tuple[float, float]:
    """Width and height of an example's picture, in the unit of its spacing."""
    axial, *coronal = (turn_slice(picture, upright).shape for picture in example.pictures[None][number])
    high = axial[0] * example.spacing[1] + sum(shape[0] * example.spacing[2] for shape in coronal)
    return axial[1] * example.spacing[0], high


def _stack(
    cell: Axes, pictures: Sequence[np.ndarray], spacing: Sequence[float], grey: tuple[float, float], upright: bool
) -> None:
    """The axial slice and, below it, the coronal one, to scale."""
    bottom = 0.0
    for picture, step in zip(reversed(pictures), reversed(spacing[1 : 1 + len(pictures)]), strict=True):
        turned = turn_slice(picture, upright)
        wide, high = turned.shape[1] * spacing[0], turned.shape[0] * step
        extent = (0, wide, bottom, bottom + high)
        cell.imshow(turned, cmap="gray", vmin=grey[0], vmax=grey[1], extent=extent, aspect="equal")
        bottom += high
    cell.set(xlim=(0, wide), ylim=(0, bottom), xticks=[], yticks=[], facecolor="black")


def _histograms(cell: Axes, voxels: Sequence[np.ndarray]) -> None:
    """One line per case over the brain's intensities, and the mean overlap of two lines."""
    low, high = np.percentile(np.concatenate(voxels), [0.5, 99.5]) if sum(map(len, voxels)) else (0.0, 1.0)
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    shares = []
    for number, values in enumerate(voxels):
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        shares.append(counts / max(counts.sum(), 1))
        cell.stairs(shares[-1], edges, color=DARK[number % len(DARK)], lw=1.1)
    inner = max(share[1:-1].max() for share in shares)  # the outermost bins hold all values beyond
    cell.set(yticks=[], ylim=(0, 1.3 * inner or 1), xlim=(edges[0], edges[-1]))
    cell.tick_params(axis="x", labelsize=7, length=2, pad=1)
    cell.locator_params(axis="x", nbins=4, prune="both")
    cell.spines[["top", "left", "right"]].set_visible(False)
    if overlaps := [np.minimum(a, b).sum() for a, b in itertools.combinations(shares, 2)]:
        place = {"transform": cell.transAxes, "ha": "right", "va": "top"}
        cell.text(0.98, 0.97, f"{100 * np.mean(overlaps):.0f} %", size=8, **place)
