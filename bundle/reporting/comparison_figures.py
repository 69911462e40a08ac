"""Figures of differences between two systems, one dot per patient."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bundle.analysis.pairing import DIRECTIONS, Matched
from bundle.analysis.significance import subtract_scores
from bundle.drawing.axes import SMALL, WIDTH, draw_diagonal, draw_dots, move_aside, new_axes, show_0_to_1
from bundle.drawing.svg import STYLE, Drawing, Ink, figure_to_svg, new_figure
from bundle.reporting.verdicts import format_difference, format_effect
from bundle.reporting.words import MINUS, format_share3, metric_name, plural, unit_sign
from scripts.scoring.case import WHOLE_CASE

LONGEST = 14  # letters of a system's name inside a figure


def draw_dice_pairs(matched: Matched, first: str, second: str) -> list[Drawing]:
    """The Dice of one system against that of another, one figure per region."""
    return [draw_dice_pair(matched, region, first, second) for metric, region in matched.values if metric == "dice"]


@rc_context(STYLE)
def draw_dice_pair(matched: Matched, region: str, first: str, second: str) -> Drawing:
    """The Dice of one system against that of another, patient by patient."""
    own = matched.values["dice", region]
    both = zip(own.index, own[first], own[second], strict=True)
    titles = [f"{who}: {format_share3(a)} {_where(first)}, {format_share3(b)} {_where(second)}" for who, a, b in both]
    figure, axes = new_axes(WIDTH)
    draw_diagonal(axes, 1.0, f"better {_where(second)}", f"better {_where(first)}")
    draw_dots(axes, own[first], own[second])
    axes.set(xlabel=f"Dice {_where(first)}", ylabel=f"Dice {_where(second)}")
    show_0_to_1(axes.xaxis, axes.yaxis)
    higher, lower = int((own[second] > own[first]).sum()), int((own[second] < own[first]).sum())
    patients = plural(len(own), "patient")
    words = f"{region}: of {patients}, {higher} have a higher Dice {_where(second)} and {lower} a lower one."
    return figure_to_svg(figure, words, {"dots": titles})


@rc_context(STYLE)
def draw_differences(matched: Matched, first: str, second: str, rows: Sequence[Mapping[str, Any]]) -> Drawing:
    """Differences of a second system from a first in one metric: one row per region, one dot per patient."""
    figure, axes = new_axes(84 + 46 * len(rows))
    titles = _differences(axes, matched, first, second, rows)
    said = "; ".join(f"{_line(row)} {format_effect(row)}, {_balance(row)}".strip() for row in rows)
    return figure_to_svg(figure, f"{metric_name(rows[0]['metric'], matched.length_unit)}: {said}.", titles)


@rc_context(STYLE)
def draw_overview(matched: Matched, pairs: Sequence[Mapping[str, Any]]) -> Figure:
    """All differences in one figure: one row per pair of systems, one column per metric."""
    metrics = group_by_metric(pairs[0])
    regions = max(map(len, metrics.values()))
    figure = new_figure(WIDTH * len(metrics), (96 + 46 * regions) * len(pairs))
    figure.patch.set(facecolor="white", alpha=1)
    for line, pair in zip(figure.subplots(len(pairs), len(metrics), squeeze=False), pairs, strict=True):
        for axes, rows in zip(line, group_by_metric(pair).values(), strict=True):
            _differences(axes, matched, pair["first"], pair["second"], rows)
    return figure


def group_by_metric(pair: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The differences of a pair of systems by metric."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in pair["differences"]:
        found.setdefault(row["metric"], []).append(row)
    return found


def _differences(
    axes: Axes, matched: Matched, first: str, second: str, rows: Sequence[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Dots to the right of 0 are patients with a higher number; blue where the second system is better."""
    metric, unit = rows[0]["metric"], rows[0]["unit"]
    changes = [
        pd.Series(subtract_scores(own[second], own[first]), index=own.index)
        for own in (matched.values[metric, row["region"]] for row in rows)
    ]
    finite = np.concatenate([change[np.isfinite(change)] for change in changes])
    reach = 1.1 * np.abs(finite).max(initial=0) or 1.0
    edge = 1.2 * reach  # where infinite differences are drawn
    titles = {}
    for place, (row, change) in enumerate(zip(rows, changes, strict=True)):
        gain = DIRECTIONS[metric] * change
        across = change.clip(-edge, edge)
        aside = pd.Series(move_aside(across.to_numpy()), index=change.index) - 0.1
        kinds = {"+": (gain > 0, Ink.ACCENT), "0": (gain == 0, Ink.SOFT), "-": (gain < 0, Ink.SECOND)}
        for kind, (these, colour) in kinds.items():
            gid = f"{place}{kind}"
            draw_dots(axes, across[these], place + aside[these], colour, gid)
            titles[gid] = [f"{patient}: {format_difference(number, row)}" for patient, number in change[these].items()]
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
    axes.set_xlabel(
        f"difference in {metric_name(metric, matched.length_unit)}" + (f", {unit_sign(unit)}" if unit else "")
    )
    sides = (first, second) if DIRECTIONS[metric] > 0 else (second, first)
    remark = {"transform": axes.transAxes, "fontsize": SMALL, "color": Ink.SOFT, "va": "top"}
    axes.text(0.01, 1.0, f"← better {_where(sides[0])}", **remark)
    axes.text(0.99, 1.0, f"better {_where(sides[1])} →", ha="right", **remark)
    return titles


def _line(row: Mapping[str, Any]) -> str:
    return "" if row["region"] == WHOLE_CASE else row["region"]


def _balance(row: Mapping[str, Any]) -> str:
    return f"better in {row['better']}, equal in {row['equal']} and worse in {row['worse']} of {row['patients']}"


def _where(system: str) -> str:
    """`here`, `there` or `in B`, shortened if long."""
    if system in ("here", "there"):
        return system
    return f"in {system if len(system) <= LONGEST else system[: LONGEST - 1] + '…'}"
