"""Sentences about a comparison: verdicts, the power of its tests, and remarks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bundle.analysis.statistics import ENOUGH
from bundle.reporting.words import (
    format_amount,
    format_change,
    format_range,
    format_share3,
    format_signed,
    join_words,
    metric_name,
    plural,
    unit_sign,
)
from scripts.scoring.case import WHOLE_CASE

Row = Mapping[str, Any]  # a difference, as `bundle.analysis.comparison.compare_systems` gives it
KINDS = ("better", "worse", "unclear", "not shown")


def score_name(row: Row) -> str:
    """The name of a score: `WT Dice`, `cost`."""
    metric = metric_name(row["metric"])
    return metric[0].lower() + metric[1:] if row["region"] == WHOLE_CASE else f"{row['region']} {metric}"


def format_value(number: Any, row: Row) -> str:
    """A value of a row: a share, or a number with about three digits."""
    return format_amount(number) if row["unit"] else format_share3(number)


def format_difference(number: Any, row: Row) -> str:
    """A difference of a row, with its sign."""
    return format_signed(number) if row["unit"] else format_change(number)


def format_ends(interval: Sequence[Any] | None, row: Row) -> str:
    """The ends of an interval of differences."""
    return format_range(interval, lambda end: format_difference(end, row))


def format_effect(row: Row, unit: bool = True) -> str:
    """`+0.021 [0.004, 0.039]`: the mean difference, or `median ...` where one is infinite."""
    kind = "median" if row["mean"] is None else "mean"
    pair = row[f"{kind}_interval"]
    interval = f" [{', '.join(format_difference(end, row).replace('+', '') for end in pair)}]" if pair else ""
    size = _with_unit(format_difference(row[kind], row), row) if unit else format_difference(row[kind], row)
    return f"{'median ' if kind == 'median' else ''}{size}{interval}"


def comparison_verdict(first: str, second: str, rows: Sequence[Row]) -> str:
    """`B is better on WT Dice (+0.021 [0.004, 0.039], n = 42); no difference shown on ET Dice.`"""
    if all(row["equal"] == row["patients"] for row in rows):
        return f"{first} and {second} have identical scores in every patient."
    found = {kind: [row for row in rows if row["finding"] == kind] for kind in KINDS}
    sizes = {
        kind: join_words([f"{score_name(row)} ({format_effect(row)}{_patients(row, rows)})" for row in own], most=None)
        for kind, own in found.items()
        if own
    }
    clauses = [
        f"{who} is better on {sizes[kind]}" for kind, who in (("better", second), ("worse", first)) if kind in sizes
    ]
    if "unclear" in sizes:
        clauses.append(f"unclear which is better on {sizes['unclear']}: many small changes and few large ones disagree")
    if found["not shown"]:
        between_them = " " if clauses else f" between {first} and {second} is "
        clauses.append(f"no difference{between_them}shown on {_grouped(found['not shown'])}")
    text = "; ".join(clauses) + "."
    return text if "better" in sizes or "worse" in sizes else text[0].upper() + text[1:]


def _patients(row: Row, rows: Sequence[Row]) -> str:
    """`, n = 42`, only for the first row if all rows shown have the same number."""
    shown = [other for kind in KINDS[:-1] for other in rows if other["finding"] == kind]
    same = len({other["patients"] for other in shown}) == 1
    return "" if same and row is not shown[0] else f", n = {row['patients']}"


def reference_verdict(rows: Sequence[Row]) -> str:
    """The verdict on an evaluation against its reference."""
    text = comparison_verdict("the reference", "this one", rows)
    return text[0].upper() + text[1:]


def describe_power(rows: Sequence[Row], tests: int) -> str | None:
    """Which differences so few patients could show; None if there are many, or all differences are shown."""
    undecided = [row for row in rows if row["finding"] == "not shown" and row["equal"] < row["patients"] < ENOUGH]
    if not undecided:
        return None
    few = min(row["patients"] for row in undecided)
    people = f"Only {plural(few, 'patient')}"
    if not all(row["can_show"] for row in undecided):
        return (
            f"{people}: even if all of them changed in the same direction, no difference could be significant after"
            f" correction for {plural(tests, 'test')}. Test less (--regions, --metrics), chosen in advance, or score"
            " more patients."
        )
    known = [row for row in undecided if row["detectable"]]
    if not known:
        return f"{people}."
    needed = _grouped(known, lambda row: _with_unit(format_difference(row["detectable"], row).lstrip("+"), row))
    return (
        f"{people}: with this spread, mean differences of about this size are shown with a power of 80 %: {needed}."
        " Smaller ones may exist."
    )


def describe_ranking(ranking: Mapping[str, Any]) -> str:
    """The systems by mean rank, and how often that order recurs in bootstrap draws."""
    overall = ranking["overall"]
    by_rank = sorted(overall["systems"], key=lambda system: system["mean_rank"])
    said = join_words([f"{system['name']} ({system['mean_rank']:.2f})" for system in by_rank], most=None)
    over = f"{plural(len(ranking['scores']), 'score')} and {plural(overall['patients'], 'patient')}"
    text = f"By mean rank over {over}: {said}."
    if overall["holds"] is None:
        return f"{text} Too few patients to assess its stability."
    first = by_rank[0]
    return (
        f"{text} In bootstrap draws of patients the whole order recurs in {format_percent(overall['holds'])}, and"
        f" {first['name']} is first in {format_percent(first['places'][0])}."
    )


def format_percent(part: float) -> str:
    """A share of draws, never rounded to all or none of them."""
    whole = round(100 * part)
    return "over 99 %" if whole == 100 and part < 1 else "under 1 %" if whole == 0 and part > 0 else f"{whole} %"


def comparison_remarks(systems: Sequence[Mapping[str, Any]], rows: Sequence[Row], patients: int) -> Iterator[str]:
    """The limits of a comparison."""
    yield "No difference shown does not mean that there is none: this sample is inconclusive."
    if patients < ENOUGH:
        yield f"Only {plural(patients, 'patient')}: below {ENOUGH}, bootstrap intervals are too narrow."
    yield (
        "Each system is one set of masks, from one training. The variation between repeated trainings is not part of"
        " any test here."
    )
    unknown = [system["name"] for system in systems if not system["datalist"]]
    if unknown:
        yield (
            f"No data list is recorded in evaluation.json for {join_words(unknown)}: only true volumes, regions and"
            " units confirm that all were scored in the same way."
        )
    if any(system["failed"] for system in systems):
        yield (
            "A failed case counts as an empty prediction, Dice 0 and no distance; its cost is unknown and ranks"
            " highest."
        )
    if any(row["mean"] is None for row in rows):
        yield (
            "Where one mask is empty the distance is infinite: such a patient ranks last, two of them are tied, and no"
            " mean is given."
        )
    if lacking := {score_name(row): row["patients"] for row in rows if row["patients"] < patients}:
        said = [f"{what} in {most} of {patients}" for what, most in lacking.items()]
        yield f"Not measured in every patient: {join_words(said)}."
    if any(row["metric"] == "cost" for row in rows):
        yield "Where one region lies inside another, an error in the inner one counts in both."


def _grouped(rows: Sequence[Row], write: Callable[[Row], str] = lambda row: "") -> str:
    """`Dice (WT 0.036, ET 0.050) and cost (12.0 points)`: the regions of each metric together."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        metric = metric_name(row["metric"]) if row["region"] != WHOLE_CASE else score_name(row)
        region = "" if row["region"] == WHOLE_CASE else row["region"]
        groups.setdefault(metric, []).append(f"{region} {write(row)}".strip())
    return join_words(
        [f"{metric} ({', '.join(own)})" if any(own) else metric for metric, own in groups.items()], most=None
    )


def _with_unit(text: str, row: Row) -> str:
    return f"{text} {unit_sign(row['unit'])}" if row["unit"] else text
