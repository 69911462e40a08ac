"""Figures of volumes: scores, errors and lesions found by volume, one small figure per region."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context

from bundle.analysis.evaluation import Evaluation
from bundle.drawing.axes import SMALL, draw_diagonal, draw_dots, new_axes, show_0_to_1, show_few_ticks, show_logarithmic
from bundle.drawing.svg import STYLE, Drawing, Ink, figure_to_svg
from bundle.reporting.words import MINUS, format_amount, format_share, format_share3, plural, size_word, unit_sign


@rc_context(STYLE)
def draw_dice_by_volume(evaluation: Evaluation, region: str, thirds: Sequence[Mapping[str, Any]]) -> Drawing | None:
    """Dice against the true volume; None if no truth has the region."""
    own = evaluation.rows_of(region)
    own = own[own["volume_truth"] > 0]
    if not len(own):
        return None
    unit = unit_sign(evaluation.volume_unit)
    titles = [
        f"{r.case}: Dice {format_share3(r.dice)}, {format_amount(r.volume_truth)} {unit}" for r in own.itertuples()
    ]
    figure, axes = new_axes()
    draw_dots(axes, own["volume_truth"], own["dice"])
    axes.set(xlabel=f"true {size_word(evaluation.volume_unit)}, {unit}", ylabel="Dice")
    show_0_to_1(axes.yaxis)
    show_logarithmic(axes, own["volume_truth"].min() / 1.5, own["volume_truth"].max() * 1.5)
    words = (
        f"{region}: median Dice {format_share(thirds[0]['dice_median'])} in the smallest third of"
        f" {plural(len(own), 'case')}, {format_share(thirds[-1]['dice_median'])} in the largest."
    )
    return figure_to_svg(figure, words, {"dots": titles})


@rc_context(STYLE)
def draw_volume_agreement(evaluation: Evaluation, region: str, limits: Mapping[str, float] | None) -> Drawing | None:
    """Predicted minus true volume against their mean, with bias and 95 % limits (Bland and Altman)."""
    if limits is None:
        return None
    own = evaluation.rows_of(region).dropna(subset=["volume_error"])
    unit = unit_sign(evaluation.volume_unit)
    bias, low, high = (limits[key] for key in ("bias", "low", "high"))
    off = (
        f"{format_amount(abs(bias))} {unit} too {'large' if bias > 0 else 'small'}" if bias else "as large as the truth"
    )
    titles = [
        f"{r.case}: {format_amount(r.volume_prediction)} {unit} for {format_amount(r.volume_truth)} {unit}"
        for r in own.itertuples()
    ]
    figure, axes = new_axes()
    axes.axhline(0, color=Ink.GRID)
    axes.axhline(bias, color=Ink.SECOND)
    for limit in (low, high):
        axes.axhline(limit, color=Ink.SECOND, linestyle=(0, (4, 3)), linewidth=1)
    draw_dots(axes, (own["volume_truth"] + own["volume_prediction"]) / 2, own["volume_error"])
    axes.set(xlabel=f"mean of truth and prediction, {unit}", ylabel=f"prediction {MINUS} truth, {unit}")
    axes.margins(y=0.12)
    show_few_ticks(axes)
    words = (
        f"{region}: predictions are on average {off};"
        f" 95 % limits of agreement {format_amount(low, True)} to {format_amount(high, True)} {unit}."
    )
    return figure_to_svg(figure, words, {"dots": titles})


@rc_context(STYLE)
def draw_volume_errors(evaluation: Evaluation, region: str) -> Drawing | None:
    """Volume added in error against volume missed."""
    own = evaluation.rows_of(region).dropna(subset=["volume_fp", "volume_fn"])
    if not len(own):
        return None
    unit = unit_sign(evaluation.volume_unit)
    missed, added = own["volume_fn"], own["volume_fp"]
    titles = [
        f"{r.case}: misses {format_amount(r.volume_fn)} {unit}, adds {format_amount(r.volume_fp)} {unit}"
        for r in own.itertuples()
    ]
    figure, axes = new_axes()
    draw_diagonal(axes, 1.08 * max(missed.max(), added.max()) or 1.0, "adds more", "misses more")
    draw_dots(axes, missed, added)
    axes.set(xlabel=f"missed, {unit}", ylabel=f"added in error, {unit}")
    show_few_ticks(axes)
    words = (
        f"{region}: {int((missed > added).sum())} of {plural(len(own), 'case')} miss more than they add; median"
        f" {format_amount(missed.median())} {unit} missed and {format_amount(added.median())} {unit} added."
    )
    return figure_to_svg(figure, words, {"dots": titles})


@rc_context(STYLE)
def draw_lesions_by_volume(evaluation: Evaluation, region: str, classes: Sequence[Mapping[str, Any]]) -> Drawing | None:
    """The share of true lesions found, by their volume, with Wilson's interval."""
    classes = [row for row in classes if row["lesions"]]
    if not classes:
        return None
    unit = unit_sign(evaluation.volume_unit)
    shares = np.array([row["found"] / row["lesions"] for row in classes])
    low, high = np.array([row["share_interval"] for row in classes]).T
    found = {_class(row): f"{row['found']} of {row['lesions']}" for row in classes}
    places = np.arange(len(classes))
    figure, axes = new_axes()
    axes.bar(places, shares, width=0.6, color=Ink.ACCENT, alpha=0.55)
    reach = np.clip([shares - low, high - shares], 0, None)
    axes.errorbar(places, shares, reach, fmt="none", ecolor=Ink.TEXT, elinewidth=1)
    show_0_to_1(axes.yaxis)
    axes.set(xlabel=f"{size_word(evaluation.volume_unit)} of the lesion, {unit}", ylabel="share found")
    axes.set_xlim(-0.6, len(classes) - 0.4)
    axes.set_xticks(places, [f"{volumes}\n{numbers}" for volumes, numbers in found.items()], fontsize=SMALL)
    axes.tick_params(axis="x", length=0)
    said = ", ".join(f"{numbers} of {volumes} {unit}" for volumes, numbers in found.items())
    return figure_to_svg(figure, f"{region}, lesions found: {said}.")


def _class(row: Mapping[str, Any]) -> str:
    """`up to 0.1`, `0.1 to 1` or `over 10`."""
    low, high = float(row["above"]), float(row["up_to"])
    return f"up to {high:g}" if low == 0 else f"over {low:g}" if np.isinf(high) else f"{low:g} to {high:g}"
