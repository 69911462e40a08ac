"""Tables of what recipes cost and bring, and of what checks of scans find, from raw results in docs/record/.

    python -m docs.evidence VARIANT RUN [RUN ...]

adds the Dice of the last validation of some runs, one row per patient and region, to docs/record/recipe_dice.csv.
"""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from bundle.analysis.statistics import mean_interval
from scripts.files import read_mapping
from scripts.network.checkpoint_file import read_state
from scripts.scoring.tables import read_table

RECORD = Path(__file__).parent / "record"
COSTS, DICE = RECORD / "recipe_costs.json", RECORD / "recipe_dice.csv"
CHECKED = RECORD / "checks.json"  # of `bench checks`
COLUMNS = ["variant", "seed", "fold", "steps", "patient", "region", "dice"]
BASELINE = "default"


def add_runs(variant: str, runs: list[Path]) -> None:
    """Append the scores of runs to the table."""
    with DICE.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for run in runs:
            about = read_mapping(run / "environment.json")
            steps = read_state(run / "checkpoint.pt")["budget"]["step"]
            scores = read_table(run / "validation" / "cases.csv").query("metric == 'dice'")
            for _, row in scores.iterrows():
                value = f"{row['value']:.4f}"
                writer.writerow([variant, about["seed"], about["fold"], steps, row["patient"], row["region"], value])


def recipe_costs() -> dict[str, tuple[str, str, str]]:
    """Recipe to its weights, the time of its step and the memory of a step, as text; empty cells were not measured."""
    if not COSTS.is_file():
        return {}
    rows = json.loads(COSTS.read_text(encoding="utf-8"))["subjects"][0]["rows"]
    of_unit = {(row["name"].split(":")[0].strip(), row["unit"]): row for row in rows}
    found = {}
    for name in dict.fromkeys(name for name, _ in of_unit):
        weights, step, memory = (of_unit.get((name, unit)) for unit in ("M", "s", "GiB"))
        found[name] = (
            f"{weights['median']:.1f}" if weights else "",
            f"{step['ratio']:.2f}" if step else "",
            f"{memory['median']:.1f}" if memory else "",
        )
    return found


def fault_rows() -> Iterator[list[str]]:
    """One row per fault of scans: how many of them the checks refuse, note and miss."""
    content = json.loads(CHECKED.read_text(encoding="utf-8"))
    for row in content["subjects"][0]["settings"]["faults"]:
        missed = row["n"] - row["refused"] - row["noted"]
        yield [row["fault"], *(str(number) for number in (row["refused"], row["noted"], missed))]


def dice_rows() -> Iterator[list[str]]:
    """One row per variant: steps, mean Dice, and its difference to the default by patient, with an interval."""
    frame = pd.read_csv(DICE)
    by_patient = frame.groupby(["variant", "patient"])["dice"].mean().unstack("patient")
    for variant in frame["variant"].unique():
        own = frame[frame["variant"] == variant]
        regions = own.groupby("region", sort=False)["dice"].mean()
        change = by_patient.loc[variant] - by_patient.loc[BASELINE]
        interval = mean_interval(change.tolist(), change.index.tolist())
        shown = "" if variant == BASELINE else f"{change.mean():+.3f}"
        if interval and shown:
            shown += (
                f" ({interval[0]:+.3f} to {interval[1]:+.3f}); better in {int((change > 0).sum())} of {len(change)}"
            )
        yield [
            variant,
            f"{own['steps'].min()} to {own['steps'].max()}",
            f"{own['dice'].mean():.3f}",
            ", ".join(f"{name} {value:.3f}" for name, value in regions.items()),
            shown,
        ]


if __name__ == "__main__":
    add_runs(sys.argv[1], [Path(run) for run in sys.argv[2:]])
