"""Checks of a scan against the profile of the training cases."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from scripts.data.check_results import NOTE, OK, REFUSE, SKIPPED, ScanCheck, ScanPlace
from scripts.data.profile import NOTED_FROM, Profile, compare_with_usual, limit_number
from scripts.data.scan_numbers import ScanNumbers

TWICE, NEVER = 0.6931, math.inf  # the log of 2
ROUNDING = 0.05  # of sizes and ratios: 5 % more than usual is not doubtful
UPSIDE_DOWN = 0.5  # log of a ratio of distances: contrast is inverted if the scan then fits 1.6 times better


class Compared(NamedTuple):
    """How a kind of number is compared with the training cases.

    Attributes:
        check: its name on the page.
        doubtful: `high`, `low` or `both`.
        scale: of the comparison, `log` for sizes.
        margin: on this scale, the least distance to all training cases for a refusal.
        words: what is doubtful, for a number and what it is of.
        fixed: the limit without training cases; None: not checked without.
    """

    check: str
    doubtful: str
    scale: str
    margin: float
    words: str
    fixed: float | None = None


# Fixed limits: sound scans have at most 0.18, 3.0 and 4.6 (docs/record/checks.md)
COMPARED: Mapping[str, Compared] = {
    "voxel": Compared("voxel size", "both", "log", TWICE, "the thickest side of a voxel is {number:.3g} mm"),
    "field": Compared("field of view", "low", "log", NEVER, "the shortest side of the scan is {number:.0f} mm"),
    "brain": Compared("brain size", "both", "log", TWICE, "the brain has {number:.0f} ml"),
    "cut": Compared(
        "cut-off brain", "high", "as is", NEVER, "the brain ends in a section of {number:.0%} of the largest", 0.25
    ),
    "sharpness": Compared(
        "sharpness", "low", "log", TWICE, "{of} is blurred along one axis, {number:.2g} of another: thick slices"
    ),
    "sections": Compared(
        "sections",
        "high",
        "log",
        NEVER,
        "a section of {of} differs {number:.1f} times as much from its neighbours as others",
        6.0,
    ),
    "extremes": Compared(
        "extreme voxels",
        "high",
        "log",
        NEVER,
        "a voxel of {of} is {number:.3g} times as far from the median as 99.9 % of others",
        20.0,
    ),
    "overlap": Compared("outline", "low", "as is", 0.05, "the brains of {of} overlap with Dice {number:.3f}"),
    "similarity": Compared("similarity", "low", "as is", 0.25, "the edges of {of} correlate with {number:.2f}"),
    "intensities": Compared(
        "intensities", "high", "log", TWICE, "the intensities of {of} are {number:.1f} standard deviations from usual"
    ),
    "order": Compared("channel order", "high", "as is", 1.0, "{of} fit the training cases better when exchanged"),
    "volume": Compared("mask volume", "both", "log", NEVER, "the mask of {of} has {number:.4g} ml"),
    "features": Compared(
        "deep features", "high", "log", NEVER, "the network's features are {number:.1f} standard deviations from usual"
    ),
}


def check_against_profile(scan: ScanNumbers, profile: Profile | None) -> list[ScanCheck]:
    """The checks of a scan against a profile, one per kind of number, by the most doubtful one of its kind.

    Args:
        scan: its numbers.
        profile: of the training cases; None: one check, which says that nothing was compared.
    """
    reason = "there is no profile next to the weights, as of runs before profiles existed"
    if profile is not None and profile.cases < NOTED_FROM:
        reason = f"the profile is of {profile.cases} training cases, {NOTED_FROM} at least are needed"
        profile = None
    if profile is not None and profile.channels != [*scan.intensities]:
        reason = f"these have {', '.join(profile.channels)}"
        profile = None
    compared = compare_with_usual(scan, profile.means, profile.deviations) if profile else {}
    numbers = {**scan.numbers, **compared}
    found = (compare_kind(kind, numbers, profile, scan.places) for kind in COMPARED)
    checks = [check for check in found if check is not None]
    if profile is None:
        return [*checks, ScanCheck("training cases", SKIPPED, f"Not compared with the training cases: {reason}.")]
    return [*checks, _check_contrast(compared, profile)]


def compare_kind(
    kind: str, numbers: Mapping[str, float], profile: Profile | None, places: Mapping[str, ScanPlace]
) -> ScanCheck | None:
    """The check of the numbers of one kind; None where the scan has none, or there is nothing to compare with.

    Args:
        kind: a key of `COMPARED`.
        numbers: of the scan.
        profile: of the training cases; None: only kinds with a fixed limit are checked.
        places: where in the scan a number was found.
    """
    rule = COMPARED[kind]
    known: Mapping[str, Any] = _known_numbers(profile) if profile else numbers if rule.fixed is not None else {}
    names = [name for name in numbers if _kind(name) == kind and name in known]
    signs = {"high": (1,), "low": (-1,), "both": (1, -1)}[rule.doubtful]
    found = [_compare_number(name, sign, numbers[name], profile) for name in names for sign in signs]
    if not found:
        return None
    worst = max(found, key=lambda one: one.excess)
    cases = len(known[worst.name]) if profile else 0
    source = f"training cases{' that have it' if profile and cases < profile.cases else ''} (n = {cases})"
    if worst.status == OK:
        sentence = f"As usual for the {source}." if profile else "As in sound scans; no training cases to compare with."
        return ScanCheck(rule.check, OK, sentence, worst.number, worst.limit)
    of = worst.name.removeprefix(kind).strip().replace("/", " and ")
    words = rule.words.format(number=worst.number, of=of)
    words = f"{words[0].upper()}{words[1:]}."
    if profile and kind != "order":
        all_of = "all" if worst.status == REFUSE else "99 of 100"
        words = f"{words[:-1]}; {all_of} {source} have {'at most' if worst.sign > 0 else 'at least'} {worst.usual:.4g}."
    one, _, other = of.partition(" and ")
    place = places.get(worst.name) or (ScanPlace(one, other=other or None) if one else None)
    return ScanCheck(rule.check, worst.status, words, worst.number, worst.limit, place)


class _Found(NamedTuple):
    """A compared number; `excess` orders numbers by how doubtful they are, `usual` is the most of training cases."""

    name: str
    sign: int
    number: float
    status: str
    limit: float
    usual: float
    excess: float


def _compare_number(name: str, sign: int, number: float, profile: Profile | None) -> _Found:
    rule = COMPARED[_kind(name)]
    if profile is None:
        assert rule.fixed is not None
        status = NOTE if number > rule.fixed else OK
        return _Found(name, sign, number, status, rule.fixed, rule.fixed, number / rule.fixed)
    to_scale: Callable[[float], float] = _log if rule.scale == "log" else float
    from_scale: Callable[[float], float] = math.exp if rule.scale == "log" else float
    values = sorted(sign * to_scale(value) for value in profile.numbers[name])
    limits = limit_number(values, _count_refusing(profile), rule.margin)
    noted = max(limits.noted, 0.0) if rule.check == "channel order" else limits.noted
    noted += ROUNDING if rule.scale == "log" else 0.0
    here = sign * to_scale(number)
    status = REFUSE if here > limits.refused else NOTE if here > noted else OK
    limit, usual = (limits.refused, values[-1]) if status == REFUSE else (noted, noted)
    excess = (here - noted) / max(noted - values[len(values) // 2], 1e-3)
    return _Found(
        name, sign, number, status, float(f"{from_scale(sign * limit):.5g}"), from_scale(sign * usual), excess
    )


def _known_numbers(profile: Profile) -> dict[str, list[float]]:
    """The numbers that enough training cases have."""
    return {name: values for name, values in profile.numbers.items() if len(values) >= NOTED_FROM}


def _count_refusing(profile: Profile) -> int:
    """How many numbers may refuse a scan."""
    return sum(_kind(name) in COMPARED and COMPARED[_kind(name)].margin < NEVER for name in profile.numbers)


def _kind(name: str) -> str:
    return name.partition(" ")[0]


def _log(value: float) -> float:
    return math.log(max(value, 1e-6))


def _check_contrast(compared: Mapping[str, float], profile: Profile) -> ScanCheck:
    """Noted or refused where the intensities of a channel, or of all, fit the training cases only upside down."""
    names = [name for name in compared if _kind(name) == "inverted" and name in _known_numbers(profile)]
    noted = {name: max(0.0, limit_number(profile.numbers[name], 1, NEVER).noted) for name in names}
    name = max(names, key=lambda one: compared[one] - noted[one])
    number, limit = compared[name], float(f"{noted[name]:.5g}")
    if number <= limit:
        return ScanCheck("contrast", OK, "No channel fits better with inverted contrast.", number, limit)
    channel = name.removeprefix("inverted ")
    of = "all channels" if channel == "all" else channel
    words = f"upside down, the scan is {math.exp(number):.1f} times closer to the {profile.cases} training cases"
    place = ScanPlace(profile.channels[0] if channel == "all" else channel)
    if number > max(UPSIDE_DOWN, limit):
        sentence = f"The contrast of {of} is inverted: {words}; find the original file."
        return ScanCheck("contrast", REFUSE, sentence, number, max(UPSIDE_DOWN, limit), place)
    return ScanCheck("contrast", NOTE, f"The contrast of {of} may be inverted: {words}.", number, limit, place)
