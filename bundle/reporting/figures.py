"""What do the scores look like? One small figure a region, all cases as dots, for one question each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from bundle.evaluations import Evaluation
from bundle.reporting.svg import STYLE, Drawing, Ink, draw, new_figure
from bundle.reporting.words import amount, count, name, share, sign
from bundle.statistics import quantiles

WIDTH, HEIGHT = 340, 236  # CSS pixels: a phone shows one beside none, a screen three
SHARES = ("dice", "nsd_2mm", "precision", "recall")
LENGTHS = ("hd95", "assd")
DOT = {"s": 26, "alpha": 0.55, "linewidths": 0}
NEAR = 1.0  # mm or pixels: distances below are drawn on a linear scale, since a logarithm has no 0


def distributions(evaluation: Evaluation, region: str) -> Drawing:
    """Dice, NSD, precision and recall of every case, with median and quartiles."""
    own = evaluation.of(region)
    metrics = [metric for metric in SHARES if own[metric].notna().any()]
    with rc_context(STYLE):
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.subplots()
        titles = {}
        for place, metric in enumerate(metrics):
            rows = own.dropna(subset=[metric])
            colour = Ink.ACCENT if metric == "dice" else Ink.SOFT
            titles |= _strip(axes, place, rows[metric].to_numpy(), rows, metric, colour, share)
        axes.set(ylim=(-0.03, 1.03), yticks=np.linspace(0, 1, 6))
        _strips(axes, [name(metric, evaluation.length) for metric in metrics])
    q1, median, q3 = quantiles(own["dice"], [0.25, 0.5, 0.75])
    worst = own.loc[own["dice"].idxmin()]
    words = (
        f"{region}, {count(len(own), 'case')}: median Dice {share(median)}, half of the cases between {share(q1)} and"
        f" {share(q3)}, worst {share(worst['dice'])} ({worst['case']})."
    )
    return draw(figure, words, titles)


def boundaries(evaluation: Evaluation, region: str) -> Drawing:
    """HD95 and ASSD of every case; those without a distance stand on a line of their own."""
    own = evaluation.of(region)
    metrics = [metric for metric in LENGTHS if own[metric].notna().any()]
    values = evaluation.scores[metrics].to_numpy()
    top = float(np.max(values[np.isfinite(values)], initial=NEAR)) * 1.5
    ceiling = top * 1.8  # where inf is drawn, the same in every region
    with rc_context(STYLE):
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.subplots()
        axes.set_yscale("symlog", linthresh=NEAR, linscale=0.4)
        titles = {}
        for place, metric in enumerate(metrics):
            rows = own.dropna(subset=[metric])
            colour = Ink.ACCENT if place == 0 else Ink.SOFT
            values = rows[metric].to_numpy()
            titles |= _strip(axes, place, values, rows, metric, colour, amount, ceiling, np.arcsinh)
        ticks = [tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= top]
        axes.set(ylim=(-0.15, ceiling * 1.35), ylabel=sign(evaluation.length))
        axes.set_yticks([*ticks, ceiling], [*map(str, ticks), "∞"])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.axhline(ceiling / 1.3, color=Ink.GRID, linewidth=0.8)
        _strips(axes, [name(metric) for metric in metrics])
    hd95 = own[metrics[0]].to_numpy()
    median, worst = quantiles(hd95, [0.5, 1])
    none = int(np.isinf(hd95).sum())
    words = f"{region}: median {name(metrics[0])} {amount(median)} {sign(evaluation.length)}" + (
        f", {count(none, 'case')} without a distance because one mask is empty."
        if none
        else f", worst {amount(worst)} {sign(evaluation.length)}."
    )
    return draw(figure, words, titles)


def by_volume(evaluation: Evaluation, region: str) -> Drawing | None:
    """Dice against the true volume; None where no truth holds the region."""
    own = evaluation.of(region)
    own = own[own["volume_truth"] > 0]
    if not len(own):
        return None
    unit = sign(evaluation.volume)
    with rc_context(STYLE):
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.subplots()
        axes.set_xscale("log")
        titles = [f"{r.case}: Dice {share(r.dice)}, {amount(r.volume_truth)} {unit}" for r in own.itertuples()]
        axes.scatter(own["volume_truth"], own["dice"], color=Ink.ACCENT, gid="dots", **DOT)
        axes.set(ylim=(-0.03, 1.03), yticks=np.linspace(0, 1, 6), xlabel=f"true volume, {unit}", ylabel="Dice")
        low, high = own["volume_truth"].min(), own["volume_truth"].max()
        axes.set_xlim(low / 1.5, high * 1.5)
        _plain_log(axes, low / 1.5, high * 1.5)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
    small, large = (
        part["dice"].median()
        for part in (own.nsmallest(_third(own), "volume_truth"), own.nlargest(_third(own), "volume_truth"))
    )
    words = (
        f"{region}: median Dice {share(small)} in the smallest third of the tumours, {share(large)} in the largest;"
        f" {count(len(own), 'case')} from {amount(low)} to {amount(high)} {unit}."
    )
    return draw(figure, words, {"dots": titles})


def agreement(evaluation: Evaluation, region: str) -> Drawing | None:
    """Predicted minus true volume against their mean, with bias and 95 % limits (Bland and Altman)."""
    own = evaluation.of(region).dropna(subset=["volume_error"])
    if len(own) < 2:
        return None
    unit = sign(evaluation.volume)
    middle = (own["volume_truth"] + own["volume_prediction"]) / 2
    bias, spread = own["volume_error"].mean(), 1.96 * own["volume_error"].std(ddof=1)
    with rc_context(STYLE):
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.subplots()
        titles = [
            f"{r.case}: {amount(r.volume_prediction)} {unit} for {amount(r.volume_truth)} {unit}"
            for r in own.itertuples()
        ]
        axes.axhline(0, color=Ink.GRID)
        axes.axhline(bias, color=Ink.SECOND)
        for limit in (bias - spread, bias + spread):
            axes.axhline(limit, color=Ink.SECOND, linestyle=(0, (4, 3)), linewidth=1)
        axes.scatter(middle, own["volume_error"], color=Ink.ACCENT, gid="dots", **DOT)
        axes.set(xlabel=f"mean of truth and prediction, {unit}", ylabel=f"prediction − truth, {unit}")
        axes.margins(y=0.12)
        for locator in (axes.xaxis, axes.yaxis):
            locator.set_major_locator(MaxNLocator(5))
    words = (
        f"{region}: predictions are on average {amount(abs(bias))} {unit} too {'large' if bias > 0 else 'small'};"
        f" 95 % limits of agreement {amount(bias - spread, True)} to {amount(bias + spread, True)} {unit}."
    )
    return draw(figure, words, {"dots": titles})


def errors(evaluation: Evaluation, region: str) -> Drawing | None:
    """What was added in error against what was missed."""
    own = evaluation.of(region).dropna(subset=["volume_fp", "volume_fn"])
    if not len(own):
        return None
    unit = sign(evaluation.volume)
    top = max(own["volume_fp"].max(), own["volume_fn"].max(), 1e-6) * 1.08
    with rc_context(STYLE):
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.subplots()
        titles = [
            f"{r.case}: misses {amount(r.volume_fn)} {unit}, adds {amount(r.volume_fp)} {unit}"
            for r in own.itertuples()
        ]
        axes.plot([0, top], [0, top], color=Ink.GRID)
        axes.text(
            0.03, 0.97, "adds more than it misses", transform=axes.transAxes, va="top", fontsize=9.5, color=Ink.SOFT
        )
        axes.text(0.97, 0.03, "misses more", transform=axes.transAxes, ha="right", fontsize=9.5, color=Ink.SOFT)
        axes.scatter(own["volume_fn"], own["volume_fp"], color=Ink.ACCENT, gid="dots", **DOT)
        axes.set(xlim=(-top * 0.03, top), ylim=(-top * 0.03, top))
        axes.set(xlabel=f"missed, {unit}", ylabel=f"added in error, {unit}")
        for locator in (axes.xaxis, axes.yaxis):
            locator.set_major_locator(MaxNLocator(5))
    under = int((own["volume_fn"] > own["volume_fp"]).sum())
    words = (
        f"{region}: {under} of {count(len(own), 'case')} miss more than they add; in the median"
        f" {amount(own['volume_fn'].median())} {unit} missed and {amount(own['volume_fp'].median())} {unit} added."
    )
    return draw(figure, words, {"dots": titles})


def lesions_by_volume(evaluation: Evaluation, region: str, classes: Sequence[dict]) -> Drawing | None:
    """The share of true lesions found, by their volume, with Wilson's interval."""
    classes = [row for row in classes if row["lesions"]]
    if not classes:
        return None
    shares = np.array([row["found"] / row["lesions"] for row in classes])
    ends = np.array([row["share_interval"] for row in classes]).T
    labels = [f"{lesion_class(row)}\n{row['found']} of {row['lesions']}" for row in classes]
    with rc_context(STYLE):
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.subplots()
        places = np.arange(len(classes))
        axes.bar(places, shares, width=0.6, color=Ink.ACCENT, alpha=0.55)
        reach = np.clip([shares - ends[0], ends[1] - shares], 0, None)
        axes.errorbar(places, shares, reach, fmt="none", ecolor=Ink.TEXT, elinewidth=1)
        axes.set(ylim=(0, 1.03), xlim=(-0.6, len(classes) - 0.4), ylabel="share found")
        axes.set_xticks(places, labels, fontsize=9.5)
        axes.set_xlabel(f"lesion volume, {sign(evaluation.volume)}")
        axes.tick_params(axis="x", length=0)
    said = ", ".join(f"{row['found']} of {row['lesions']} {lesion_class(row)}" for row in classes)
    return draw(figure, f"{region}, lesions found by volume in {sign(evaluation.volume)}: {said}.")


def lesion_class(row: dict) -> str:
    """`0.1 to 1`, `up to 0.1` or `over 10`."""
    low, high = float(row["above"]), float(row["up_to"])
    return f"up to {high:g}" if low == 0 else f"over {low:g}" if np.isinf(high) else f"{low:g} to {high:g}"


def calibration(evaluation: Evaluation) -> Drawing:
    """The calibration error and the Brier score of every case."""
    table = evaluation.calibration
    metrics = [metric for metric in ("ece", "brier") if table[metric].notna().any()]
    with rc_context(STYLE):
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.subplots()
        titles = {}
        for place, metric in enumerate(metrics):
            rows = table.dropna(subset=[metric])
            titles |= _strip(axes, place, rows[metric].to_numpy(), rows, metric, Ink.ACCENT, _three)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        _strips(axes, [name(metric) for metric in metrics])
    said = "; ".join(f"median {name(m)} {_three(table[m].median())}, worst {_three(table[m].max())}" for m in metrics)
    return draw(figure, f"{count(len(table), 'case')} with probabilities: {said}.", titles)


def against(evaluation: Evaluation, reference: Evaluation, region: str) -> Drawing:
    """Dice here against Dice of the reference, case by case."""
    own = evaluation.of(region).merge(reference.of(region), on="case", suffixes=("", "_other"))
    with rc_context(STYLE):
        figure = new_figure(WIDTH, WIDTH)
        axes = figure.subplots()
        titles = [f"{r.case}: {share(r.dice)} here, {share(r.dice_other)} in the reference" for r in own.itertuples()]
        axes.plot([0, 1], [0, 1], color=Ink.GRID)
        axes.text(0.03, 0.97, "better here", transform=axes.transAxes, va="top", fontsize=9.5, color=Ink.SOFT)
        axes.text(0.97, 0.03, "better there", transform=axes.transAxes, ha="right", fontsize=9.5, color=Ink.SOFT)
        axes.scatter(own["dice_other"], own["dice"], color=Ink.ACCENT, gid="dots", **DOT)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="Dice of the reference", ylabel="Dice here")
    better, worse = int((own["dice"] > own["dice_other"]).sum()), int((own["dice"] < own["dice_other"]).sum())
    words = f"{region}: of {count(len(own), 'case')}, {better} have a higher Dice here and {worse} a lower one."
    return draw(figure, words, {"dots": titles})


def _strip(
    axes: Axes, place: float, values: np.ndarray, rows: pd.DataFrame, metric, colour, write, ceiling=None, scale=None
) -> dict:
    """Draw every value as a dot, beside those of about the same height, with a mark at median and quartiles."""
    heights = values if ceiling is None else np.where(np.isinf(values), ceiling, values)
    axes.scatter(place + _aside(heights if scale is None else scale(heights)), heights, color=colour, gid=metric, **DOT)
    q1, median, q3 = (ceiling if np.isinf(q) else q for q in quantiles(values, [0.25, 0.5, 0.75]))
    axes.plot([place - 0.42] * 2, [q1, q3], color=Ink.TEXT, linewidth=2.2, solid_capstyle="butt")
    axes.plot([place - 0.46, place - 0.30], [median] * 2, color=Ink.TEXT, linewidth=2.2, solid_capstyle="butt")
    return {metric: [f"{case}: {write(value)}" for case, value in zip(rows["case"], values, strict=True)]}


def _aside(heights: np.ndarray, classes: int = 32, widest: float = 0.34) -> np.ndarray:
    """How far each dot moves to the side, so that dots of about the same height do not hide each other."""
    span = np.ptp(heights) if len(heights) else 0
    number = np.zeros(len(heights), int) if not span else ((heights - heights.min()) / span * classes).astype(int)
    aside = np.zeros(len(heights))
    fullest = np.bincount(number).max(initial=1)
    step = min(0.09, 2 * widest / fullest)
    for one in np.unique(number):
        members = np.flatnonzero(number == one)
        members = members[np.argsort(heights[members], kind="stable")]
        aside[members] = (np.arange(len(members)) - (len(members) - 1) / 2) * step
    return aside + 0.04


def _strips(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xlim(-0.6, len(names) - 0.5)
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _plain_log(axes: Axes, low: float, high: float) -> None:
    """Ticks such as 0.5, 5, 50 that are read without thinking of exponents."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = (1, 2, 5) if np.log10(high / low) < 2.2 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _third(own: pd.DataFrame) -> int:
    return max(len(own) // 3, 1)


def _three(value: float) -> str:
    return share(value, 3)
