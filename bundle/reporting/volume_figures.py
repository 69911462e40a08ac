"""Figures of volumes: scores, errors and lesions found by volume, one small figure per region."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context

from bundle.analysis.evaluation import Evaluation
from bundle.drawing.axes import SMALL, draw_diagonal, draw_dots, new_axes, show_0_to_1, show_few_ticks, show_logarithmic
from bundle.drawing.svg import STYLE, Drawing, Ink, draw
from bundle.reporting.words import MINUS, amount, count, share, share3, sign, size


@rc_context(STYLE)
def by_volume(evaluation: Evaluation, region: str, thirds: Sequence[Mapping[str, Any]]) -> Drawing | None:
    """Dice against the true volume; None where no truth holds the region."""
    own = evaluation.of(region)
    own = own[own["volume_truth"] > 0]
    if not len(own):
        return None
    unit = sign(evaluation.volume)
    titles = [f"{r.case}: Dice {share3(r.dice)}, {amount(r.volume_truth)} {unit}" for r in own.itertuples()]
    figure, axes = new_axes()
    draw_dots(axes, own["volume_truth"], own["dice"])
    axes.set(xlabel=f"true {size(evaluation.volume)}, {unit}", ylabel="Dice")
    show_0_to_1(axes.yaxis)
    show_logarithmic(axes, own["volume_truth"].min() / 1.5, own["volume_truth"].max() * 1.5)
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
    figure, axes = new_axes()
    draw_diagonal(axes, 1.08 * max(missed.max(), added.max()) or 1.0, "adds more", "misses more")
    draw_dots(axes, missed, added)
    axes.set(xlabel=f"missed, {unit}", ylabel=f"added in error, {unit}")
    show_few_ticks(axes)
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
    found = {_class(row): f"{row['found']} of {row['lesions']}" for row in classes}
    places = np.arange(len(classes))
    figure, axes = new_axes()
    axes.bar(places, shares, width=0.6, color=Ink.ACCENT, alpha=0.55)
    reach = np.clip([shares - low, high - shares], 0, None)
    axes.errorbar(places, shares, reach, fmt="none", ecolor=Ink.TEXT, elinewidth=1)
    show_0_to_1(axes.yaxis)
    axes.set(xlabel=f"{size(evaluation.volume)} of the lesion, {unit}", ylabel="share found")
    axes.set_xlim(-0.6, len(classes) - 0.4)
    axes.set_xticks(places, [f"{volumes}\n{numbers}" for volumes, numbers in found.items()], fontsize=SMALL)
    axes.tick_params(axis="x", length=0)
    said = ", ".join(f"{numbers} of {volumes} {unit}" for volumes, numbers in found.items())
    return draw(figure, f"{region}, lesions found: {said}.")


def _class(row: Mapping[str, Any]) -> str:
    """`up to 0.1`, `0.1 to 1` or `over 10`."""
    low, high = float(row["above"]), float(row["up_to"])
    return f"up to {high:g}" if low == 0 else f"over {low:g}" if np.isinf(high) else f"{low:g} to {high:g}"
