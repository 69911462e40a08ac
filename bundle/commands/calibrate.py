"""The `calibrate` command: predict the Dice of new masks from those of patients that the runs never saw."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column

from bundle.analysis.mask_quality import FEWEST, LOW, describe_calibration, summarise_predictions
from bundle.analysis.strict_json import to_strict_json
from bundle.commands.arguments import Optional, check_arguments
from bundle.commands.shared import Outcome, print_lines, score_table


@check_arguments
def calibrate(source: Path, *, evaluation: Optional[Path] = None, test: Optional[Path] = None) -> Outcome:
    """Calibrate the Dice that is predicted for new masks, and show how well it holds: RUN/quality.json.

    `crossval` does it at its end. Each patient is predicted by a calibration that they took no part in. `segment`,
    `inferring`, `Segmenter`, MONAI Label and `export` use the file. docs/quality.md has the method and its limits.

    Examples:
        python -m bundle calibrate runs/cv
        python -m bundle calibrate runs/cv --test runs/cv/evaluation
        python -m bundle calibrate runs/cv --evaluation runs/cv/evaluation

    Args:
        source: the folder of a cross-validation, or of a run.
        evaluation: calibrate on the masks of this evaluation of all runs of `source` together; by default on those of
            the folds, or on RUN/evaluation. Patients that trained them do not count.
        test: predict the masks of this evaluation by the calibration that is there, in place of making one.
    """
    from bundle.studies.calibrating import apply_calibration, calibrate_runs

    if test is not None:
        predicted = apply_calibration(source, test)
        print_predictions(rows := summarise_predictions(predicted), f"Predicted Dice of the masks in {test}")
        return Outcome(lambda: {"regions": to_strict_json(rows)})
    found = calibrate_runs(source, evaluation)
    rows = summarise_predictions(found.predicted)
    regions = found.content["regions"]
    print_predictions(rows, "Predicted Dice, each patient by a calibration without them", describe_calibration(regions))
    print(f"written: {', '.join(map(str, found.files))}")
    return Outcome(lambda: {"regions": to_strict_json(rows), "calibration": regions})


def print_predictions(rows: Sequence[Mapping[str, Any]], title: str, lines: Sequence[str] = ()) -> None:
    """Print how predictions hold, one row per region, and these lines."""
    reach = Column("reach the bound", justify="right", no_wrap=True)
    headings = (reach, "rank\ncorrelation", "worst tenth:\nlowest, warned", "all:\nwarned")
    table = score_table(title, Column("region", overflow="fold"), "patients", *headings)
    for row in rows:
        known, interval = row["predicted"], row["interval"] or (0.0, 0.0)
        ranks = ["?" if row[name] is None else f"{row[name]:.2f}" for name in ("correlation", "correlation_expected")]
        cells = [f"{row['covered']} of {known} ({100 * interval[0]:.0f}-{interval[1]:.0%})", f"{ranks[0]} ({ranks[1]})"]
        cells += [f"{row['caught']}, {row['warned']} of {row['worst']}", f"{row['warnings']} of {known}"]
        table.add_row(row["region"], str(row["patients"]), *(cells if known else ["", f"({ranks[1]})", "", ""]))
    console = Console()
    console.print(table)
    few = ", ".join(f"{row['region']} {row['patients']}" for row in rows if row["patients"] <= FEWEST)
    needed = f"Too few patients to try a bound on one that took no part, which takes {FEWEST + 1}: {few}."
    print_lines(console, [*lines, *([needed] if few else [])])
    meaning = (
        "In brackets: the 95 % interval of the share, and the rank correlation of the Dice that the probabilities alone"
        f" expect. Worst tenth: how many of it are among the lowest predictions, and have a bound below {LOW}."
    )
    print_lines(console, [meaning])
