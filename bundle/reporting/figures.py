"""What do the scores look like? One small figure a region for one question each, every case a dot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from bundle.analysis.calibration import TELLING
from bundle.analysis.evaluation import Evaluation
from bundle.analysis.pairing import DIRECTIONS, Matched
from bundle.analysis.statistics import difference, quantiles
from bundle.drawing.svg import STYLE, Drawing, Ink, draw, new_figure
from bundle.reporting.sentences import trust
from bundle.reporting.verdicts import gap, size_of
from bundle.reporting.words import MINUS, amount, count, name, share, share3, sign, size
from scripts.scoring.case import WHOLE_CASE

WIDTH, HEIGHT = 340, 236  # CSS pixels: one fills a phone, three stand beside each other on a screen
SHARES = ("dice", "nsd_2mm", "precision", "recall")
LENGTHS = ("hd95", "assd")
NEAR = 1.0  # mm or pixels: distances below are drawn on a linear scale, since a logarithm has no 0
SMALL = 9.5  # size of remarks inside a figure
CLASSES = 32  # of heights, in which dots stand side by side
LONGEST = 14  # letters of a system's name inside a figure
WIDEST = 0.3  # how far dots go to a side, where strips are 1 apart


@rc_context(STYLE)
def distributions(evaluation: Evaluation, region: str) -> Drawing:
    """Dice, NSD, precision and recall of every case, with median and quartiles."""
    own = evaluation.of(region)
    metrics = [metric for metric in SHARES if evaluation.has(metric)]
    figure, axes = _figure()
    titles = _strips(axes, own, metrics, share3, evaluation.length)
    _from_0_to_1(axes.yaxis)
    q1, median, q3 = quantiles(own["dice"], [0.25, 0.5, 0.75])
    worst = own.loc[own["dice"].idxmin()]
    words = (
        f"{region}, {count(len(own), 'case')}: median Dice {share(median)}, half of the cases between {share(q1)} and"
        f" {share(q3)}, worst {share(worst['dice'])} ({worst['case']})."
    )
    return draw(figure, words, titles)


@rc_context(STYLE)
def boundaries(evaluation: Evaluation, region: str) -> Drawing:
    """HD95 and ASSD of every case; those without a distance stand on a line of their own, as high in every region."""
    own = evaluation.of(region)
    metrics = [metric for metric in LENGTHS if evaluation.has(metric)]
    unit = sign(evaluation.length)
    known = evaluation.scores[metrics].to_numpy()
    top = 1.5 * float(np.max(known[np.isfinite(known)], initial=NEAR))
    ceiling = 1.8 * top
    figure, axes = _figure()
    axes.set_yscale("symlog", linthresh=NEAR, linscale=0.4)
    titles = _strips(axes, own, metrics, lambda value: f"{amount(value)} {unit}", unit, ceiling)
    axes.set(ylim=(-0.15, ceiling * 1.35), ylabel=unit)
    ticks = [tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= top]
    axes.set_yticks([*ticks, ceiling], [*map(str, ticks), "∞"])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.axhline(ceiling / 1.3, color=Ink.GRID, linewidth=0.8)
    first = own[metrics[0]].dropna().to_numpy()
    median, worst = quantiles(first, [0.5, 1])
    without = int(np.isinf(first).sum())
    end = f"{count(without, 'case')} without a distance because one mask is empty"
    end = end if without else f"worst {amount(worst)} {unit}"
    words = f"{region}: median {name(metrics[0])} {amount(median)} {unit}, {end}."
    return draw(figure, words, titles)


@rc_context(STYLE)
def by_volume(evaluation: Evaluation, region: str, thirds: Sequence[Mapping[str, Any]]) -> Drawing | None:
    """Dice against the true volume; None where no truth holds the region."""
    own = evaluation.of(region)
    own = own[own["volume_truth"] > 0]
    if not len(own):
        return None
    unit = sign(evaluation.volume)
    titles = [f"{r.case}: Dice {share3(r.dice)}, {amount(r.volume_truth)} {unit}" for r in own.itertuples()]
    figure, axes = _figure()
    _dots(axes, own["volume_truth"], own["dice"])
    axes.set(xlabel=f"true {size(evaluation.volume)}, {unit}", ylabel="Dice")
    _from_0_to_1(axes.yaxis)
    _logarithmic(axes, own["volume_truth"].min() / 1.5, own["volume_truth"].max() * 1.5)
    words = (
        f"{region}: median Dice {share(thirds[0]['dice_median'])} in the smallest third of {count(len(own), 'case')},"
        f" {share(thirds[-1]['dice_median'])} in the largest."
    )
    return draw(figure, words, {"dots": titles})


@rc_context(STYLE)
def agreement(evaluation: Evaluation, region: str, limits: Mapping[str, float] | None) -> Drawing | None:
    """Predicted minus true volume against their mean, with bias and 95 % limits (Bland and Altman)."""
    if limits is None:
        return None
    own = evaluation.of(region).dropna(subset=["volume_error"])
    unit = sign(evaluation.volume)
    bias, low, high = (limits[key] for key in ("bias", "low", "high"))
    off = f"{amount(abs(bias))} {unit} too {'large' if bias > 0 else 'small'}" if bias else "as large as the truth"
    titles = [
        f"{r.case}: {amount(r.volume_prediction)} {unit} for {amount(r.volume_truth)} {unit}" for r in own.itertuples()
    ]
    figure, axes = _figure()
    axes.axhline(0, color=Ink.GRID)
    axes.axhline(bias, color=Ink.SECOND)
    for limit in (low, high):
        axes.axhline(limit, color=Ink.SECOND, linestyle=(0, (4, 3)), linewidth=1)
    _dots(axes, (own["volume_truth"] + own["volume_prediction"]) / 2, own["volume_error"])
    axes.set(xlabel=f"mean of truth and prediction, {unit}", ylabel=f"prediction {MINUS} truth, {unit}")
    axes.margins(y=0.12)
    _few_ticks(axes)
    words = (
        f"{region}: predictions are on average {off};"
        f" 95 % limits of agreement {amount(low, True)} to {amount(high, True)} {unit}."
    )
    return draw(figure, words, {"dots": titles})


@rc_context(STYLE)
def errors(evaluation: Evaluation, region: str) -> Drawing | None:
    """What was added in error against what was missed."""
    own = evaluation.of(region).dropna(subset=["volume_fp", "volume_fn"])
    if not len(own):
        return None
    unit = sign(evaluation.volume)
    missed, added = own["volume_fn"], own["volume_fp"]
    titles = [
        f"{r.case}: misses {amount(r.volume_fn)} {unit}, adds {amount(r.volume_fp)} {unit}" for r in own.itertuples()
    ]
    figure, axes = _figure()
    _halves(axes, 1.08 * max(missed.max(), added.max()) or 1.0, "adds more", "misses more")
    _dots(axes, missed, added)
    axes.set(xlabel=f"missed, {unit}", ylabel=f"added in error, {unit}")
    _few_ticks(axes)
    words = (
        f"{region}: {int((missed > added).sum())} of {count(len(own), 'case')} miss more than they add; in the median"
        f" {amount(missed.median())} {unit} missed and {amount(added.median())} {unit} added."
    )
    return draw(figure, words, {"dots": titles})


@rc_context(STYLE)
def lesions_by_volume(evaluation: Evaluation, region: str, classes: Sequence[Mapping[str, Any]]) -> Drawing | None:
    """The share of true lesions found, by their volume, with Wilson's interval."""
    classes = [row for row in classes if row["lesions"]]
    if not classes:
        return None
    unit = sign(evaluation.volume)
    shares = np.array([row["found"] / row["lesions"] for row in classes])
    low, high = np.array([row["share_interval"] for row in classes]).T
    found = [f"{row['found']} of {row['lesions']}" for row in classes]
    places = np.arange(len(classes))
    figure, axes = _figure()
    axes.bar(places, shares, width=0.6, color=Ink.ACCENT, alpha=0.55)
    axes.errorbar(
        places, shares, np.clip([shares - low, high - shares], 0, None), fmt="none", ecolor=Ink.TEXT, elinewidth=1
    )
    _from_0_to_1(axes.yaxis)
    axes.set(
        xlim=(-0.6, len(classes) - 0.4), ylabel="share found", xlabel=f"{size(evaluation.volume)} of the lesion, {unit}"
    )
    axes.set_xticks(
        places, [f"{_class(row)}\n{text}" for row, text in zip(classes, found, strict=True)], fontsize=SMALL
    )
    axes.tick_params(axis="x", length=0)
    said = ", ".join(f"{text} of {_class(row)} {unit}" for row, text in zip(classes, found, strict=True))
    return draw(figure, f"{region}, lesions found: {said}.")


@rc_context(STYLE)
def calibration(evaluation: Evaluation) -> Drawing:
    """The calibration error and the Brier score of every case."""
    table = evaluation.calibration
    metrics = [metric for metric in ("ece", "brier") if table[metric].notna().any()]
    figure, axes = _figure()
    titles = _strips(axes, table, metrics, share3, "")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    said = "; ".join(f"median {name(m)} {share3(table[m].median())}, worst {share3(table[m].max())}" for m in metrics)
    return draw(figure, f"{count(len(table), 'case')} with probabilities: {said}.", titles)


@rc_context(STYLE)
def reliability(region: str, curve: Mapping[str, Any]) -> Drawing:
    """The share that is found against the probability that was said, and faintly how many voxels that is about."""
    bins = [one for one in curve["bins"] if one["voxels"]]
    said, found = (np.array([one[key] for one in bins]) for key in ("confidence", "frequency"))
    figure, axes = _figure(WIDTH)
    _voxel_bars(axes, bins)
    _halves(axes, 1.0, "more is found than said", "less is found than said", 0.04)
    axes.plot(said, found, color=Ink.ACCENT)
    for x, one in zip(said, bins, strict=True):
        if one["frequency_interval"]:
            axes.plot([x, x], one["frequency_interval"], color=Ink.ACCENT, linewidth=1)
    telling = np.array([one["voxels"] >= TELLING for one in bins])
    for gid, these, colour in (("telling", telling, Ink.ACCENT), ("few", ~telling, Ink.SOFT)):
        axes.scatter(said[these], found[these], s=44, linewidths=0, color=colour, gid=gid)
    axes.set(xlabel="probability that it gives", ylabel="share that is found")
    for axis in (axes.xaxis, axes.yaxis):
        _from_0_to_1(axis)
    lines = [
        f"{one['bin']:.1f} to {one['bin'] + 0.1:.1f}: says {share3(one['confidence'])}, {share3(one['frequency'])} are;"
        f" {count(one['voxels'], 'voxel')} of {count(one['patients'], 'patient')}"
        for one in bins
    ]
    titles = {gid: list(compress(lines, these)) for gid, these in (("telling", telling), ("few", ~telling))}
    return draw(figure, trust(region, curve), titles)


@rc_context(STYLE)
def against(matched: Matched, region: str, first: str, second: str) -> Drawing:
    """The Dice of one system against that of another, patient by patient."""
    own = matched.values["dice", region]
    both = zip(own.index, own[first], own[second], strict=True)
    titles = [f"{who}: {share3(a)} {_there(first)}, {share3(b)} {_there(second)}" for who, a, b in both]
    figure, axes = _figure(WIDTH)
    _halves(axes, 1.0, f"better {_there(second)}", f"better {_there(first)}")
    _dots(axes, own[first], own[second])
    axes.set(xlabel=f"Dice {_there(first)}", ylabel=f"Dice {_there(second)}")
    for axis in (axes.xaxis, axes.yaxis):
        _from_0_to_1(axis)
    higher, lower = int((own[second] > own[first]).sum()), int((own[second] < own[first]).sum())
    patients = count(len(own), "patient")
    words = f"{region}: of {patients}, {higher} have a higher Dice {_there(second)} and {lower} a lower one."
    return draw(figure, words, {"dots": titles})


@rc_context(STYLE)
def differences(matched: Matched, first: str, second: str, rows: Sequence[Mapping[str, Any]]) -> Drawing:
    """By how much a second system differs from a first one in one metric: a row a region, every patient a dot."""
    figure, axes = _figure(84 + 46 * len(rows))
    titles = _differences(axes, matched, first, second, rows)
    said = "; ".join(f"{_line(row)} {size_of(row)}, {_balance(row)}".strip() for row in rows)
    return draw(figure, f"{name(rows[0]['metric'], matched.length)}: {said}.", titles)


@rc_context(STYLE)
def overview(matched: Matched, pairs: Sequence[Mapping[str, Any]]) -> Figure:
    """All differences on one sheet: a line a pair of systems, a column a metric."""
    metrics = list(dict.fromkeys(row["metric"] for row in pairs[0]["differences"]))
    regions = max(sum(row["metric"] == metric for row in pairs[0]["differences"]) for metric in metrics)
    figure = new_figure(WIDTH * len(metrics), (96 + 46 * regions) * len(pairs))
    figure.patch.set(facecolor="white", alpha=1)
    for line, pair in zip(figure.subplots(len(pairs), len(metrics), squeeze=False), pairs, strict=True):
        for axes, metric in zip(line, metrics, strict=True):
            rows = [row for row in pair["differences"] if row["metric"] == metric]
            _differences(axes, matched, pair["first"], pair["second"], rows)
    return figure


def _differences(
    axes: Axes, matched: Matched, first: str, second: str, rows: Sequence[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Dots to the right of 0 are patients in whom the number grew; blue where the second system is better."""
    metric, unit = rows[0]["metric"], rows[0]["unit"]
    changes = [
        pd.Series(difference(own[second], own[first]), index=own.index)
        for own in (matched.values[metric, row["region"]] for row in rows)
    ]
    finite = np.concatenate([change[np.isfinite(change)] for change in changes])
    reach = 1.1 * np.abs(finite).max(initial=0) or 1.0
    edge = 1.2 * reach  # where infinite differences stand
    titles = {}
    for place, (row, change) in enumerate(zip(rows, changes, strict=True)):
        gain = DIRECTIONS[metric] * change
        across = change.clip(-edge, edge)
        aside = pd.Series(_aside(across.to_numpy()), index=change.index) - 0.1
        for kind, these, colour in (
            ("+", gain > 0, Ink.ACCENT),
            ("0", gain == 0, Ink.SOFT),
            ("-", gain < 0, Ink.SECOND),
        ):
            gid = f"{place}{kind}"
            _dots(axes, across[these], place + aside[these], colour, gid)
            titles[gid] = [f"{patient}: {gap(number, row)}" for patient, number in change[these].items()]
        kind = "median" if row["mean"] is None else "mean"
        ends = [float(end) for end in row[f"{kind}_interval"] or ()]
        mark = {"color": Ink.TEXT, "solid_capstyle": "butt"}
        axes.plot(np.clip(ends, -edge, edge), [place + 0.32] * len(ends), linewidth=2, **mark)
        axes.plot(np.clip([float(row[kind])], -edge, edge), [place + 0.32], "o", markersize=5, **mark)
    axes.axvline(0, color=Ink.GRID)
    axes.set(xlim=(-1.08 * edge, 1.08 * edge), ylim=(len(rows) - 0.4, -0.75))
    axes.set_yticks(range(len(rows)), [_line(row) for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    ticks = [tick for tick in axes.get_xticks() if abs(tick) <= reach]
    beyond = [side * edge for side in (-1, 1) if any((np.isinf(c) & (np.sign(c) == side)).any() for c in changes)]
    labels = [f"{tick:g}".replace("-", MINUS) for tick in np.round(ticks, 12)]
    axes.set_xticks([*ticks, *beyond], [*labels, *(f"{MINUS}∞" if end < 0 else "∞" for end in beyond)])
    axes.set_xlabel(f"difference in {name(metric, matched.length)}" + (f", {sign(unit)}" if unit else ""))
    sides = (first, second) if DIRECTIONS[metric] > 0 else (second, first)
    remark = {"transform": axes.transAxes, "fontsize": SMALL, "color": Ink.SOFT, "va": "top"}
    axes.text(0.01, 1.0, f"← better {_there(sides[0])}", **remark)
    axes.text(0.99, 1.0, f"better {_there(sides[1])} →", ha="right", **remark)
    return titles


def _line(row: Mapping[str, Any]) -> str:
    return "" if row["region"] == WHOLE_CASE else row["region"]


def _balance(row: Mapping[str, Any]) -> str:
    return f"better in {row['better']}, equal in {row['equal']} and worse in {row['worse']} of {row['patients']}"


def _there(system: str) -> str:
    """`here`, `there` or `in B`, cut where it is long."""
    if system in ("here", "there"):
        return system
    return f"in {system if len(system) <= LONGEST else system[: LONGEST - 1] + '…'}"


def _figure(height: float = HEIGHT) -> tuple[Figure, Axes]:
    figure = new_figure(WIDTH, height)
    axes = figure.subplots()
    axes.set_axisbelow(True)
    return figure, axes


def _dots(axes: Axes, x: Any, y: Any, colour: str = Ink.ACCENT, gid: str = "dots") -> None:
    area = 44 if len(x) <= 40 else 28 if len(x) <= 120 else 16  # square CSS pixels: less where there are many
    axes.scatter(x, y, s=area, alpha=0.6, linewidths=0, color=colour, gid=gid)


def _strips(
    axes: Axes,
    rows: pd.DataFrame,
    metrics: Sequence[str],
    write: Callable[[float], str],
    length: str,
    ceiling: float | None = None,
) -> dict[str, list[str]]:
    """A strip of dots for each metric, a mark at median and quartiles beside it; the first in the accent colour.

    `ceiling` is the height of inf, on a scale that is about logarithmic. Gives each dot's line.
    """
    titles = {}
    for place, metric in enumerate(metrics):
        own = rows.dropna(subset=[metric])
        values = own[metric].to_numpy()
        heights = values if ceiling is None else np.where(np.isinf(values), ceiling, values)
        aside = _aside(heights if ceiling is None else np.arcsinh(heights))
        _dots(axes, place + 0.08 + aside, heights, Ink.SOFT if place else Ink.ACCENT, metric)
        q1, median, q3 = (ceiling if np.isinf(q) else q for q in quantiles(values, [0.25, 0.5, 0.75]))
        left = place + aside.min(initial=0) - 0.1
        mark = {"color": Ink.TEXT, "linewidth": 2, "solid_capstyle": "butt"}
        axes.plot([left] * 2, [q1, q3], **mark)
        axes.plot([left - 0.07, left + 0.07], [median] * 2, **mark)
        titles[metric] = [f"{case}: {write(value)}" for case, value in zip(own["case"], values, strict=True)]
    axes.set_xlim(-0.55, len(metrics) - 0.4)
    axes.set_xticks(range(len(metrics)), [name(metric, length) for metric in metrics])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")
    return titles


def _aside(heights: np.ndarray) -> np.ndarray:
    """How far each dot moves to the side, so that dots of about the same height stand beside each other."""
    span = np.ptp(heights) if len(heights) else 0
    classes = np.zeros(len(heights), int) if not span else ((heights - heights.min()) / span * CLASSES).astype(int)
    step = min(0.08, 2 * WIDEST / np.bincount(classes).max(initial=1))
    aside = np.zeros(len(heights))
    for number in np.unique(classes):
        members = np.flatnonzero(classes == number)
        aside[members] = (np.arange(len(members)) - (len(members) - 1) / 2) * step
    return aside


def _from_0_to_1(axis: Any) -> None:
    axis.axes.set(**{f"{axis.axis_name}lim": (-0.03, 1.03)})
    axis.set_ticks(np.linspace(0, 1, 6))
    axis.grid(True)


def _few_ticks(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))


def _voxel_bars(axes: Axes, bins: Sequence[Mapping[str, Any]]) -> None:
    """The number of voxels of each tenth behind the curve, on a logarithmic scale of their own at the foot."""
    behind = axes.twinx()
    axes.set_zorder(behind.get_zorder() + 1)
    most = max(one["voxels"] for one in bins)
    lowest = 0.5  # so that one voxel can be seen
    behind.bar(
        [one["bin"] + 0.05 for one in bins],
        [one["voxels"] - lowest for one in bins],
        width=0.094,
        bottom=lowest,
        color=Ink.GRID,
        alpha=0.6,
    )
    behind.set_yscale("log")
    behind.set_ylim(lowest, lowest * (most / lowest) ** 3)  # the highest bar ends at a third of the height
    behind.yaxis.set_minor_locator(NullLocator())
    ticks = [(1, "1"), (10**3, "1k"), (10**6, "1M"), (10**9, "1G")]
    ticks = [(tick, text) for tick, text in ticks if tick <= most]
    behind.set_yticks([tick for tick, _ in ticks], [text for _, text in ticks], fontsize=SMALL, color=Ink.SOFT)
    behind.set_ylabel("voxels (bars)", fontsize=SMALL, color=Ink.SOFT, loc="bottom")
    behind.tick_params(length=0)


def _halves(axes: Axes, top: float, above: str, below: str, height: float = 0.12) -> None:
    """A diagonal from 0 to `top`, and what it means to lie above and below it."""
    axes.plot([0, top], [0, top], color=Ink.GRID)
    remark = {"transform": axes.transAxes, "fontsize": SMALL, "color": Ink.SOFT}
    axes.text(0.04, 0.97, above, va="top", **remark)
    axes.text(0.98, height, below, ha="right", **remark)
    axes.set(xlim=(-0.03 * top, top), ylim=(-0.03 * top, top))


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    """A logarithmic axis with ticks such as 0.5, 5, 50 that are read without thinking of exponents."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = range(1, 10) if high / low < 5 else (1, 2, 5) if high / low < 150 else (1,)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks([step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _class(row: Mapping[str, Any]) -> str:
    """`up to 0.1`, `0.1 to 1` or `over 10`."""
    low, high = float(row["above"]), float(row["up_to"])
    return f"up to {high:g}" if low == 0 else f"over {low:g}" if np.isinf(high) else f"{low:g} to {high:g}"
