"""Figures of rater agreement, one dot per image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bundle.analysis.agreement_summary import select_pairs, select_pairs_with_raters, sizes_with_others
from bundle.analysis.rater_masks import MODEL
from bundle.analysis.statistics import quartiles
from bundle.drawing.axes import cut_name, new_axes
from bundle.drawing.svg import STYLE, Drawing, Ink, figure_to_svg
from bundle.reporting.words import MINUS, format_share, format_share3, format_signed, plural

LONGEST = 16  # letters of a name next to a row


@rc_context(STYLE)
def draw_dice_by_image(pairs: pd.DataFrame, raters: Sequence[str]) -> Drawing:
    """Dice of every pair of raters by image, least agreement first, with the model's."""
    between, against = select_pairs(pairs, raters, raters), select_pairs(pairs, [MODEL], raters)
    order = between.groupby("image")["dice"].mean().sort_values()
    place = {image: number for number, image in enumerate(order.index)}
    figure, axes = new_axes()
    titles = {}
    for rows, colour, aside, gid in ((between, Ink.ACCENT, -0.15, "raters"), (against, Ink.SECOND, 0.15, "model")):
        rows = rows[rows["image"].isin(place)]
        if len(rows):
            x = rows["image"].map(place) + aside * bool(len(against))
            axes.scatter(x, rows["dice"], s=20, alpha=0.6, linewidths=0, color=colour, gid=gid)
            titles[gid] = [
                f"{r.image}: {r.first} and {r.second}, Dice {format_share3(r.dice)}" for r in rows.itertuples()
            ]
    axes.set(ylabel="Dice", xlabel="image, least agreement first", ylim=(min(0.9, pairs["dice"].min()) - 0.03, 1.01))
    axes.set_xticks([])
    if len(order) <= 12:
        axes.set_xticks(range(len(order)), order.index, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.grid(axis="y")
    words = (
        f"Every pair of raters on {plural(len(order), 'image')}: least agreement on {order.index[0]} (mean Dice"
        f" {format_share(order.iloc[0])}), most on {order.index[-1]} ({format_share(order.iloc[-1])})."
    )
    return figure_to_svg(figure, words + (" Orange: the model with each rater." if len(against) else ""), titles)


@rc_context(STYLE)
def draw_dice_by_rater(pairs: pd.DataFrame, summary: Mapping[str, Any]) -> Drawing:
    """Mean Dice with the (other) raters per image, one row of dots per rater and for the model."""
    raters = summary["raters"]
    values = {
        who: select_pairs_with_raters(pairs, who, raters).groupby("image")["dice"].mean() for who in _people(summary)
    }
    figure, axes, titles = _lines(values, format_share3)
    axes.set(xlabel="mean Dice with the (other) raters", xlim=(None, 1.01))
    medians = ", ".join(f"{who} {format_share(own.median())}" for who, own in values.items() if len(own))
    return figure_to_svg(figure, f"Agreement with the (other) raters, one dot per image. Medians: {medians}.", titles)


@rc_context(STYLE)
def draw_size_bias(summary: Mapping[str, Any]) -> Drawing | None:
    """Size of each mask relative to the mean of the (other) raters, in per cent."""
    images = {image: own["sizes"] for image, own in summary["images"].items()}
    values = {}
    for who in _people(summary):
        own = sizes_with_others(who, summary["raters"], images).query("others > 0")
        values[who] = 100 * (own["own"] / own["others"] - 1)
    if not any(map(len, values.values())):
        return None
    figure, axes, titles = _lines(values, lambda value: f"{format_signed(value)} %")
    axes.axvline(0, color=Ink.SOFT, linewidth=1)
    axes.set(xlabel="size difference from the (other) raters, %")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.0f}".replace("-", MINUS) if value else "0")
    medians = ", ".join(f"{who} {format_signed(own.median())} %" for who, own in values.items() if len(own))
    return figure_to_svg(figure, f"Size relative to the mean of the (other) raters. Medians: {medians}.", titles)


def _people(summary: Mapping[str, Any]) -> list[str]:
    return [*summary["raters"], *([MODEL] if summary["model"] else [])]


def _lines(values: Mapping[str, pd.Series], write: Any) -> tuple[Any, Axes, dict[str, list[str]]]:
    """One row of dots per rater, with a mark at median and quartiles; the model in the second colour."""
    figure, axes = new_axes(70 + 32 * len(values))
    titles = {}
    for row, (who, own) in enumerate(values.items()):
        if not len(own):
            continue
        aside = 0.12 * (np.arange(len(own)) % 3 - 1)  # so that dots do not overlap
        colour = Ink.SECOND if who == MODEL else Ink.ACCENT
        axes.scatter(own, row + aside, s=20, alpha=0.6, linewidths=0, color=colour, gid=f"line{row}")
        q1, median, q3 = quartiles(own)
        axes.plot([q1, q3], [row + 0.33] * 2, color=Ink.TEXT, linewidth=2)
        axes.plot([median] * 2, [row + 0.23, row + 0.43], color=Ink.TEXT, linewidth=2)
        titles[f"line{row}"] = [f"{who}, {image}: {write(value)}" for image, value in own.items()]
    axes.set_yticks(range(len(values)), [cut_name(who, LONGEST) for who in values], fontsize=9)
    axes.set_ylim(len(values) - 0.4, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x")
    return figure, axes, titles
