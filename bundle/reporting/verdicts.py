"""Sentences about a comparison: verdicts, the power of its tests, and remarks, none beyond what was shown."""

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
    """What was compared: `WT Dice`, `cost`."""
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
    """`+0.021 [0.004, 0.039]`: the mean difference; the median one where a difference is infinite, and said to be."""
    kind = "median" if row["mean"] is None else "mean"
    pair = row[f"{kind}_interval"]
    interval = f" [{', '.join(format_difference(end, row).replace('+', '') for end in pair)}]" if pair else ""
    size = _with_unit(format_difference(row[kind], row), row) if unit else format_difference(row[kind], row)
    return f"{'median ' if kind == 'median' else ''}{size}{interval}"


def comparison_verdict(first: str, second: str, rows: Sequence[Row]) -> str:
    """`B is better on WT Dice (+0.021 [0.004, 0.039], n = 42); no difference shown on ET Dice.`"""
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
    """The number of patients, with the first only where all that is told has the same."""
    told = [other for kind in KINDS[:-1] for other in rows if other["finding"] == kind]
    alike = len({other["patients"] for other in told}) == 1
    return "" if alike and row is not told[0] else f", n = {row['patients']}"


def reference_verdict(rows: Sequence[Row]) -> str:
    """The verdict on an evaluation and its reference."""
    text = comparison_verdict("the reference", "this one", rows)
    return text[0].upper() + text[1:]


def describe_power(rows: Sequence[Row], tests: int) -> str | None:
    """Which differences so few patients could have shown; None where they are many, or all were shown."""
    undecided = [row for row in rows if row["finding"] == "not shown" and row["patients"] < ENOUGH]
    if not undecided:
        return None
    few = min(row["patients"] for row in undecided)
    people = f"{plural(few, 'patient')} {'is' if few == 1 else 'are'} few."
    if not all(row["can_show"] for row in undecided):
        return (
            f"{people} Even if all of them changed to the same side, the test could not show it after a correction for"
            f" {plural(tests, 'test')}: ask fewer questions (--regions, --metrics), chosen before looking, or score"
            " more patients."
        )
    known = [row for row in undecided if row["detectable"]]
    if not known:
        return people
    needed = _grouped(known, lambda row: _with_unit(format_difference(row["detectable"], row).lstrip("+"), row))
    return (
        f"{people} If patients vary as here, a mean difference of about this size is shown in four of five comparisons:"
        f" {needed}. Smaller ones may well be there."
    )


def describe_ranking(ranking: Mapping[str, Any]) -> str:
    """The systems by their mean rank, and how often patients drawn anew leave that order as it is."""
    overall = ranking["overall"]
    by_rank = sorted(overall["systems"], key=lambda system: system["mean_rank"])
    said = join_words([f"{system['name']} ({system['mean_rank']:.2f})" for system in by_rank], most=None)
    over = f"{plural(len(ranking['scores']), 'score')} and {plural(overall['patients'], 'patient')}"
    text = f"By mean rank over {over}: {said}."
    if overall["holds"] is None:
        return f"{text} Too few patients to say how firm that order is."
    first = by_rank[0]
    return (
        f"{text} When patients are drawn anew, the whole order stays in {format_percent(overall['holds'])} of draws,"
        f" and {first['name']} is first in {format_percent(first['places'][0])}."
    )


def format_percent(part: float) -> str:
    """A share of draws, never rounded to all or none of them."""
    whole = round(100 * part)
    return "over 99 %" if whole == 100 and part < 1 else "under 1 %" if whole == 0 and part > 0 else f"{whole} %"


def comparison_remarks(systems: Sequence[Mapping[str, Any]], rows: Sequence[Row], patients: int) -> Iterator[str]:
    """What a reader of a comparison must keep in mind."""
    yield "No difference shown does not mean that there is none: it means that these patients do not tell."
    if patients < ENOUGH:
        yield f"{plural(patients, 'patient')} are few: below {ENOUGH}, bootstrap intervals are too narrow."
    yield (
        "Compared are masks, each made by one training. Training either system once more gives other masks, and no test"
        " here knows by how much."
    )
    unknown = [system["name"] for system in systems if not system["datalist"]]
    if unknown:
        yield (
            f"For {join_words(unknown)} no data list is written down in an evaluation.json, so that only true volumes,"
            " regions and units tell that all were scored alike."
        )
    if any(system["failed"] for system in systems):
        yield (
            "A failed case counts as an empty prediction, Dice 0 and no distance; what it would cost is not known and"
            " counts as more than any number."
        )
    if any(row["mean"] is None for row in rows):
        yield (
            "Where one mask is empty there is no distance. Such a patient ranks behind all others and has no part in a"
            " mean; two such patients are equal."
        )
    if lacking := {score_name(row): row["patients"] for row in rows if row["patients"] < patients}:
        said = [f"{what} in {most} of {patients}" for what, most in lacking.items()]
        yield f"Not measured in every patient: {join_words(said)}."
    if any(row["metric"] == "cost" for row in rows):
        yield "Where one region lies inside another, an error in the inner one costs in both."


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
