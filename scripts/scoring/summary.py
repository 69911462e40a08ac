"""Summary tables of scores: one per level, cases and, if these are slices, patients.

Published 2D numbers differ in how slices without tumour count, so every table states what it counts.
"""

import re

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from scripts.scoring.metrics import BOUNDARY_METRICS

LOW_DICE = 0.7
COPY = "copy_of_label"  # the metric of a row for a prediction that is a copy of its label
FILE = re.compile(r"^.*?\.(nii\.gz|nii|png|tiff?)\b(#\d+)?", re.IGNORECASE)  # at the start of a reason
NUMBERS = re.compile(r"[\d(:]")
SPREAD = ("mean", "median", "q1", "q3", "minimum")
HEADINGS = ("median", "q1", "q3", "min")


def tabulate_regions(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per region: `n` cases; Dice: mean, median, q1, q3, minimum, number below 0.7; HD95: median, number inf.

    A failed case is scored as Dice 0 and HD95 inf in every region. HD95 is NaN if it was not measured.
    """
    n_failed = int((frame["metric"] == "failed").sum())
    rows = {}
    for region in frame.loc[frame["metric"] == "dice", "region"].unique():
        own = frame[frame["region"] == region]
        dice = np.append(own.loc[own["metric"] == "dice", "value"], np.zeros(n_failed))
        hd95 = own.loc[own["metric"] == "hd95", "value"].to_numpy()
        hd95 = np.append(hd95, np.full(n_failed, np.inf)) if len(hd95) else hd95
        rows[region] = {
            "n": len(dice),
            "failed": n_failed,
            **mean_and_quartiles(dice),
            "low": int((dice < LOW_DICE).sum()),
            "hd95_median": np.median(hd95) if len(hd95) else np.nan,
            "hd95_inf": int(np.isinf(hd95).sum()),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("region")


def mean_and_quartiles(values: np.ndarray) -> dict[str, float]:
    """Mean, median, quartiles and minimum."""
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
    return {"mean": np.mean(values), "median": median, "q1": q1, "q3": q3, "minimum": np.min(values)}


def rows_by_level(cases: pd.DataFrame, patients: pd.DataFrame | None = None) -> dict[str, pd.DataFrame]:
    """The title of each table, which states what it counts, and its rows."""
    slices, people = cases["case"].nunique(), cases["patient"].nunique()
    if patients is None:
        return {f"{slices} cases of {people} patients{_count_failed(cases)}": cases}
    counted = f"({slices} of {people} patients{_count_failed(cases)})"
    found = {f"by slice {counted}": cases}
    if (absent := cases["note"] == "absent").any():
        found = {
            f"by slice {counted}; empty and predicted empty is scored as 1": cases,
            f"by slice, without those that are empty and predicted empty{_count_failed(cases)}": cases[~absent],
        }
    return found | {f"by patient ({people}{_count_failed(patients)}): all slices as one volume": patients}


def _count_failed(rows: pd.DataFrame) -> str:
    """`, 2 failed`, or nothing."""
    number = int((rows["metric"] == "failed").sum())
    return f", {number} failed" if number else ""


def group_failures(rows: pd.DataFrame) -> list[tuple[list[str], str]]:
    """The cases that failed for one kind of reason, and the first of their reasons; the largest group first.

    Reasons are of one kind if they differ only in the file and the numbers that they name.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for case, reason in rows.loc[rows["metric"] == "failed", ["case", "note"]].itertuples(index=False):
        kind = NUMBERS.split(FILE.sub("", reason.replace(case, "")))[0].strip().rstrip("s")
        groups.setdefault(kind, []).append((case, reason))
    found = [([case for case, _ in own], own[0][1]) for own in groups.values()]
    return sorted(found, key=lambda group: -len(group[0]))


def print_score_tables(
    cases: pd.DataFrame, console: Console | None = None, patients: pd.DataFrame | None = None, part: str = ""
) -> None:
    """Print `tabulate_regions` of each level as a table, then the cases that failed, by their reasons.

    A warning comes first if predictions are copies of the labels. Titles start with the part of the data list.
    """
    console = console or Console()
    if copies := int((cases["metric"] == COPY).sum()):
        console.print(
            f"WARNING: {copies} of {cases['case'].nunique()} predictions are byte for byte the label's own file, so"
            " these scores say nothing about a system: give the folder of its masks.",
            style="red",
            soft_wrap=True,
        )
    for title, frame in rows_by_level(cases, patients).items():
        console.print(_dice_table(f"{part}: {title}" if part else title, frame), "")
        if frame["metric"].isin(list(BOUNDARY_METRICS)).any():
            console.print(_boundary_table(frame), "")
    for unit, frame in (("case", cases), ("patient", patients)):
        failed = pd.DataFrame() if frame is None else frame[frame["metric"] == "failed"]
        if len(failed):
            title = f"{len(failed)} {unit}{'s' * (len(failed) > 1)} failed (scored as Dice 0 and HD95 inf):"
            console.print(title, style="red", soft_wrap=True)
            for names, reason in group_failures(failed):
                others = f" (similarly {_shortlist(names[1:])})" if len(names) > 1 else ""
                console.print(f"  {names[0]}{others}: {reason}", markup=False, highlight=False, soft_wrap=True)


def _shortlist(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _dice_table(title: str, frame: pd.DataFrame) -> Table:
    far = frame.loc[frame["metric"] == "hd95", "unit"]
    headings = ["n", "Dice\nmean", *HEADINGS, f"< {LOW_DICE}"]
    table = _table(title, [*headings, f"HD95 {far.iloc[0]}\nmedian", "inf"] if len(far) else headings)
    for region, row in tabulate_regions(frame).iterrows():
        cells = [f"{row['n']:.0f}", *(f"{row[name]:.3f}" for name in SPREAD), f"{row['low']:.0f}"]
        distance = [f"{row['hd95_median']:.1f}", f"{row['hd95_inf']:.0f}"]
        table.add_row(str(region), *cells, *(distance if len(far) else []))
    return table


def _boundary_table(frame: pd.DataFrame) -> Table:
    """The scores of cells kept apart; a failed case is scored as 0."""
    lost = np.zeros(int((frame["metric"] == "failed").sum()))
    table = _table("", ["cells kept apart", "n", "mean", *HEADINGS])
    own = frame[frame["metric"].isin(list(BOUNDARY_METRICS))]
    for (region, metric), rows in own.groupby(["region", "metric"], sort=False):
        values = np.append(rows["value"], lost)
        table.add_row(
            region, metric, str(len(values)), *(f"{value:.3f}" for value in mean_and_quartiles(values).values())
        )
    return table


def _table(title: str, headings: list[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.padding, table.show_edge = (0, 1, 0, 0), False  # so that nine numbers fit into 80 columns
    table.add_column("region", overflow="fold", vertical="bottom")
    for heading in headings:
        table.add_column(heading, justify="right", vertical="bottom")
    return table
