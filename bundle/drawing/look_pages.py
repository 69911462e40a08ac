"""How are normalisations, a cohort and patches drawn? The pages of the `look` command."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, GridSpecFromSubplotSpec
from matplotlib.lines import Line2D

from bundle.cohort.fingerprint import Choice, ClassFrequency, Example, Record
from bundle.drawing.slices import OKABE_ITO, outline, radiological, save, tumour_slice, window

DARK = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")  # lines on white, a colour a case
SCOPES = {"volume": "each image by itself", "slice": "each slice by itself", "dataset": "all by the training cases"}
CELL = 1.75  # inches a side
NAMES = 1.6  # inches left of the rows, for the cases' names
BINS = 64


# ---- normalisations ------------------------------------------------------------------------------------------------


def normalization_page(
    path: str | os.PathLike,
    channel: str,
    number: int,
    examples: Sequence[Example],
    scope: str,
    methods: Sequence[str],
    upright: bool = False,
) -> None:
    """Write the page of one channel and scope: a row a case, a column a method, the cases' histograms beneath.

    A column has one grey scale for all its cases, from the 1st to the 99th percentile of their brains together, so
    that cases look alike where the method makes them alike.

    Args:
        path: the PNG to write.
        channel: its name.
        number: which of the image's channels it is.
        examples: the cases.
        scope: what the methods look at.
        methods: the columns, beside the images as stored.
        upright: the first axis runs to the right and the second down, as in a photograph, rather than in RAS.

    Raises:
        InputError: the file cannot be written.
    """
    columns: list[Choice | None] = [None, *((method, scope) for method in methods)]
    rows = [CELL * min(max(high / wide, 0.5), 2.5) for wide, high in (_extent(e, number, upright) for e in examples)]
    wide, high = NAMES + CELL * len(columns) + 0.1, 1.15 + sum(rows) + 1.4
    figure = Figure(figsize=(wide, high), facecolor="white")
    _head(
        figure,
        f"{channel} by {scope}: {SCOPES[scope]}",
        "One grey scale a column. Beneath, the histograms of what is not 0 as stored, a line a case, and how far two of"
        " them overlap on average.",
    )
    place = {"left": NAMES / wide, "right": 1 - 0.1 / wide, "top": 1 - 1.15 / high, "bottom": 0.3 / high}
    grid = GridSpec(len(rows) + 1, len(columns), figure, height_ratios=[*rows, 1.1], wspace=0.04, hspace=0.04, **place)
    for column, choice in enumerate(columns):
        voxels = [example.voxels[choice][number] for example in examples]
        grey = window(np.concatenate(voxels))
        for row, example in enumerate(examples):
            cell = figure.add_subplot(grid[row, column])
            stored = zip(example.pictures[choice][number], example.air[number], strict=True)
            _stack(cell, [np.where(air, grey[0], slice_) for slice_, air in stored], example.spacing, grey, upright)
            if row == 0:
                cell.set_title(choice[0] if choice else "as stored", fontsize=11, pad=4)
            if column == 0:
                _name(cell, example.case, DARK[row % len(DARK)])
        _histograms(figure.add_subplot(grid[-1, column]), voxels)
    save(figure, path)


def _head(figure: Figure, title: str, beneath: str) -> None:
    """A title, and beneath it small text in lines that are no wider than the figure."""
    wide, high = figure.get_size_inches()
    figure.text(0.1 / wide, 1 - 0.1 / high, title, ha="left", va="top", fontsize=14)
    lines = wrap(beneath, int(wide / 0.07))
    figure.text(0.1 / wide, 1 - 0.42 / high, "\n".join(lines), ha="left", va="top", fontsize=9)


def _extent(example: Example, number: int, upright: bool) -> tuple[float, float]:
    """Width and height of an example's picture, in the unit of its spacing."""
    axial, *coronal = (_turned(picture, upright).shape for picture in example.pictures[None][number])
    return axial[1] * example.spacing[0], axial[0] * example.spacing[1] + sum(
        shape[0] * example.spacing[2] for shape in coronal
    )


def _turned(picture: np.ndarray, upright: bool) -> np.ndarray:
    return picture.T if upright else radiological(picture)


def _stack(
    cell: Axes, pictures: Sequence[np.ndarray], spacing: Sequence[float], grey: tuple[float, float], upright: bool
) -> None:
    """The axial slice and, beneath, the coronal one, to scale."""
    bottom = 0.0
    for picture, step in zip(reversed(pictures), reversed(spacing[1 : 1 + len(pictures)]), strict=True):
        turned = _turned(picture, upright)
        wide, high = turned.shape[1] * spacing[0], turned.shape[0] * step
        cell.imshow(
            turned, cmap="gray", vmin=grey[0], vmax=grey[1], extent=(0, wide, bottom, bottom + high), aspect="equal"
        )
        bottom += high
    cell.set(xlim=(0, wide), ylim=(0, bottom), xticks=[], yticks=[], facecolor="black")


def _name(cell: Axes, name: str, colour: str) -> None:
    text = "\n".join(wrap(name, 22))
    cell.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8, labelpad=6, color=colour, weight="bold")


def _histograms(cell: Axes, voxels: Sequence[np.ndarray]) -> None:
    """A line a case over the brain's intensities, and how far the lines overlap."""
    low, high = np.percentile(np.concatenate(voxels), [0.5, 99.5]) if sum(map(len, voxels)) else (0.0, 1.0)
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    shares = []
    for number, values in enumerate(voxels):
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        shares.append(counts / max(counts.sum(), 1))
        cell.stairs(shares[-1], edges, color=DARK[number % len(DARK)], lw=1.1)
    inner = max(share[1:-1].max() for share in shares)  # the outermost bins hold what is beyond
    cell.set(yticks=[], ylim=(0, 1.3 * inner or 1), xlim=(edges[0], edges[-1]))
    cell.tick_params(axis="x", labelsize=7, length=2, pad=1)
    cell.locator_params(axis="x", nbins=4, prune="both")
    cell.spines[["top", "left", "right"]].set_visible(False)
    overlaps = [np.minimum(a, b).sum() for a, b in itertools.combinations(shares, 2)]
    if overlaps:
        cell.text(
            0.98, 0.97, f"{100 * np.mean(overlaps):.0f} %", transform=cell.transAxes, ha="right", va="top", size=8
        )


# ---- the cohort ----------------------------------------------------------------------------------------------------


def cohort_page(
    path: str | os.PathLike,
    about: str,
    records: Sequence[Record],
    channels: Sequence[str],
    frequencies: tuple[Sequence[ClassFrequency], Sequence[ClassFrequency]],
    patch: Sequence[float],
    unit: str,
) -> None:
    """Write the cohort's intensities, spacing and size, and how rare labels and regions are.

    Args:
        path: the PNG to write.
        about: what stands above.
        records: one a case.
        channels: their names.
        frequencies: of the labels, and of the regions.
        patch: its size in `unit` by axis, to stand beside the images'.
        unit: of the spacing.

    Raises:
        InputError: the file cannot be written.
    """
    across = min(len(channels), 4)
    lines = -(-len(channels) // across)
    classes = max(3, *(len(several) for several in frequencies))
    heights = [*[2.4] * lines, 2.4, 0.6 + 0.34 * classes]
    wide, high = 12.0, 1.0 + sum(heights) + 0.75 * len(heights)
    figure = Figure(figsize=(wide, high), facecolor="white")
    _head(
        figure,
        about,
        "Intensities are those stored that are not 0: for each case the median, the middle half and the 1st to 99th"
        " percentile.",
    )
    place = {"left": 0.75 / wide, "right": 1 - 0.2 / wide, "top": 1 - 0.95 / high, "bottom": 0.5 / high}
    grid = GridSpec(len(heights), 1, figure, height_ratios=heights, hspace=0.75 / np.mean(heights), **place)

    panels = GridSpecFromSubplotSpec(lines, across, grid[:lines], wspace=0.3, hspace=0.5)
    for number, name in enumerate(channels):
        cell = figure.add_subplot(panels[number // across, number % across])
        _intensities(cell, name, np.array([record.percentiles[number] for record in records]))

    shapes = np.array([record.shape for record in records], dtype=float)
    spacings = np.array([record.spacing for record in records])
    panels = GridSpecFromSubplotSpec(1, 3, grid[lines], wspace=0.3)
    if unit == "mm":
        _spread_by_axis(figure.add_subplot(panels[0]), "spacing in mm", spacings)
        _spread_by_axis(figure.add_subplot(panels[1]), "size in voxels", shapes)
        _spread_by_axis(figure.add_subplot(panels[2]), "field of view in mm", shapes * spacings, patch)
    else:
        _spread_by_axis(figure.add_subplot(panels[0]), f"size in {unit}s", shapes, patch)

    panels = GridSpecFromSubplotSpec(1, 4, grid[lines + 1], width_ratios=[1, 0.3, 1, 0.3], wspace=0.25)
    for place, kind, several in zip((0, 2), ("label", "region"), frequencies, strict=True):
        _classes(figure.add_subplot(panels[place]), kind, several, len(records))
    save(figure, path)


def _intensities(cell: Axes, channel: str, percentiles: np.ndarray) -> None:
    """For each case, sorted by median: the median, its middle half and its 1st to 99th percentile."""
    known = percentiles[~np.isnan(percentiles[:, 2])]
    known = known[np.argsort(known[:, 2])]
    places = np.arange(len(known))
    thick = min(7.0, 150 / max(len(known), 1))
    cell.vlines(places, known[:, 0], known[:, 4], color="#999999", lw=min(1.0, thick / 2))
    cell.vlines(places, known[:, 1], known[:, 3], color=OKABE_ITO[0], lw=thick)
    cell.plot(places, known[:, 2], ".", color="black", ms=min(5.0, thick))
    cell.set_title(f"{channel}: {_apart(known)}", fontsize=9, loc="left")
    cell.set(xticks=[], xlim=(-0.8, len(known) - 0.2))
    cell.set_xlabel(f"{len(known)} cases by median", fontsize=8)
    cell.tick_params(labelsize=8)
    cell.spines[["top", "right"]].set_visible(False)


def _apart(percentiles: np.ndarray) -> str:
    """In words, how far the medians of the cases are from each other."""
    if not len(percentiles):
        return "nothing but 0"
    least, greatest = percentiles[:, 2].min(), percentiles[:, 2].max()
    if least > 0:
        return f"medians differ {greatest / least:.3g}-fold"
    width = np.median(percentiles[:, 3] - percentiles[:, 1])
    return f"medians {(greatest - least) / max(width, 1e-9):.1f} middle halves apart"


def _spread_by_axis(cell: Axes, title: str, values: np.ndarray, patch: Sequence[float] = ()) -> None:
    """A circle a value, as large as it is frequent, for each axis."""
    for axis in range(values.shape[1]):
        found, counts = np.unique(values[:, axis].round(3), return_counts=True)
        cell.scatter(
            np.full(len(found), axis), found, s=12 + 160 * counts / len(values), alpha=0.6, color=DARK[0], lw=0
        )
        median = np.median(values[:, axis])
        cell.annotate(f"{median:.4g}", (axis, median), (14, 0), textcoords="offset points", va="center", fontsize=8)
    if len(patch):
        cell.hlines(patch, *(np.arange(len(patch)) + side for side in (-0.25, 0.25)), color=DARK[1], lw=2)
        cell.legend([Line2D([], [], color=DARK[1], lw=2)], ["patch"], fontsize=8, frameon=False, loc="lower right")
    cell.set_title(f"{title} by axis, with the median", fontsize=9, loc="left")
    cell.set(xticks=range(values.shape[1]), xticklabels=list("xyz"[: values.shape[1]]))
    cell.set(xlim=(-0.5, values.shape[1] - 0.3), ylim=(0, 1.15 * max([values.max(), *patch])))
    cell.tick_params(labelsize=8)
    cell.spines[["top", "right"]].set_visible(False)


def _classes(cell: Axes, kind: str, several: Sequence[ClassFrequency], cases: int) -> None:
    """A bar a class on a logarithmic axis, with the imbalance as a number."""
    shares = [100 * one.share for one in several]
    floor = 10.0 ** np.floor(np.log10(min([share for share in shares if share > 0], default=1.0)) - 0.3)
    cell.barh(range(len(several)), [max(share, floor) for share in shares], color=OKABE_ITO[0], height=0.6)
    cell.set(xscale="log", xlim=(floor, 100), yticks=range(len(several)), yticklabels=[one.name for one in several])
    cell.set_ylim(max(len(several), 3) - 0.5, -0.5)  # the first on top
    for row, one in enumerate(several):
        cell.text(110, row, f"{one.imbalance}   in {one.cases} of {cases}", va="center", fontsize=8.5, clip_on=False)
    cell.set_title(f"{kind}s: % of what is not 0, and one to how many others", fontsize=9, loc="left")
    cell.tick_params(labelsize=8)
    cell.spines[["top", "right"]].set_visible(False)


# ---- patches -------------------------------------------------------------------------------------------------------


def patch_page(
    path: str | os.PathLike,
    patches: Sequence[Mapping[str, Any]],
    channels: Sequence[str],
    regions: Sequence[str],
    choice: Choice,
    upright: bool = False,
) -> None:
    """Write patches as the network sees them: a row a patch, a column a channel, regions outlined.

    A channel has one grey scale on the whole page, since the network has no other either.

    Args:
        path: the PNG to write.
        patches: each with its case, image [C, ...] and label [R, ...], after augmentation.
        channels: their names.
        regions: their names, in the order of the labels.
        choice: the normalisation that the patches have.
        upright: as in `normalization_page`.

    Raises:
        InputError: the file cannot be written.
    """
    beside = max(1, round(np.sqrt(1.5 * len(patches) / (len(channels) + 0.85))))  # a page somewhat wider than high
    rows = -(-len(patches) // beside)
    ratios = [0.85, *[1.0] * len(channels)] * beside
    side = np.clip(16 / sum(ratios), CELL, 1.5 * CELL)
    wide, high = side * sum(ratios) + 0.2, 1.25 + side * rows
    figure = Figure(figsize=(wide, high), facecolor="white")
    inside = [patch["label"].any(axis=tuple(range(1, patch["label"].ndim))) for patch in patches]
    held = np.sum(inside, axis=0)
    _head(
        figure,
        f"patches as the network sees them: {' by '.join(choice)}, cut and augmented",
        "One grey scale a channel. A patch of three axes is shown where most of its label is.",
    )
    palette = dict(zip(range(len(regions)), itertools.cycle(OKABE_ITO)))
    handles = [
        Line2D([], [], color=palette[k], lw=2, label=f"{name}, in {held[k]} of {len(patches)}")
        for k, name in enumerate(regions)
    ]
    place = {"loc": "upper left", "bbox_to_anchor": (0.02 / wide, 1 - 0.6 / high)}
    figure.legend(handles=handles, ncols=len(handles), frameon=False, fontsize=9, **place)
    place = {"left": 0.1 / wide, "right": 1 - 0.1 / wide, "top": 1 - 1.15 / high, "bottom": 0.1 / high}
    grid = GridSpec(rows, len(ratios), figure, width_ratios=ratios, wspace=0.03, hspace=0.03, **place)
    greys = [_window([patch["image"][number] for patch in patches]) for number in range(len(channels))]
    for count, patch in enumerate(patches):
        row, first = count % rows, count // rows * (len(channels) + 1)
        names = figure.add_subplot(grid[row, first])
        names.axis("off")
        text = "\n".join([*wrap(patch["case"], 19), *wrap(" ".join(np.array(regions)[inside[count]]), 16)])
        names.text(0.96, 0.5, text, ha="right", va="center", fontsize=7.5)
        image, label = (array if array.ndim == 4 else array[..., None] for array in (patch["image"], patch["label"]))
        k = tumour_slice(label.any(0), image.shape[-1])
        for number, grey in enumerate(greys):
            cell = figure.add_subplot(grid[row, first + 1 + number])
            seen = _turned(image[number, ..., k], upright)
            cell.imshow(seen, cmap="gray", vmin=grey[0], vmax=grey[1], interpolation="nearest")
            for region, colour in palette.items():
                outline(cell, _turned(label[region, ..., k], upright).astype(int), {1: colour})
            cell.set(xticks=[], yticks=[])
            if row == 0:
                cell.set_title(channels[number], fontsize=10, pad=3)
    save(figure, path)


def _window(pictures: Sequence[np.ndarray]) -> tuple[float, float]:
    """The 1st and 99th percentile of all pictures together, without what is exactly 0, which is air."""
    return window(np.concatenate([picture[picture != 0] for picture in pictures]))
