"""The page of an ablation, ablation.html, and its table, table.csv: one row per variant and region."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context

from bundle.analysis.ablation import MEAN
from bundle.drawing.axes import cut_name, new_axes
from bundle.drawing.svg import STYLE, Drawing, Ink, figure_to_svg
from bundle.reporting.page import load_template
from bundle.reporting.words import MINUS, format_change, join_words, plural
from scripts.files import write_text
from scripts.scoring.tables import write_table

COLOURS = {"better": Ink.ACCENT, "worse": Ink.SECOND, "equal": Ink.TEXT, "undecided": Ink.SOFT}
ROW, LONGEST = 26, 20  # CSS pixels of a variant; letters of its name in a figure


def variant_sentence(rows: Sequence[Mapping[str, Any]], difference: float) -> str:
    """Whether a variant is better, worse, equal or undecided, by region and in the mean over regions."""
    parts = []
    for finding in ("better", "worse", "equal", "undecided"):
        own = [row for row in rows if row["finding"] == finding]
        if not own:
            continue
        if finding == "equal":
            names = join_words([region_name(row) for row in own], most=None)
            parts.append(f"no difference of {difference:g} or more in {names}")
        elif finding == "undecided":
            names = join_words([region_name(row) for row in own], most=None)
            parts.append(f"undecided in {names} with {plural(own[0]['patients'], 'patient')}")
        else:
            sizes = [f"{region_name(row)} by {format_change(abs(row['difference'])).lstrip('+')}" for row in own]
            parts.append(f"{finding} in {join_words(sizes, most=None)}")
    return "; ".join(parts) + "."


def region_name(row: Mapping[str, Any]) -> str:
    """`the mean` for the mean over regions."""
    return "the mean over regions" if row["region"] == MEAN else row["region"]


def write_ablation(
    out: Path,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    variants: Sequence[Mapping[str, Any]],
    ranking: Mapping[str, Any] | None,
    about: Mapping[str, Any],
) -> Path:
    """Write ablation.html and table.csv.

    Args:
        out: the folder.
        title: of the page.
        rows: from `bundle.analysis.ablation.compare_variants`.
        variants: one mapping each, the baseline first: name, changes (what differs from the baseline), runs, failed
            (reasons), and costs or None: seconds, ratio, weights, memory, minutes.
        ranking: from `bundle.analysis.ablation.rank_variants`.
        about: part, seeds, folds, patients, difference, warnings.
    """
    by_variant = {
        name: [row for row in rows if row["variant"] == name] for name in dict.fromkeys(row["variant"] for row in rows)
    }
    sentences = {name: variant_sentence(own, about["difference"]) for name, own in by_variant.items()}
    regions = dict.fromkeys(row["region"] for row in rows)
    by_region = [[row for row in rows if row["region"] == region] for region in regions]
    ends = [abs(end) for row in rows for end in (row["interval"] or [row["difference"]])]
    reach = 1.1 * max([*ends, 1.5 * about["difference"]])
    page = out / "ablation.html"
    text = load_template("ablation.html").render(
        title=title,
        variants=variants,
        by_variant=by_variant,
        sentences=sentences,
        about=about,
        ranking=ranking,
        forest=[draw_forest(own, reach, about["difference"]) for own in by_region],
        MEAN=MEAN,
    )
    write_text(page, text)
    write_table(_table(rows, variants), out / "table.csv")
    return page


@rc_context(STYLE)
def draw_forest(rows: Sequence[Mapping[str, Any]], reach: float, difference: float) -> Drawing:
    """The difference of each variant from the baseline in one region, with its interval."""
    figure, axes = new_axes(ROW * len(rows) + 72)
    axes.axvspan(-difference, difference, color=Ink.GRID, alpha=0.5, linewidth=0)
    axes.axvline(0, color=Ink.SOFT, linewidth=0.8)
    for place, row in enumerate(rows):
        colour, ends = COLOURS[row["finding"]], [max(-reach, min(reach, end)) for end in row["interval"] or []]
        axes.plot(ends, [place] * len(ends), color=colour, linewidth=2)
        axes.plot([row["difference"]], [place], "o", markersize=6, color=colour)
    axes.set(xlim=(-reach, reach), ylim=(len(rows) - 0.5, -0.5), xlabel="difference in Dice")
    axes.set_yticks(range(len(rows)), [cut_name(row["variant"], LONGEST) for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", MINUS))
    axes.locator_params(axis="x", nbins=5)
    said = "; ".join(f"{row['variant']} {format_change(row['difference'])}" for row in rows)
    name = region_name(rows[0])
    return figure_to_svg(figure, f"{name[0].upper()}{name[1:]}: difference in Dice with 95 % intervals. {said}.")


def _table(rows: Sequence[Mapping[str, Any]], variants: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per variant and region: scores, differences, costs."""
    costs = {one["name"]: one["costs"] or {} for one in variants}
    lines = []
    for row in rows:
        low, high = row["interval"] or (np.nan, np.nan)
        own = {key: row[key] for key in ("variant", "region", "patients", "seeds", "baseline", "mean", "difference")}
        own |= {"low": low, "high": high, "p_holm": row["p_holm"], "finding": row["finding"]}
        lines.append(own | {f"cost_{key}": value for key, value in costs.get(row["variant"], {}).items()})
    return pd.DataFrame(lines)
