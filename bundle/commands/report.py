"""The `report` command: an evaluation as one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column
from rich.text import Text

from bundle.analysis import evaluation as evaluations
from bundle.analysis.costs import POINTS, parse_prices, parse_weights
from bundle.analysis.region_summary import LOW
from bundle.analysis.scored_scans import open_scans
from bundle.analysis.strict_json import to_strict_json
from bundle.analysis.summary import match_reference
from bundle.commands.arguments import CommaList, Optional, check_arguments
from bundle.commands.shared import Outcome, print_lines, score_table
from bundle.reporting.agreement_sentences import score_verdicts
from bundle.reporting.verdicts import reference_verdict as against_reference
from bundle.reporting.words import format_amount, format_range, format_share, plural
from scripts.errors import InputError


@check_arguments
def report(
    folder: Path,
    *,
    title: Optional[str] = None,
    reference: Optional[Path] = None,
    datalist: Optional[Path] = None,
    dataset_dir: Optional[Path] = None,
    predictions: Optional[Path] = None,
    repetitions: CommaList[Path] = (),
    weights: Optional[str] = None,
    cost: Optional[str] = None,
) -> Outcome:
    """Turn an evaluation into one page: FOLDER/report.html, which needs nothing else, and FOLDER/summary.json.

    All numbers come from FOLDER/cases.csv, and from evaluation.json next to it if it is there. Pictures of patients
    need the images as well: give the data list. docs/report.md explains the page.

    Examples:
        python -m bundle report runs/first/evaluation
        python -m bundle report scored --datalist datalist.json --dataset_dir /data/BraTS --title "Glioma, test set"
        python -m bundle report scores_new --reference scores_old
        python -m bundle report scored --weights "WT=1,ET=2" --cost "fn=2,fp=1"

    Args:
        folder: the folder with cases.csv, from `python -m bundle evaluate` or `score`.
        title: the title of the page; the name of the folder by default.
        reference: the folder of an earlier evaluation of the same cases, to compare with, patient by patient.
        datalist: the data list that was scored; adds pictures of the worst and the most typical patients, where in the
            brain the errors are, and suspected label errors.
        dataset_dir: the folder that the list's paths start from; by default the one that holds the list.
        predictions: the folder of the scored label maps, if it has moved since.
        repetitions: evaluations of the same cases by networks that were trained again (other seeds), with commas
            between: suspected label errors say in how many of them.
        weights: how much each region counts in a weighted mean Dice, "WT=1,ET=2"; other regions have weight 0.
        cost: cost per ml of false negatives (fn) and positives (fp): "fn=2,fp=1", or "ET:fn=5,ET:fp=1" for one region.
    """
    if (dataset_dir or predictions or repetitions) and not datalist:
        raise InputError(
            "--dataset_dir, --predictions and --repetitions are for the pictures of patients: give --datalist as well."
        )
    evaluation = evaluations.read_evaluation(folder)
    chosen = None if weights is None else parse_weights(weights, evaluation.regions)
    prices = None if cost is None else parse_prices(cost, evaluation.regions)
    earlier = match_reference(evaluation, evaluations.read_evaluation(reference)) if reference else None
    from bundle.reporting.report_page import write_report

    scans = open_scans(evaluation, datalist, dataset_dir, predictions, repetitions) if datalist else None
    written = write_report(evaluation, title or folder.resolve().name, earlier, chosen, prices, scans)
    print_summary(written.summary)
    print(f"written: {written.page} ({written.page.stat().st_size / 1e6:.1f} MB) and {written.numbers}")
    return Outcome(lambda: to_strict_json(written.summary))


def print_summary(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the top of the page: one row per region, failed cases, the comparison, the warnings."""
    console = console or Console()
    part, failed, missing = summary["part"], len(summary["failed"]), len(summary["missing"])
    counts = {"failed": failed, "without a prediction": missing}
    lost = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    title = f"{summary['title']}: {plural(summary['cases'], 'case')} of {plural(summary['patients'], 'patient')}"
    title += (f", {part}" if part else "") + (f", {lost}" if lost else "")
    headings = ("n", "Dice: mean\n(95 %)", "median\n(quartiles)", "\nmin", f"\n<{LOW[0]}", "\nmissed")
    table = score_table(title, Column("region", overflow="fold"), *headings, f"HD95\n{summary['units']['length']}")
    for region, own in summary["regions"].items():
        dice, hd95 = own["metrics"]["dice"], own["metrics"].get("hd95", {})
        table.add_row(
            Text(region),
            str(own["cases"]),
            f"{format_share(dice['mean'])} {_brackets(dice['mean_interval'])}",
            f"{format_share(dice['median'])} {_brackets([dice['q1'], dice['q3']])}",
            format_share(dice["minimum"]),
            str(own[f"dice_below_{LOW[0]}"]),
            str(own["missed"]),
            format_amount(hd95.get("median")),
        )
    console.print(table)
    lines = [f"failed, counts as Dice 0: {case}: {reason}" for case, reason in summary["failed"].items()]
    lines += [f"no prediction, counts as Dice 0: {case}" for case in summary["missing"]]
    spreads = {region: own["metrics"].get("hd95") for region, own in summary["regions"].items()}
    quartiles = [f"{r} {format_amount(own['q1'])} to {format_amount(own['q3'])}" for r, own in spreads.items() if own]
    if quartiles:
        lines.append(f"HD95, quartiles: {', '.join(quartiles)} {summary['units']['length']}")
    lines += score_verdicts(summary["raters"])
    lines += _own_lines(summary)
    if searched := summary.get("label_errors"):
        cases = len({row["case"] for row in searched["found"]})
        lines.append(
            f"suspected label errors: {plural(len(searched['found']), 'part')} in {cases} of"
            f" {plural(searched['cases'], 'case')} (label_errors.csv)"
        )
    if against := summary["reference"]:
        lines.append(against_reference([*against["differences"], *against["tail"]]))
    print_lines(console, lines, summary["warnings"])


def _own_lines(summary: Mapping[str, Any]) -> list[str]:
    """The weighted Dice and the cost, one line each."""
    lines = []
    if weighted := summary["weighted_dice"]:
        weights = ", ".join(f"{region} {weight:g}" for region, weight in weighted["weights"].items())
        own = weighted["spread"]
        lines.append(
            f"weighted Dice ({weights}): median {format_share(own['median'])} {_brackets([own['q1'], own['q3']])},"
            f" worst {format_share(own['minimum'])} ({weighted['worst'][0]['patient']})"
        )
    if cost := summary["cost"]:
        for region, own in [*cost["regions"].items(), ("total", cost["total"])]:
            lines.append(
                f"cost, {region}: median {format_amount(own['median'])}"
                f" ({format_range([own['q1'], own['q3']], format_amount)}), largest {format_amount(own['maximum'])}"
                f" {POINTS}"
            )
    return lines


def _brackets(pair: Sequence[float] | None) -> str:
    return "" if pair is None else f"({format_share(pair[0])}-{format_share(pair[1])})"
