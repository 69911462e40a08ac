"""Checks of the settings of imperfect labels: the value to ignore, raters, and how their masks are combined."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scripts.errors import InputError

METHODS = ("draw", "majority", "staple")
RESERVED = (*METHODS, "all", "model")  # which no rater may be called


def check_ignore(ignore: int | None, labels: Mapping[str, int], regions: Mapping[str, Sequence[int]]) -> None:
    """Check that the value to ignore is a whole number that means nothing else.

    Raises:
        InputError: it is the background, a label or part of a region.
    """
    if ignore is None:
        return
    if isinstance(ignore, bool) or not isinstance(ignore, int) or ignore <= 0:
        raise InputError(f"ignore is {ignore}: expected a whole number above 0 that is no label, such as 255, or null.")
    named = [name for name, value in labels.items() if value == ignore]
    named += [name for name, values in regions.items() if ignore in values]
    if named:
        raise InputError(
            f"ignore is {ignore}, which is also the value of {named[0]}: the value to ignore must mean nothing else;"
            " give another value, and draw it in the label files."
        )


def check_raters(method: str, decision: str) -> None:
    """Check that masks of several raters can be combined so for this decision.

    Raises:
        InputError: STAPLE for exclusive classes.
    """
    if method == "staple" and decision == "classes":
        raise InputError(
            "raters is staple, which estimates each region by itself, but decision is classes, of which a voxel has"
            " one: give raters draw or majority, or decision regions."
        )


def choose_rater(entries: Sequence[dict[str, Any]], raters: str) -> list[dict[str, Any]]:
    """The entries with the mask of one rater, if `raters` is a name; as they are for one of `METHODS`.

    Raises:
        InputError: no case has a mask of this rater, or some lack it.
    """
    if raters in METHODS:
        return list(entries)
    known = sorted({name for entry in entries for name in entry.get("labels", ())})
    if raters not in known:
        there = f", or a rater: {', '.join(known)}" if known else "; this data list has one label per case"
        raise InputError(f"raters is '{raters}': expected {', '.join(METHODS)}{there}.")
    if without := [entry["case"] for entry in entries if raters not in entry.get("labels", ())]:
        raise InputError(
            f"raters is '{raters}', who has not drawn {len(without)} of {len(entries)} training cases, such as"
            f" {without[0]}: give {', '.join(METHODS)}, or a data list of the cases that {raters} has drawn."
        )
    return [{**entry, "labels": {raters: entry["labels"][raters]}} for entry in entries]


def check_rater_names(names: Iterable[str], source: object) -> None:
    """Refuse names of raters that settings, tables or files cannot hold.

    Raises:
        InputError: says where it is from and what is expected.
    """
    for name in names:
        if not re.fullmatch(r"\w[\w.-]*", name) or name in RESERVED:
            raise InputError(
                f"{source} has a rater called {json.dumps(name)[:200]}: expected letters, digits, _, . and -, and none"
                f" of {', '.join(RESERVED)}; rename the rater."
            )
