"""The profile of a cohort: what is usual for the scans that a network was trained on, and how a scan compares.

A profile keeps the numbers of each training case (`scripts.data.scan_numbers`), sorted, without names. What compares a
case with the others, such as the distance of its intensities, is computed for each training case without itself.
"""

import itertools
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from scripts.data.scan_numbers import ScanNumbers, turn_upside_down
from scripts.errors import InputError
from scripts.files import read_mapping

PROFILE = "profile.json"  # next to a run's or a package's weights
PROFILE_VERSION = 1
NOTED_FROM, REFUSED_FROM = 8, 50  # training cases
USUAL = 0.99  # of training cases: a number beyond that of so many is noted
FALSE_REFUSALS = 0.001  # of sound scans, by all numbers together
CHANCE = 0.1  # squared standard deviations, added to misfits before their ratio is taken
LEAST_SPREAD = 0.05  # standard deviations of z-scores and correlations are at least this


class NumberLimits(NamedTuple):
    """Above what a number is noted and refused; infinite where too few training cases say."""

    noted: float
    refused: float


class Profile(NamedTuple):
    """The profile of a cohort.

    Attributes:
        cases: how many training cases it describes.
        channels: their names.
        numbers: those of the training cases by name, sorted.
        means: by channel (intensities) and pair (similarity and correlation), what is usual.
        deviations: their standard deviations.
        features: of the network's deep features (`scripts.inference.feature_profile`); None where there are none.
    """

    cases: int
    channels: list[str]
    numbers: dict[str, list[float]]
    means: dict[str, list[float]]
    deviations: dict[str, list[float]]
    features: dict[str, Any] | None = None


def make_profile(channels: Sequence[str], scans: Sequence[ScanNumbers]) -> Profile:
    """The profile of these scans of the channels."""
    described = [_describe(scan) for scan in scans]
    numbers = defaultdict(list)
    for place, scan in enumerate(scans):
        others = described[:place] + described[place + 1 :]
        compared = compare_with_usual(scan, *_usual(others)) if len(others) > 1 else {}
        for name, value in {**scan.numbers, **compared}.items():
            numbers[name].append(value)
    means, deviations = _usual(described)
    return Profile(len(scans), [*channels], {name: sorted(own) for name, own in numbers.items()}, means, deviations)


def compare_with_usual(
    scan: ScanNumbers, means: Mapping[str, Sequence[float]], deviations: Mapping[str, Sequence[float]]
) -> dict[str, float]:
    """Numbers that compare a scan with what is usual.

    Returns:
        `intensities X`: distance of a channel's intensities, root mean square in standard deviations. `inverted X`: log
        of the misfit of a channel, in intensities and correlation with others, to that with inverted contrast, above 0
        if the latter is smaller; `inverted all` of all channels together. `order X/Y`: log of the misfit of both
        channels, in intensities and pairs, to the misfit with their files exchanged.
    """
    own = {name: values for name, values in _describe(scan).items() if name in means}

    def misfit(name: str, values: Sequence[float]) -> float:
        return float(np.mean(((np.array(values) - means[name]) / deviations[name]) ** 2))

    def correlation_misfit(name: str, sign: int) -> float:
        return float(((sign * own[name][1] - means[name][1]) / deviations[name][1]) ** 2)

    found, upright, inverted = {}, {}, {}
    for channel, values in scan.intensities.items():
        upright[channel], inverted[channel] = misfit(channel, values), misfit(channel, turn_upside_down(values))
        found[f"intensities {channel}"] = math.sqrt(upright[channel])
        pairs = [name for name in own if channel in name.split("/") and "/" in name]
        here, turned = (float(np.mean([correlation_misfit(name, sign) for name in pairs] or [0.0])) for sign in (1, -1))
        found[f"inverted {channel}"] = _log_ratio(upright[channel] + here, inverted[channel] + turned)
    found["inverted all"] = _log_ratio(float(np.mean([*upright.values()])), float(np.mean([*inverted.values()])))
    for one, other in itertools.combinations(scan.intensities, 2):
        exchanged = {one: other, other: one}
        names = [name for name in own if {*name.split("/")} & {one, other}]
        given = swapped = 0.0
        for name in names:
            source = "/".join(exchanged.get(part, part) for part in name.split("/"))
            source = source if source in own else "/".join(reversed(source.split("/")))
            if source not in own:  # a pair that could not be compared
                continue
            weight = 1.0 if "/" not in name else 1 / len(scan.intensities)
            given += weight * misfit(name, own[name])
            swapped += weight * misfit(name, own[source])
        found[f"order {one}/{other}"] = _log_ratio(given, swapped)
    return {name: float(f"{value:.5g}") for name, value in found.items()}


def _log_ratio(misfit: float, other: float) -> float:
    """Of two mean squared distances in standard deviations; differences far below 1 are chance."""
    return 0.5 * math.log((misfit + CHANCE) / (other + CHANCE))


def limit_number(values: Sequence[float], numbers: int, margin: float) -> NumberLimits:
    """Limits for a number of a new scan, from those of training cases.

    Noted beyond 99 of 100 training cases; with fewer than 99, beyond the upper 99 % prediction bound of a normal
    distribution if that is larger than all. Refused, with 50 or more, where it exceeds the largest by as much as that
    exceeds the median, by `margin`, and by a prediction bound at `FALSE_REFUSALS` divided by the number of numbers.

    Args:
        values: of the training cases; large ones are doubtful.
        numbers: how many numbers a scan has that may refuse it.
        margin: the least distance to the largest; infinite: never refused.
    """
    count, ordered = len(values), np.sort(values)
    if count < NOTED_FROM:
        return NumberLimits(math.inf, math.inf)
    most, middle = float(ordered[-1]), float(np.median(ordered))
    spread, mean = float(np.std(ordered, ddof=1)) * math.sqrt(1 + 1 / count), float(np.mean(ordered))
    rank = math.ceil(USUAL * (count + 1))
    bound = mean + float(student.ppf(USUAL, count - 1)) * spread
    noted = float(ordered[rank - 1]) if rank <= count else max(most, bound)
    if count < REFUSED_FROM:
        return NumberLimits(noted, math.inf)
    rare = mean + float(student.ppf(1 - FALSE_REFUSALS / numbers, count - 1)) * spread
    return NumberLimits(noted, max(most + max(most - middle, margin), rare))


def find_profile(weights: Sequence[str | os.PathLike]) -> str | None:
    """The profile next to the weights, of an ensemble next to those of its first member; None if there is none."""
    path = Path(weights[0]).with_name(PROFILE)
    return path.as_posix() if path.is_file() else None


def read_profile(path: str | os.PathLike) -> Profile:
    """The profile in a file.

    Raises:
        InputError: it cannot be read, or is of another version.
    """
    content = read_mapping(Path(path))
    if content.get("profile_version") != PROFILE_VERSION or not {*Profile._fields} <= {*content}:
        raise InputError(
            f"{path} is not a profile of version {PROFILE_VERSION}: train again, or delete it, and scans are not"
            " compared with the training cases."
        )
    return Profile(**{name: content[name] for name in Profile._fields})


def profile_content(profile: Profile) -> dict[str, Any]:
    """What a profile's file holds."""
    return {"profile_version": PROFILE_VERSION, **profile._asdict()}


def _describe(scan: ScanNumbers) -> dict[str, list[float]]:
    """The intensities of each channel and the similarity of each pair, by one name."""
    return {
        **scan.intensities,
        **{"/".join(pair): [compared.similarity, compared.correlation] for pair, compared in scan.pairs.items()},
    }


def _usual(described: Sequence[Mapping[str, Sequence[float]]]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Means and standard deviations by name, of the scans that have it."""
    means, deviations = {}, {}
    for name in dict.fromkeys(name for one in described for name in one):
        values = np.array([one[name] for one in described if name in one])
        means[name] = np.round(values.mean(0), 4).tolist()
        deviations[name] = np.round(np.maximum(values.std(0, ddof=min(1, len(values) - 1)), LEAST_SPREAD), 4).tolist()
    return means, deviations
