"""Curves of a metric against the number of clicks, a line per case and the mean of each region."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bundle.drawing.answer_planes import region_colours
from scripts.files import atomic_write


def draw_click_curves(rows: pd.DataFrame, metrics: Mapping[str, str], path: Path) -> None:
    """Write a PNG: a row per metric, a column per region.

    Args:
        rows: with `case`, `region`, `clicks` and a column per metric.
        metrics: columns, with the title of each.
        path: of the PNG.
    """
    regions = [*dict.fromkeys(rows["region"])]
    colours = region_colours(regions)
    figure = Figure(figsize=(1 + 2.4 * len(regions), 2.3 * len(metrics) + 0.5), layout="constrained")
    cells = figure.subplots(len(metrics), len(regions), sharex=True, sharey=True, squeeze=False)
    for line, (metric, title) in zip(cells, metrics.items(), strict=True):
        for cell, region in zip(line, regions, strict=True):
            own = rows[rows["region"] == region]
            for _, case in own.groupby("case"):
                cell.plot(case["clicks"], case[metric], color="0.75", linewidth=0.8)
            mean = own.groupby("clicks")[metric].mean()
            cell.plot(mean.index, mean, "o-", color=colours[region], markersize=4, linewidth=1.8)
            cell.text(mean.index[-1], mean.iloc[-1] + 0.03, f"{mean.iloc[-1]:.2f}", fontsize=8, ha="right")
            cell.text(mean.index[0], mean.iloc[0] + 0.03, f"{mean.iloc[0]:.2f}", fontsize=8, ha="left")
            cell.set(ylim=(0, 1.05))
            cell.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            cell.spines[["top", "right"]].set_visible(False)
            cell.grid(True, axis="y", color="0.92")
        line[0].set_ylabel(title)
    for cell, region in zip(cells[0], regions, strict=True):
        cell.set_title(region, loc="left", fontsize=10)
    for cell in cells[-1]:
        cell.set_xlabel("clicks on the region")
    number = rows["case"].nunique()
    figure.suptitle(f"Mean of {number} cases (colour) and each case (grey)", fontsize=9, x=0.01, ha="left")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
