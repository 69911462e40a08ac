"""Courses over time: a measure of each region against the days since the first time point."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib import rc_context

from bundle.drawing.answer_planes import region_colours
from bundle.drawing.axes import SMALL, new_axes
from bundle.drawing.svg import STYLE, Drawing, Ink, figure_to_svg

MARKERS = "osD^vP"  # so that regions differ without colours


@rc_context(STYLE)
def draw_course(
    days: Sequence[int],
    values: Mapping[str, Sequence[float]],
    label: str,
    operations: Sequence[int] = (),
    left_out: Sequence[int] = (),
) -> Drawing:
    """A line per region, broken at operations.

    Args:
        days: of the time points that are compared.
        values: by region, one per day.
        label: of the vertical axis.
        operations: days, drawn as lines across.
        left_out: days of time points that are not compared, marked at the bottom.
    """
    figure, axes = new_axes(height=260)
    colours, titles = region_colours([*values]), {}
    for place, (name, own) in enumerate(values.items()):
        for start, end in _pieces(days, operations):
            axes.plot(days[start:end], own[start:end], color=colours[name], linewidth=1.6)
        titles[f"dots{place}"] = [f"{name}, day {day}: {value:.2f}" for day, value in zip(days, own, strict=True)]
        marker = MARKERS[place % len(MARKERS)]
        axes.scatter(days, own, s=36, color=colours[name], marker=marker, gid=f"dots{place}", label=name, zorder=3)
    for operation in operations:
        axes.axvline(operation, color=Ink.SOFT, linestyle=(0, (4, 3)), linewidth=1)
        axes.text(
            operation, 1.0, "operation", transform=axes.get_xaxis_transform(), fontsize=SMALL, ha="center", va="bottom"
        )
    if left_out:
        axes.plot(left_out, [0] * len(left_out), "x", color=Ink.SOFT, clip_on=False, label="not compared")
    axes.set(xlabel="days since the first time point", ylabel=label)
    axes.set_ylim(bottom=0)
    axes.grid(True, axis="y")
    axes.legend(
        frameon=False, fontsize=SMALL, ncols=len(values) + bool(left_out), loc="lower left", bbox_to_anchor=(0, 1.06)
    )
    words = "; ".join(f"{name} {', '.join(f'{value:.1f}' for value in own)}" for name, own in values.items())
    listed = ", ".join(map(str, days))
    return figure_to_svg(figure, f"{label[0].upper()}{label[1:]}, on days {listed}: {words}.", titles)


def _pieces(days: Sequence[int], operations: Sequence[int]) -> list[tuple[int, int]]:
    """Where lines start and end: they do not cross an operation."""
    cuts = sorted({sum(day <= operation for day in days) for operation in operations} | {0, len(days)})
    return [*pairwise(cuts)]
