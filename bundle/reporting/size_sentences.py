"""Sentences on how scores depend on size, general ones only where the numbers support them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bundle.analysis.statistics import share_interval
from bundle.reporting.words import format_range, format_share, join_words, unit_sign

LARGE = 1.0  # ml: the volume above which lesions are large


def describe_size_effect(summary: Mapping[str, Any]) -> list[str]:
    """Whether Dice depends on the volume: the smallest against the largest third of the cases of each region.

    It does where the 95 % intervals of the two medians do not overlap.
    """
    said, not_shown = [], []
    for region, own in summary["regions"].items():
        if len(own["thirds"]) < 3:
            continue
        small, large = own["thirds"][0], own["thirds"][-1]
        ends = [third["dice_interval"] for third in (small, large)]
        if None in ends or (ends[0][0] <= ends[1][1] and ends[1][0] <= ends[0][1]):
            not_shown.append(region)
            continue
        higher = "Larger" if large["dice_median"] > small["dice_median"] else "Smaller"
        said.append(
            f"{region}: {higher.lower()} ones score higher. Median Dice {_third(small)} in the smallest third,"
            f" {_third(large)} in the largest."
        )
    if not_shown:
        said.append(f"{join_words(not_shown)}: these cases do not show that Dice depends on the volume.")
    return said


def describe_lesions_found(summary: Mapping[str, Any]) -> Iterator[str]:
    """How many lesions over 1 ml were found, by region, and how many smaller ones; whether larger ones are found more
    often, where Wilson's intervals of the two shares do not overlap.
    """
    if summary["units"]["volume"] != "ml":
        return
    for region, own in summary["regions"].items():
        classes = own["lesions_by_volume"] or []
        large, small = (_count(row for row in classes if (row["above"] >= LARGE) == side) for side in (True, False))
        if not large[1]:
            continue
        rest = f"; of smaller ones {small[0]} of {small[1]}" if small[1] else ""
        over = f"{LARGE:g} {unit_sign('ml')}"
        high, low = share_interval(*large), share_interval(*small)
        often = ", more often than smaller ones" if high and low and high[0] > low[1] else ""
        whose = " of all raters" if summary["raters"] else ""
        yield f"{region}: {large[0]} of {large[1]} lesions{whose} over {over} were found{often}{rest}."


def _count(rows: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """The lesions found, and all, of some classes of volume."""
    pairs = [(row["found"], row["lesions"]) for row in rows]
    return sum(found for found, _ in pairs), sum(all_ for _, all_ in pairs)


def _third(third: Mapping[str, Any]) -> str:
    return f"{format_share(third['dice_median'])} ({format_range(third['dice_interval'])}, n = {third['cases']})"
