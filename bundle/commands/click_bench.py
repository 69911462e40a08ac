"""`bench clicks`: which cases are clicked, and the tables, files and figure of the result."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Column

from bundle.analysis.click_summary import SHOWN, ClickScore, count_clicks_to_reach, summarise_clicks, summarise_seconds
from bundle.analysis.strict_json import to_strict_json
from bundle.commands.shared import Outcome, score_table
from bundle.commands.workflows import hide_warnings, read_run_config, run_files
from scripts.data.datalist import read_datalist, select_cases
from scripts.errors import InputError
from scripts.files import read_mapping
from scripts.scoring.run import ROLES, patient_roles
from scripts.scoring.tables import write_table

TITLES = {"dice": "Dice", "nsd_2mm": "NSD at 2 mm"}


def bench_clicks(
    run: Path | None,
    datalist: Path | None,
    dataset_dir: Path | None,
    fold: int | None,
    clicks: int,
    seen: bool,
    out: Path | None,
    device: str,
    promptable: tuple[str, Path | None, str | None] | None = None,
) -> Outcome:
    """Measure what clicks buy on cases that a run has not been trained on; see `bundle.commands.bench.bench`.

    `promptable` is a public model in place of the run's network: its name, weights and channel.

    Raises:
        InputError: no run is given, it takes no clicks, or it was trained on a case.
    """
    if run is None:
        raise InputError("bench clicks needs RUN: the folder of a run that was trained with the recipe clicks.")
    hide_warnings()
    from bundle.benchmarks.clicks import measure_clicks, read_model, read_promptable

    files, config = run_files(run, "configs/inference.yaml"), read_run_config(run)
    settings, out = read_mapping(files[-1]), out or run / (f"clicks-{promptable[0]}" if promptable else "clicks")
    if out.is_file():
        raise InputError(f"{out} is a file: give a folder as --out, for a table, a figure and the cases.")
    if datalist is None and not config.get("datalist"):
        raise InputError(f"{run} does not say which data list it was trained with: give --datalist.")
    dataset_dir = dataset_dir or (datalist.parent if datalist else Path(config["dataset_dir"]))
    content = read_datalist(datalist or Path(config["datalist"]))
    entries = _select(content, dataset_dir, settings.get("fold") if fold is None else fold, fold is None)
    if promptable:
        role = f"what {promptable[0]} was trained on is not known here; it may have been these patients"
        model = read_promptable(*promptable, content["channels"], [*settings["regions"]], device)
    else:
        role = _require_unseen(run, entries, seen)
        model = read_model(files, run, device)
    rows = measure_clicks(model, entries, settings["regions"], out / "cases", clicks, content.get("ignore"))
    return _show(rows, out, role)


def _select(content: dict[str, Any], dataset_dir: Path, fold: int | None, any_test: bool) -> list[dict[str, Any]]:
    """The test cases, if the list has any and no fold is asked for; else those of the fold."""
    tested = any_test and any(entry.get("split") == "test" for entry in content["training"])
    return select_cases(content, dataset_dir, "test" if tested else "validation", fold)


def _require_unseen(run: Path, entries: list[dict[str, Any]], seen: bool) -> str:
    """What the cases' patients were used for, in a sentence."""
    patients = sorted({entry["patient"] for entry in entries})
    roles = patient_roles([run / "model.pt"], patients)
    if (known := roles.get("training")) and not seen:
        raise InputError(
            f"{run} was trained on {', '.join(known[:3])}{' and others' * (len(known) > 3)}: their masks say nothing"
            " about new patients; leave --fold out for the cases that it was not trained on, or add --seen."
        )
    used = [f"{len(names)} of {len(patients)} patients {ROLES[role]}" for role, names in roles.items() if names]
    return "; ".join(used) or "what the run was trained on is not known"


def _show(rows: pd.DataFrame, out: Path, role: str) -> Outcome:
    """Print the tables, write clicks.csv and clicks.png."""
    from bundle.drawing.click_curves import draw_click_curves

    scores, reach, seconds = summarise_clicks(rows, [*TITLES]), count_clicks_to_reach(rows), summarise_seconds(rows)
    console, shown = Console(), [number for number in SHOWN if number <= rows["clicks"].max()]
    for metric, title in TITLES.items():
        title += f": mean over {rows['case'].nunique()} cases by clicks on the region"
        table = score_table(title, Column("Region"), *map(str, shown))
        for region in dict.fromkeys(rows["region"]):
            own = [score for score in scores if (score.region, score.metric) == (region, metric)]
            table.add_row(region, *map(_describe, own))
        console.print(table)
    print("Below each mean: the 95 % interval over patients, or the smallest and the largest for fewer than five.")
    headings = (Column("Region"), "Dice", "Median", "Without a click", "Reached", "Cases")
    table = score_table("Clicks until a Dice is reached", *headings)
    for one in reach:
        middle = f"{one.median:g}" if np.isfinite(one.median) else "not reached"
        table.add_row(one.region, f"{one.goal}", middle, str(one.at_once), str(one.reached), str(one.n))
    console.print(table)
    followed = rows.loc[rows["clicks"] == rows["clicks"].max(), "followed"].mean()
    print(f"Followed by the model itself: {followed:.0%} of the clicks; of the others voxels around each were set.")
    print(
        f"Seconds: {seconds['automatic']:.2f} for the automatic masks of a scan, {seconds['click']:.2f} for a click,"
        f" {seconds['ratio']:.2f} of it (medians)."
    )
    print(f"Cases: {role}.")
    write_table(rows, out / "clicks.csv")
    draw_click_curves(rows, TITLES, out / "clicks.png")
    print(f"written: {out / 'clicks.csv'}, {out / 'clicks.png'}")
    return Outcome(
        lambda: to_strict_json(
            {
                "scores": [one._asdict() for one in scores],
                "clicks_to_reach": [one._asdict() for one in reach],
                "seconds": seconds,
            }
        )
    )


def _describe(score: ClickScore) -> str:
    low, high = score.interval or (score.smallest, score.largest)
    return f"{score.mean:.3f}\n{low:.2f} to {high:.2f}"
