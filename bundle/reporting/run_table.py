"""A table of runs by their settings, runs.csv, and a figure of it with one line per run, runs.png."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure

from scripts.files import atomic_write
from scripts.scoring.tables import write_table

DPI = 150
LONGEST = 18  # letters of a value
COLUMN = 1.5  # inches per setting


def write_run_table(table: pd.DataFrame, settings: Sequence[str], out: Path) -> tuple[Path, Path]:
    """Write the table, sorted by the mean Dice over regions, and the figure."""
    regions = [name for name in table if name not in ("run", "patients", *settings)]
    table = table.assign(mean=table[regions].mean(axis=1)).sort_values("mean", ascending=False, ignore_index=True)
    paths = out / "runs.csv", out / "runs.png"
    write_table(table, paths[0])
    with atomic_write(paths[1]) as temporary:
        draw_parallel_coordinates(table, [*settings, *regions, "mean"], len(settings)).savefig(temporary, dpi=DPI)
    return paths


def draw_parallel_coordinates(table: pd.DataFrame, columns: Sequence[str], categories: int) -> Figure:
    """One line per run across its settings (the first columns) and scores, coloured by the last (Inselberg, 1985)."""
    figure = Figure(figsize=(COLUMN * (len(columns) + 1), 4.2), layout="constrained")
    axes = figure.subplots()
    places = np.empty((len(table), len(columns)))
    for number, name in enumerate(columns):
        axes.axvline(number, color="#c8c8c8", linewidth=0.8)
        if number < categories:
            values = list(dict.fromkeys(table[name].sort_values()))
            levels = np.linspace(0, 1, len(values)) if len(values) > 1 else [0.5]
            places[:, number] = [levels[values.index(value)] for value in table[name]]
            for value, level in zip(values, levels, strict=True):
                text = value if len(value) <= LONGEST else value[: LONGEST - 1] + "…"
                axes.annotate(text, (number, level), xytext=(4, 4), textcoords="offset points", fontsize=8)
        else:
            places[:, number] = table[name]
    axes.plot([categories - 0.5] * 2, [0, 1], color="none")
    score = table[columns[-1]].to_numpy()
    shade = (score - score.min()) / (np.ptp(score) or 1)
    for line, level in zip(places, shade, strict=True):
        axes.plot(range(len(columns)), line, "o-", color=colormaps["viridis"](0.9 * level), linewidth=1.6, markersize=4)
    labels = [name if number < categories else f"Dice {name}" for number, name in enumerate(columns)]
    axes.set_xticks(range(len(columns)), labels, fontsize=9, rotation=20, ha="right")
    axes.set(ylim=(-0.05, 1.1), xlim=(-0.2, len(columns) - 0.4), ylabel="Dice (scores)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        "Runs by the settings in which they differ; lighter: higher mean Dice", fontsize=11, x=0.01, ha="left"
    )
    return figure
