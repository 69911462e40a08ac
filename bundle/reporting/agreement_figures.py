"""Figures of the agreement of raters, every image a dot."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bundle.analysis.rater_masks import MODEL
from bundle.analysis.statistics import quartiles
from bundle.drawing.axes import HEIGHT, WIDTH, cut_name
from bundle.drawing.svg import STYLE, Drawing, Ink, draw, new_figure
from bundle.reporting.words import MINUS, count, share, share3, signed

LONGEST = 16  # letters of a name beside a strip


@rc_context(STYLE)
def by_image(pairs: pd.DataFrame, raters: Sequence[str]) -> Drawing:
    """Dice of all pairs of raters image by image, least agreement first, with the model's."""
    between = pairs[pairs["first"].isin(raters) & pairs["second"].isin(raters)]
    against = pairs[(pairs["first"] == MODEL) & pairs["second"].isin(raters)]
    order = between.groupby("image")["dice"].mean().sort_values()
    place = {image: number for number, image in enumerate(order.index)}
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    titles = {}
    for rows, colour, aside, gid in ((between, Ink.ACCENT, -0.15, "raters"), (against, Ink.SECOND, 0.15, "model")):
        rows = rows[rows["image"].isin(place)]
        if len(rows):
            x = rows["image"].map(place) + aside * bool(len(against))
            axes.scatter(x, rows["dice"], s=20, alpha=0.6, linewidths=0, color=colour, gid=gid)
            titles[gid] = [f"{r.image}: {r.first} and {r.second}, Dice {share3(r.dice)}" for r in rows.itertuples()]
    axes.set(ylabel="Dice", xlabel="image, least agreement first", ylim=(min(0.9, pairs["dice"].min()) - 0.03, 1.01))
    if len(order) <= 12:
        axes.set_xticks(range(len(order)), order.index, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    else:
        axes.set_xticks([])
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    words = (
        f"Every pair of raters on {count(len(order), 'image')}: least agreement on {order.index[0]} (mean Dice"
        f" {share(order.iloc[0])}), most on {order.index[-1]} ({share(order.iloc[-1])})."
    )
    return draw(figure, words + (" Orange: the model with each rater." if len(against) else ""), titles)


@rc_context(STYLE)
def by_person(pairs: pd.DataFrame, summary: Mapping[str, Any]) -> Drawing:
    """The mean Dice with the (other) raters on every image, a line of dots for each rater and the model."""
    raters = summary["raters"]
    people = [*raters, *([MODEL] if summary["model"] else [])]
    values = {}
    for who in people:
        mine = pairs[(pairs["first"] == who) & pairs["second"].isin(raters)]
        theirs = pairs[(pairs["second"] == who) & pairs["first"].isin(raters)]
        values[who] = pd.concat([mine, theirs]).groupby("image")["dice"].mean()
    figure, axes, titles = _lines(values, share3)
    axes.set(xlabel="mean Dice with the (other) raters", xlim=(None, 1.01))
    medians = ", ".join(f"{who} {share(own.median())}" for who, own in values.items() if len(own))
    return draw(figure, f"Agreement with the (other) raters, every image a dot. Medians: {medians}.", titles)


@rc_context(STYLE)
def sizes(summary: Mapping[str, Any]) -> Drawing | None:
    """How much more or less each draws than the (other) raters, in per cent of the mean of these."""
    raters = summary["raters"]
    people = [*raters, *([MODEL] if summary["model"] else [])]
    values: dict[str, pd.Series] = {}
    for who in people:
        bias = {}
        for image, own in summary["images"].items():
            others = [own["sizes"][rater] for rater in raters if rater != who and rater in own["sizes"]]
            if who in own["sizes"] and sum(others):
                bias[image] = 100 * (own["sizes"][who] / np.mean(others) - 1)
        values[who] = pd.Series(bias, dtype=float)
    if not any(len(own) for own in values.values()):
        return None
    figure, axes, titles = _lines(values, lambda value: f"{signed(value)} %")
    axes.axvline(0, color=Ink.SOFT, linewidth=1)
    axes.set(xlabel="drawn more or less than the (other) raters, %")
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:+.0f}".replace("-", MINUS) if value else "0")
    )
    medians = ", ".join(f"{who} {signed(own.median())} %" for who, own in values.items() if len(own))
    return draw(figure, f"Size of what was drawn, against the mean of the (other) raters. Medians: {medians}.", titles)


def _lines(values: Mapping[str, pd.Series], write: Any) -> tuple[Any, Axes, dict[str, list[str]]]:
    """A line of dots for each person, with a mark at median and quartiles; the model in the second colour."""
    figure = new_figure(WIDTH, 70 + 32 * len(values))
    axes = figure.subplots()
    titles = {}
    for row, (who, own) in enumerate(values.items()):
        if not len(own):
            continue
        aside = 0.12 * (np.arange(len(own)) % 3 - 1)  # so that dots do not hide each other
        colour = Ink.SECOND if who == MODEL else Ink.ACCENT
        axes.scatter(own, row + aside, s=20, alpha=0.6, linewidths=0, color=colour, gid=f"line{row}")
        q1, median, q3 = quartiles(own)
        axes.plot([q1, q3], [row + 0.33] * 2, color=Ink.TEXT, linewidth=2)
        axes.plot([median] * 2, [row + 0.23, row + 0.43], color=Ink.TEXT, linewidth=2)
        titles[f"line{row}"] = [f"{who}, {image}: {write(value)}" for image, value in own.items()]
    names = [cut_name(who, LONGEST) for who in values]
    axes.set_yticks(range(len(values)), names, fontsize=9)
    axes.set_ylim(len(values) - 0.4, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    return figure, axes, titles
