"""What commands share: what they return, and how tables and lines are printed."""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from bundle.analysis.strict_json import to_strict_json


class Outcome(NamedTuple):
    """What a command found: its numbers for `--json`, made when they are asked for, and its exit code."""

    numbers: Callable[[], Any]
    exit_code: int = 0


def ask_user(question: str) -> bool | None:
    """Whether the user answers yes on the terminal; None without a terminal, or in a process of torchrun."""
    if "RANK" in os.environ or not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "yes"


def read_numbers(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The summary of the cases.csv in a folder (and of patients.csv, where cases are slices): one row per region."""
    from scripts.scoring.cohort import read_cases
    from scripts.scoring.summary import rows_by_level, tabulate_regions

    patients = folder / "patients.csv"
    tables = rows_by_level(read_cases(folder / "cases.csv"), read_cases(patients) if patients.is_file() else None)
    return {
        title: to_strict_json(tabulate_regions(rows).reset_index().to_dict("records")) for title, rows in tables.items()
    }


def print_agreement(folder: Path) -> None:
    """Print, for an evaluation against several raters, whether the system agrees with them as they do."""
    if not (folder / "raters.csv").is_file():
        return
    from bundle.analysis.rater_scores import compare_with_raters
    from bundle.reporting.agreement_sentences import score_verdicts

    print_lines(Console(), score_verdicts(compare_with_raters(folder)))
    print(f"every comparison with a rater, and of two raters: {folder / 'raters.csv'}")


def score_table(title: str, *columns: Column | str) -> Table:
    """A table with a title; a column that is given by its heading alone holds numbers, set to the right."""
    aligned = [Column(column, justify="right") if isinstance(column, str) else column for column in columns]
    return Table(*aligned, title=Text(title), box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))


def print_lines(console: Console, lines: Iterable[str], warnings: Iterable[str] = ()) -> None:
    """Print each text on a line of its own, however long, as it is."""
    for line in [*lines, *(f"WARNING: {text}" for text in warnings)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
