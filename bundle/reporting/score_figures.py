"""Figures of scores: overlap, distances and probabilities of every case, one small figure per region."""

from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from bundle.analysis.calibration import ENOUGH_VOXELS
from bundle.analysis.evaluation import Evaluation
from bundle.analysis.statistics import quantiles, quartiles
from bundle.drawing.axes import SMALL, WIDTH, draw_diagonal, draw_dots, move_aside, new_axes, show_0_to_1
from bundle.drawing.svg import STYLE, Drawing, Ink, figure_to_svg
from bundle.reporting.sentences import describe_reliability
from bundle.reporting.words import format_amount, format_share, format_share3, metric_name, plural, unit_sign

SHARES = ("dice", "nsd_2mm", "precision", "recall")
LENGTHS = ("hd95", "assd")
NEAR = 1.0  # mm or pixels; the scale is linear below, logarithmic above


@rc_context(STYLE)
def draw_score_distributions(evaluation: Evaluation, region: str) -> Drawing:
    """Dice, NSD, precision and recall of every case, with median and quartiles."""
    own = evaluation.rows_of(region)
    metrics = [metric for metric in SHARES if evaluation.has(metric)]
    figure, axes = new_axes()
    titles = _strips(axes, own, metrics, format_share3, evaluation.length_unit)
    show_0_to_1(axes.yaxis)
    q1, median, q3 = quartiles(own["dice"])
    worst = own.loc[own["dice"].idxmin()]
    words = (
        f"{region}, {plural(len(own), 'case')}: median Dice {format_share(median)}, quartiles {format_share(q1)} to"
        f" {format_share(q3)}, lowest {format_share(worst['dice'])} ({worst['case']})."
    )
    return figure_to_svg(figure, words, titles)


@rc_context(STYLE)
def draw_boundary_distances(evaluation: Evaluation, region: str) -> Drawing:
    """HD95 and ASSD of every case; infinite ones on a separate line, at the same height in every region."""
    own = evaluation.rows_of(region)
    metrics = [metric for metric in LENGTHS if evaluation.has(metric)]
    unit = unit_sign(evaluation.length_unit)
    known = evaluation.scores[metrics].to_numpy()
    top = 1.5 * float(np.max(known[np.isfinite(known)], initial=NEAR))
    ceiling = 1.8 * top
    figure, axes = new_axes()
    axes.set_yscale("symlog", linthresh=NEAR, linscale=0.4)
    titles = _strips(axes, own, metrics, lambda value: f"{format_amount(value)} {unit}", unit, ceiling)
    axes.set(ylim=(-0.15, ceiling * 1.35), ylabel=unit)
    ticks = [tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= top]
    axes.set_yticks([*ticks, ceiling], [*map(str, ticks), "∞"])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.axhline(ceiling / 1.3, color=Ink.GRID, linewidth=0.8)
    first = own[metrics[0]].dropna().to_numpy()
    median, worst = quantiles(first, [0.5, 1])
    infinite = own[np.isinf(own[metrics[0]])]
    failed = int((infinite["note"] == "failed").sum())
    counts = {"one mask is empty": len(infinite) - failed, "there is no usable mask": failed}
    reasons = [f"{plural(count, 'case')} without a distance because {why}" for why, count in counts.items() if count]
    end = "; ".join(reasons) or f"worst {format_amount(worst)} {unit}"
    words = f"{region}: median {metric_name(metrics[0])} {format_amount(median)} {unit}, {end}."
    return figure_to_svg(figure, words, titles)


@rc_context(STYLE)
def draw_calibration_errors(evaluation: Evaluation) -> Drawing:
    """The calibration error and the Brier score of every case."""
    table = evaluation.calibration
    metrics = [metric for metric in ("ece", "brier") if table[metric].notna().any()]
    figure, axes = new_axes()
    titles = _strips(axes, table, metrics, format_share3, "")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    said = "; ".join(
        f"median {metric_name(m)} {format_share3(table[m].median())}, worst {format_share3(table[m].max())}"
        for m in metrics
    )
    return figure_to_svg(figure, f"{plural(len(table), 'case')} with probabilities: {said}.", titles)


@rc_context(STYLE)
def draw_reliability(region: str, curve: Mapping[str, Any]) -> Drawing:
    """Observed frequency against predicted probability, with the number of voxels per bin."""
    bins = [one for one in curve["bins"] if one["voxels"]]
    predicted, observed = (np.array([one[key] for one in bins]) for key in ("confidence", "frequency"))
    figure, axes = new_axes(WIDTH)
    _voxel_bars(axes, bins)
    draw_diagonal(axes, 1.0, "predicted too low", "predicted too high", 0.04)
    axes.plot(predicted, observed, color=Ink.ACCENT)
    for x, one in zip(predicted, bins, strict=True):
        if one["frequency_interval"]:
            axes.plot([x, x], one["frequency_interval"], color=Ink.ACCENT, linewidth=1)
    axes.set(xlabel="predicted probability", ylabel="observed frequency")
    show_0_to_1(axes.xaxis, axes.yaxis)
    lines = [
        f"{one['bin']:.1f} to {one['bin'] + 0.1:.1f}: predicted {format_share3(one['confidence'])}, observed"
        f" {format_share3(one['frequency'])}; {plural(one['voxels'], 'voxel')} of {plural(one['patients'], 'patient')}"
        for one in bins
    ]
    certain, titles = np.array([one["voxels"] >= ENOUGH_VOXELS for one in bins]), {}
    for gid, these, colour in (("certain", certain, Ink.ACCENT), ("few", ~certain, Ink.SOFT)):
        axes.scatter(predicted[these], observed[these], s=44, linewidths=0, color=colour, gid=gid)
        titles[gid] = list(compress(lines, these))
    return figure_to_svg(figure, describe_reliability(region, curve), titles)


def _strips(
    axes: Axes,
    rows: pd.DataFrame,
    metrics: Sequence[str],
    write: Callable[[float], str],
    length: str,
    ceiling: float | None = None,
) -> dict[str, list[str]]:
    """One strip of dots per metric, next to it a mark at median and quartiles; the first in the accent colour.

    `ceiling` is the height of inf, on a roughly logarithmic scale. Returns the title of each dot.
    """
    titles = {}
    for place, metric in enumerate(metrics):
        own = rows.dropna(subset=[metric])
        values = own[metric].to_numpy()
        heights = values if ceiling is None else np.where(np.isinf(values), ceiling, values)
        aside = move_aside(heights if ceiling is None else np.arcsinh(heights))
        draw_dots(axes, place + 0.08 + aside, heights, Ink.SOFT if place else Ink.ACCENT, metric)
        q1, median, q3 = (ceiling if np.isinf(q) else q for q in quartiles(values))
        left = place + aside.min(initial=0) - 0.1
        mark = {"color": Ink.TEXT, "linewidth": 2, "solid_capstyle": "butt"}
        axes.plot([left] * 2, [q1, q3], **mark)
        axes.plot([left - 0.07, left + 0.07], [median] * 2, **mark)
        titles[metric] = [f"{case}: {write(value)}" for case, value in zip(own["case"], values, strict=True)]
    axes.set_xlim(-0.55, len(metrics) - 0.4)
    axes.set_xticks(range(len(metrics)), [metric_name(metric, length) for metric in metrics])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")
    return titles


def _voxel_bars(axes: Axes, bins: Sequence[Mapping[str, Any]]) -> None:
    """Bars of the number of voxels per bin behind the curve, on their own logarithmic scale."""
    behind = axes.twinx()
    axes.set_zorder(behind.get_zorder() + 1)
    most = max(one["voxels"] for one in bins)
    lowest = 0.5  # so that one voxel can be seen
    places, heights = zip(*((one["bin"] + 0.05, one["voxels"] - lowest) for one in bins), strict=True)
    behind.bar(places, heights, width=0.094, bottom=lowest, color=Ink.GRID, alpha=0.6)
    behind.set_yscale("log")
    behind.set_ylim(lowest, lowest * (most / lowest) ** 3)  # the highest bar ends at a third of the height
    behind.yaxis.set_minor_locator(NullLocator())
    ticks = {tick: text for tick, text in ((1, "1"), (10**3, "1k"), (10**6, "1M"), (10**9, "1G")) if tick <= most}
    behind.set_yticks(list(ticks), list(ticks.values()), fontsize=SMALL, color=Ink.SOFT)
    behind.set_ylabel("voxels (bars)", fontsize=SMALL, color=Ink.SOFT, loc="bottom")
    behind.tick_params(length=0)
