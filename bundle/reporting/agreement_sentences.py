"""Sentences about the agreement of raters: warnings, findings, and the limits of its numbers."""

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
    "below": "outside the raters' own range: it agrees with them less than the rater who agrees least does with the"
    " others",
    "within": "inside the raters' own range",
    "above": "above the raters' own range: it agrees with them more than any of them does with the others, as an"
    " average of them would; that does not make it better than they are",
}


def agreement_warnings(summary: Mapping[str, Any]) -> list[str]:
    """What a reader must know before the first number."""
    found = []
    if (summary["covered"] or 0) > HALF:
        found.append(
            f"The masks cover {summary['covered']:.0%} of the images on average: is the object drawn as 0 and the"
            " background as something else? Then say --foreground 0, or these are numbers about the background."
        )
    found += [f"Left out: {reason}" for reason in summary["failed"].values()]
    return found


def agreement_findings(summary: Mapping[str, Any]) -> list[str]:
    """What was found, most important first."""
    spread = summary["between_raters"]["dice"]
    said = (
        f"{plural(len(summary['raters']), 'rater')}, {plural(spread['images'], 'image')}: the Dice of two raters is"
        f" {format_share3(spread['mean'])} in the mean{_interval(spread['mean_interval'], format_share3)} and"
        f" {format_share3(spread['median'])} in the median; half of the {spread['n']} pairs of masks lie between"
        f" {format_share3(spread['q1'])} and {format_share3(spread['q3'])}."
    )
    return [said, *model_verdicts(summary)]


def model_verdicts(summary: Mapping[str, Any]) -> list[str]:
    """Whether the model is like a rater, a sentence or two a metric; none without a model."""
    if summary["model"] is None:
        return []
    found = summary["model"]["like_a_rater"]
    return [_verdict(metric_name(metric, summary["units"]["length"]), found[metric]) for metric in VERDICTS]


def _verdict(metric: str, found: Mapping[str, Any]) -> str:
    if not found["images"]:
        return f"{metric}: no image has the model's mask and those of two raters, so they cannot be compared."
    said = (
        f"{metric}: the model agrees with the raters by {format_share3(found['model'])}, they with each other by"
        f" {format_share3(found['raters'])} (difference"
        f" {format_change(found['difference'])}{_interval(found['interval'], format_change)},"
        f" {plural(found['images'], 'image')}). "
    )
    if found["place"]:
        own = found["rater_means"].values()
        where = f" (their own means: {format_range([min(own), max(own)], format_share3)})"
        said += f"In the mean it lies {PLACES[found['place']].replace('range', 'range' + where, 1)}. "
    return said + _shown(found)


def _shown(found: Mapping[str, Any]) -> str:
    if found["interval"] is None:
        why = f"fewer than {FEWEST} images" if found["images"] < FEWEST else "differences that are all the same"
        return f"There is no interval for {why}: nothing is shown either way."
    low, high = found["interval"]
    few = f" {found['images']} images are few, and the interval is too narrow." if found["images"] < ENOUGH else ""
    if high < 0 or low > 0:
        return f"That it agrees {'less' if high < 0 else 'more'} is more than chance.{few}"
    return (
        "No difference is shown, which is not the same as none: agreement that is worse by"
        f" {format_share3(-low)} would fit these images, too.{few}"
    )


def agreement_limits(summary: Mapping[str, Any]) -> Iterator[str]:
    """What these numbers cannot say."""
    images, raters = summary["between_raters"]["dice"]["images"], len(summary["raters"])
    if images < ENOUGH:
        yield f"{plural(images, 'image')} are few: below {ENOUGH}, bootstrap intervals are too narrow."
    yield (
        f"Intervals draw images. The {plural(raters, 'rater')} are taken as they are: other raters may agree more or"
        " less, a further person can lie outside their range, and no interval here tells by how much. Images of one"
        " patient count as if they were independent."
    )
    yield (
        "Raters who learned from each other, or who corrected one outline, agree more than independent ones. The masks"
        " do not tell."
    )
    yield (
        "A rater is part of the consensus that it is compared with, and a model is not: do not compare their agreement"
        " with the consensus. Agreement with the (other) raters is fair to both."
    )
    yield (
        "STAPLE weighs voxels by what it takes the raters to be able to; where some draw generously it tends to follow"
        " them, the more so the more air is around. Of an even number of raters the majority leaves out ties."
    )
    if names := list(summary["incomplete"]):
        lack, counts = ("lacks", "counts") if len(names) == 1 else ("lack", "count")
        yield (
            f"{plural(len(names), 'image')} {lack} the mask of some rater ({join_words(names)}) and {counts} for the"
            " pairs that there are. So the means of raters are of different images; where a model is placed among"
            " them, only complete images count."
        )
    yield explain_nsd(summary["units"]["length"])
    yield "Agreement is not truth: all raters can be wrong in the same way."


def _interval(pair: Any, write: Any = format_share) -> str:
    return "" if pair is None else f" [{write(pair[0])}, {write(pair[1])}]"
