"""Sentences about rater agreement: warnings, findings and limits."""

from collections.abc import Iterator, Mapping
from typing import Any

from bundle.analysis.agreement_summary import HALF, VERDICTS
from bundle.analysis.statistics import ENOUGH, FEWEST
from bundle.reporting.words import (
    explain_nsd,
    format_change,
    format_range,
    format_share,
    format_share3,
    join_words,
    metric_name,
    plural,
)

PLACES = {
    "below": "below the raters' own range: it agrees with them less than any rater does with the others",
    "within": "within the raters' own range",
    "above": "above the raters' own range: it agrees with them more than any rater does with the others, as an average"
    " of raters would; that does not make it better than they are",
}


def agreement_warnings(summary: Mapping[str, Any]) -> list[str]:
    """Warnings to read before any number."""
    found = []
    if (summary["covered"] or 0) > HALF:
        found.append(
            f"The masks cover {summary['covered']:.0%} of the images on average. If the object is 0 in the files, give"
            " --foreground 0; otherwise these numbers may describe the background."
        )
    found += [f"Left out: {reason}" for reason in summary["failed"].values()]
    return found


def agreement_findings(summary: Mapping[str, Any]) -> list[str]:
    """The findings, most important first."""
    spread = summary["between_raters"]["dice"]
    said = (
        f"{plural(len(summary['raters']), 'rater')}, {plural(spread['images'], 'image')}: Dice between raters has mean"
        f" {format_share3(spread['mean'])}{_interval(spread['mean_interval'], format_share3)} and median"
        f" {format_share3(spread['median'])} (quartiles {format_share3(spread['q1'])} to {format_share3(spread['q3'])})"
        f" over {plural(spread['n'], 'pair of masks', 'pairs of masks')}."
    )
    return [said, *model_verdicts(summary)]


def model_verdicts(summary: Mapping[str, Any]) -> list[str]:
    """The model compared with the raters, one entry per metric; empty without a model."""
    if summary["model"] is None:
        return []
    found = summary["model"]["like_a_rater"]
    return [_verdict(metric_name(metric, summary["units"]["length"]), found[metric]) for metric in VERDICTS]


def score_verdicts(raters: Mapping[str, Any] | None) -> list[str]:
    """The Dice of an evaluation compared with that of its raters (`bundle.analysis.rater_scores`), one per region."""
    return [_verdict_of_scores(region, found["dice"]) for region, found in (raters or {}).items() if "dice" in found]


def _verdict_of_scores(region: str, found: Mapping[str, Any]) -> str:
    if not found["images"]:
        return f"{region}: no patient has the model's mask and those of two raters, so they cannot be compared."
    place = f"; {found['place']} the raters' own range" if found["place"] else ""
    return (
        f"{region}: Dice {format_share3(found['model'])} against the raters, {format_share3(found['raters'])} between"
        f" raters (difference {format_change(found['difference'])}{_interval(found['interval'], format_change)},"
        f" {plural(found['images'], 'patient')}{place})."
    )


def _verdict(metric: str, found: Mapping[str, Any]) -> str:
    if not found["images"]:
        return f"{metric}: no image has the model's mask and those of two raters, so they cannot be compared."
    said = (
        f"{metric}: mean {format_share3(found['model'])} between model and raters, {format_share3(found['raters'])}"
        " between raters (difference"
        f" {format_change(found['difference'])}{_interval(found['interval'], format_change)},"
        f" {plural(found['images'], 'image')}). "
    )
    if found["place"]:
        own = found["rater_means"].values()
        where = f" (their own means: {format_range([min(own), max(own)], format_share3)})"
        said += f"The model is {PLACES[found['place']].replace('range', 'range' + where, 1)}. "
    return said + _shown(found)


def _shown(found: Mapping[str, Any]) -> str:
    if found["interval"] is None:
        why = f"fewer than {FEWEST} images" if found["images"] < FEWEST else "differences that are all the same"
        return f"No interval for {why}: inconclusive."
    low, high = found["interval"]
    few = f" With {found['images']} images the interval is too narrow." if found["images"] < ENOUGH else ""
    if high < 0 or low > 0:
        return f"The interval excludes 0: the model agrees {'less' if high < 0 else 'more'}.{few}"
    return (
        "The interval includes 0, so this sample is inconclusive: it is compatible with agreement that is lower by"
        f" {format_share3(-low)}.{few}"
    )


def agreement_limits(summary: Mapping[str, Any]) -> Iterator[str]:
    """The limits of these numbers."""
    images, raters = summary["between_raters"]["dice"]["images"], len(summary["raters"])
    if images < ENOUGH:
        yield f"Only {plural(images, 'image')}: below {ENOUGH}, bootstrap intervals are too narrow."
    yield (
        f"Intervals resample images, not the {plural(raters, 'rater')}: other raters may agree more or less, or lie"
        " outside this range, and no interval here covers that. Images of one patient count as independent."
    )
    yield (
        "Raters who trained together, or who edited the same outline, agree more than independent ones. The masks do"
        " not show this."
    )
    yield (
        "A rater is part of the consensus and a model is not: do not compare their agreement with it. Agreement with"
        " the (other) raters is comparable."
    )
    yield (
        "STAPLE weights raters by their estimated performance, and tends to follow those who draw more, especially"
        " with much background. With an even number of raters, the majority leaves out ties."
    )
    if names := list(summary["incomplete"]):
        yield (
            f"{plural(len(names), 'image')} without masks of all raters ({join_words(names)}): only the existing pairs"
            " count, so the means of raters are over different images. A model is ranked among them on complete images"
            " only."
        )
    yield explain_nsd(summary["units"]["length"])
    yield "Agreement is not accuracy: all raters can be wrong in the same way."


def _interval(pair: Any, write: Any = format_share) -> str:
    return "" if pair is None else f" [{write(pair[0])}, {write(pair[1])}]"
