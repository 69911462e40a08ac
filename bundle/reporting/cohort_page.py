"""The page of a cohort: intensities, spacing, size, and frequency of labels and regions."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, GridSpecFromSubplotSpec
from matplotlib.lines import Line2D

from bundle.cohort.fingerprint import CaseFingerprint, ClassFrequency
from bundle.drawing.page_parts import DARK, draw_heading, title_axes
from bundle.drawing.slices import OKABE_ITO, save_figure

DECADES = 100  # fold from the darkest to the brightest percentile, over which intensities have a logarithmic axis
SPACINGS = 6  # to name, at most


def write_cohort_page(
    path: str | os.PathLike,
    about: str,
    records: Sequence[CaseFingerprint],
    channels: Sequence[str],
    frequencies: tuple[Sequence[ClassFrequency], Sequence[ClassFrequency]],
    patch: Sequence[float],
    unit: str,
) -> None:
    """Write a cohort's intensities, spacing and size, and the frequency of labels and regions, as PNG.

    `frequencies` are those of labels and of regions; `patch` is the size of a patch in the unit of the spacing. Raises
    InputError where the file cannot be written.
    """
    across = min(len(channels), 4)
    lines = -(-len(channels) // across)
    classes = max(3, *(len(several) for several in frequencies))
    heights = [*[2.4] * lines, 2.4, 0.6 + 0.34 * classes]
    wide, high = 12.0, 1.0 + sum(heights) + 0.75 * len(heights)
    figure = Figure(figsize=(wide, high), facecolor="white")
    draw_heading(
        figure,
        about,
        "Stored intensities of the foreground (not 0): median, interquartile range and 1st to 99th percentile of each"
        " case.",
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
    spreads = [("size in voxels", shapes, ()), ("field of view in mm", shapes * spacings, patch)]
    if unit == "mm":
        _count_spacings(figure.add_subplot(panels[0]), spacings)
    for panel, spread in enumerate(spreads if unit == "mm" else [(f"size in {unit}s", shapes, patch)]):
        _spread_by_axis(figure.add_subplot(panels[panel + (unit == "mm")]), *spread)

    panels = GridSpecFromSubplotSpec(1, 4, grid[lines + 1], width_ratios=[1, 0.3, 1, 0.3], wspace=0.25)
    for place, kind, several in zip((0, 2), ("label", "region"), frequencies, strict=True):
        _classes(figure.add_subplot(panels[place]), kind, several, len(records))
    save_figure(figure, path)


def _intensities(cell: Axes, channel: str, percentiles: np.ndarray) -> None:
    """For each case, sorted by median: the median, the interquartile range and the 1st to 99th percentile."""
    known = percentiles[~np.isnan(percentiles[:, 2])]
    known = known[np.argsort(known[:, 2])]
    places = np.arange(len(known))
    thick = min(7.0, 150 / max(len(known), 1))
    cell.vlines(places, known[:, 0], known[:, 4], color="#999999", lw=min(1.0, thick / 2))
    cell.vlines(places, known[:, 1], known[:, 3], color=OKABE_ITO[0], lw=thick)
    cell.plot(places, known[:, 2], ".", color="black", ms=min(5.0, thick))
    cell.set(xticks=[], xlim=(-0.8, len(known) - 0.2))
    if len(known) and known.min() > 0 and known.max() > DECADES * known.min():
        cell.set_yscale("log")
    cell.set_xlabel(f"{len(known)} cases by median", fontsize=8)
    title_axes(cell, f"{channel}: {_apart(known)}")


def _apart(percentiles: np.ndarray) -> str:
    """How far the medians of the cases differ, in words."""
    if not len(percentiles):
        return "only 0"
    least, greatest = percentiles[:, 2].min(), percentiles[:, 2].max()
    if least > 0:
        return f"medians differ {greatest / least:.3g}-fold"
    width = np.median(percentiles[:, 3] - percentiles[:, 1])
    return f"medians {(greatest - least) / max(width, 1e-9):.1f} interquartile ranges apart"


def _count_spacings(cell: Axes, spacings: np.ndarray) -> None:
    """One bar per spacing, the most frequent first: how many cases have it; the rest together."""
    found, counts = np.unique(spacings.round(2), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    names = [" x ".join(f"{step:g}" for step in found[k]) for k in order[:SPACINGS]]
    heights = [int(counts[k]) for k in order[:SPACINGS]]
    if len(order) > SPACINGS:
        names.append(f"{len(order) - SPACINGS} others")
        heights.append(int(counts[order[SPACINGS:]].sum()))
    cell.barh(range(len(names)), heights, color=OKABE_ITO[0], height=0.6)
    cell.set(yticks=range(len(names)), yticklabels=names, xticks=[], xlim=(0, 1.2 * max(heights)))
    cell.set_ylim(max(len(names), 4) - 0.5, -0.6)  # the first on top
    for row, count in enumerate(heights):
        cell.text(count, row, f" {count}", va="center", fontsize=8)
    title_axes(cell, "spacing in mm: number of cases")


def _spread_by_axis(cell: Axes, title: str, values: np.ndarray, patch: Sequence[float]) -> None:
    """One circle per value, its area the number of cases, for each axis."""
    for axis in range(values.shape[1]):
        found, counts = np.unique(values[:, axis].round(3), return_counts=True)
        areas = 12 + 160 * counts / len(values)
        cell.scatter(np.full(len(found), axis), found, s=areas, alpha=0.6, color=DARK[0], lw=0)
        median = np.median(values[:, axis])
        cell.annotate(f"{median:.4g}", (axis, median), (14, 0), textcoords="offset points", va="center", fontsize=8)
    if len(patch):
        cell.hlines(patch, *(np.arange(len(patch)) + side for side in (-0.25, 0.25)), color=DARK[1], lw=2)
        cell.legend([Line2D([], [], color=DARK[1], lw=2)], ["patch"], fontsize=8, frameon=False, loc="lower right")
    cell.set(xticks=range(values.shape[1]), xticklabels=list("xyz"[: values.shape[1]]))
    cell.set(xlim=(-0.5, values.shape[1] - 0.3), ylim=(0, 1.15 * max([values.max(), *patch])))
    title_axes(cell, f"{title} by axis, with the median")


def _classes(cell: Axes, kind: str, several: Sequence[ClassFrequency], cases: int) -> None:
    """One bar per class on a logarithmic axis, with the imbalance as a number."""
    shares = [100 * one.share for one in several]
    floor = 10.0 ** np.floor(np.log10(min([share for share in shares if share > 0], default=1.0)) - 0.3)
    cell.barh(range(len(several)), [max(share, floor) for share in shares], color=OKABE_ITO[0], height=0.6)
    cell.set(xscale="log", xlim=(floor, 100), yticks=range(len(several)), yticklabels=[one.name for one in several])
    cell.set_ylim(max(len(several), 3) - 0.5, -0.5)  # the first on top
    for row, one in enumerate(several):
        cell.text(110, row, f"{one.imbalance}   in {one.cases} of {cases}", va="center", fontsize=8.5, clip_on=False)
    title_axes(cell, f"{kind}s: % of the foreground, and class imbalance")
