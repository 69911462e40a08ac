"""The `compare` command: whether one system is better than another on the same patients."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bundle.analysis import evaluation
from bundle.analysis.costs import parse_prices, parse_weights
from bundle.analysis.pairing import match_systems
from bundle.analysis.region_summary import LOW
from bundle.analysis.strict_json import to_strict_json
from bundle.analysis.tail import BELOW, MISSED
from bundle.commands.arguments import CommaList, Optional, check_arguments
from bundle.commands.shared import Outcome, print_lines, score_table
from bundle.reporting import verdicts
from bundle.reporting.words import format_p, join_words, plural, unit_sign
from scripts.errors import InputError

SHORT = {BELOW: f"Dice <{LOW[-1]}", MISSED: "missed"}  # in the table of the terminal


@check_arguments
def compare(
    *folders: Path,
    names: Optional[CommaList[str]] = None,
    out: Path = Path("comparison"),
    title: Optional[str] = None,
    regions: Optional[CommaList[str]] = None,
    metrics: Optional[CommaList[str]] = None,
    weights: Optional[str] = None,
    cost: Optional[str] = None,
) -> Outcome:
    """Say whether one system is better than another on the same patients: compare.html, compare.json, compare.png.

    Each folder is an evaluation (cases.csv) of the same data list. Every two are compared, patient by patient; three or
    more are ranked too. docs/compare.md explains the tests and the words.

    Examples:
        python -m bundle compare scores_old scores_new
        python -m bundle compare baseline/evaluation mine/evaluation --names "baseline,mine" --out comparison
        python -m bundle compare a b c --metrics dice --regions "WT,ET" --cost "fn=2,fp=1"

    Args:
        folders: two or more folders with cases.csv, from `python -m bundle score` or an evaluation; the earlier first.
        names: what to call them, "baseline,mine"; by default the part of their paths that differs.
        out: the folder to write to.
        title: the title of the page.
        regions: those to compare, "WT,ET"; all by default.
        metrics: those to compare, "dice,hd95"; by default Dice, HD95, NSD at 2 mm, and how many cases are below a Dice
            of 0.7 (dice_below_0.7) or lack a region (missed).
        weights: how much each region counts in a weighted mean Dice, "WT=1,ET=2", to compare that too.
        cost: what a ml costs that was missed (fn) or added (fp), to compare that too: "fn=2,fp=1" or "ET:fn=5,ET:fp=1".
    """
    if len(folders) < 2:
        raise InputError(
            "give two or more evaluations to compare, such as `python -m bundle compare scores_old scores_new`."
        )
    systems = [evaluation.read_evaluation(folder) for folder in folders]
    shared = [region for region in systems[0].regions if all(region in system.regions for system in systems)]
    chosen = None if weights is None else parse_weights(weights, shared)
    prices = None if cost is None else parse_prices(cost, shared)
    called = names or name_systems(folders)
    if names is not None and not len(called) == len({*called}) == len(folders):
        raise InputError(
            f"the names are {', '.join(called)}: expected {len(folders)} different ones, one for each folder."
        )
    matched = match_systems(systems, called, regions, metrics, chosen, prices)
    from bundle.reporting.comparison_page import write_comparison

    comparison = write_comparison(matched, out, title, chosen, prices)
    print_comparison(comparison)
    print(f"written: {out / 'compare.html'}, compare.json and compare.png")
    return Outcome(lambda: to_strict_json(comparison))


def name_systems(folders: Sequence[Path]) -> list[str]:
    """Names for the folders: the last part of their paths in which all differ, else the whole paths."""
    parts = [folder.resolve().parts[::-1] for folder in folders]
    for level in zip(*parts, strict=False):
        if len({*level}) == len(folders):
            return list(level)
    return [str(folder) for folder in folders]


def print_comparison(comparison: Mapping[str, Any], console: Console | None = None) -> None:
    """Print a table and the verdict of each pair, the order of three or more, who was left out, and the warnings."""
    console = console or Console()
    for pair in comparison["pairs"]:
        failed = {system["name"]: len(system["failed"]) for system in comparison["systems"]}
        console.print(_table(pair, comparison["patients"], failed))
        print_lines(console, filter(None, (pair["verdict"], pair["power"])))
        console.print()
    lines = [comparison["ranking"]["verdict"]] if comparison["ranking"] else []
    for system in comparison["systems"]:
        lines += [f"failed in {system['name']}: {case}: {reason}" for case, reason in system["failed"].items()]
        if alone := comparison["unpaired"][system["name"]]["cases"]:
            lines.append(f"left out, not in every system: {join_words(alone, 12)} of {system['name']}")
    print_lines(console, lines, comparison["warnings"])


def _table(pair: Mapping[str, Any], patients: int, failed: Mapping[str, int]) -> Table:
    shown = "medians and cases" if pair["tail"] else "medians"
    title = f"{pair['second']} against {pair['first']}: {plural(patients, 'patient')}, {shown}"
    lost = [f"{plural(failed[n], 'failed case')} of {n}" for n in (pair["first"], pair["second"]) if failed[n]]
    table = score_table(f"{title}; {' and '.join(lost)} counted as Dice 0" if lost else title)
    table.add_column("score", overflow="fold", min_width=12, max_width=19, vertical="bottom")
    for heading in (pair["first"], pair["second"]):
        table.add_column(Text(heading), justify="right", overflow="fold", min_width=6, max_width=8, vertical="bottom")
    for heading in ("difference (95 %)", "better/\nequal/worse", "p, Holm"):
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    for row in pair["differences"]:
        table.add_row(
            Text(verdicts.score_name(row) + (f", {unit_sign(row['unit'])}" if row["unit"] else "")),
            verdicts.format_value(row["median_first"], row),
            verdicts.format_value(row["median_second"], row),
            verdicts.format_effect(row, unit=False).replace("median ", "median\n"),
            f"{row['better']}/{row['equal']}/{row['worse']}",
            format_p(row["p_holm"]),
        )
    table.add_section()
    for row in pair["tail"]:
        table.add_row(
            Text(f"{row['region']} {SHORT[row['metric']]}"),
            f"{row['cases_first']}/{row['cases']}",
            f"{row['cases_second']}/{row['cases']}",
            verdicts.format_effect(row),
            f"{row['better']}/{row['equal']}/{row['worse']}",
            format_p(row["p_holm"]),
        )
    return table
