"""Checks of a scan for physical faults, which need no training cases: a channel displaced, mirrored, or no scan."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from scripts.data.case_checks import CheckedChannel
from scripts.data.check_results import NOTE, OK, REFUSE, ScanCheck, ScanPlace
from scripts.data.scan_numbers import ScanNumbers

DISPLACED_MM = 6.0  # two voxels of the coarse grid; less is noted
MIRRORED = 0.05  # by how much a mirrored channel must fit better; sound pairs are 0.09 or more below 0
BRIGHT = 0.999  # share of the brain that a background cannot exceed; what was centred before has half
LABEL_VALUES = 10  # a channel of so few values is a label map


def check_physics(scan: ScanNumbers, channels: Sequence[CheckedChannel]) -> list[ScanCheck]:
    """The checks of a scan by its numbers, and by its channels in the order of the network."""
    return [
        _check_values(channels),
        _check_displacement(scan, channels),
        _check_mirror(scan, channels),
        _check_sections(scan),
        _check_background(channels),
    ]


def _check_values(channels: Sequence[CheckedChannel]) -> ScanCheck:
    counts = {channel.name: (len(np.unique(channel.coarse)), channel.path) for channel in channels}
    name = min(counts, key=lambda one: counts[one][0])
    number, path = counts[name]
    if number > LABEL_VALUES:
        return ScanCheck("values", OK, "Every channel has many values, as scans have.", number, LABEL_VALUES)
    sentence = f"{path}: channel {name} has {number} values, as a label map has; find the file of the scan."
    return ScanCheck("values", REFUSE, sentence, number, LABEL_VALUES, ScanPlace(name))


def _check_displacement(scan: ScanNumbers, channels: Sequence[CheckedChannel]) -> ScanCheck:
    if not scan.pairs:
        return ScanCheck("displacement", OK, "There are no two channels to compare.")
    moved = {pair: compared.displacement_mm for pair, compared in scan.pairs.items()}
    number = round(max(moved.values()), 2)
    if not number:
        return ScanCheck("displacement", OK, "The edges of all channels fit best where they are.", number, DISPLACED_MM)
    name, other = _odd_channel({pair: mm for pair, mm in moved.items() if mm})
    path = next(channel.path for channel in channels if channel.name == name)
    sentence = f"{path}: channel {name} fits on channel {other} {number:.0f} mm away from where it lies"
    if number < DISPLACED_MM:
        return ScanCheck("displacement", NOTE, f"{sentence}.", number, DISPLACED_MM, ScanPlace(name))
    return ScanCheck(
        "displacement",
        REFUSE,
        f"{sentence}; register it, or find the right file.",
        number,
        DISPLACED_MM,
        ScanPlace(name),
    )


def _check_mirror(scan: ScanNumbers, channels: Sequence[CheckedChannel]) -> ScanCheck:
    if not scan.pairs:
        return ScanCheck("mirrored channel", OK, "There are no two channels to compare.")
    gains = {pair: compared.mirrored for pair, compared in scan.pairs.items()}
    number, limit = max(gains.values()), max(MIRRORED, *(compared.chance for compared in scan.pairs.values()), 0.0)
    number, limit = round(number, 4), round(limit, 4)
    if number <= limit:
        return ScanCheck("mirrored channel", OK, "No channel fits better with left and right exchanged.", number, limit)
    name, other = _odd_channel({pair: gain for pair, gain in gains.items() if gain > limit})
    path = next(channel.path for channel in channels if channel.name == name)
    sentence = (
        f"{path}: channel {name} fits on {other} with left and right exchanged: one is mirrored; export it again."
    )
    return ScanCheck("mirrored channel", REFUSE, sentence, number, limit, ScanPlace(name))


def _check_sections(scan: ScanNumbers) -> ScanCheck:
    if scan.constant:
        place, count = scan.constant[0], len(scan.constant)
        sentence = (
            f"{place.channel} has {count} section{'s' * (count > 1)} of one value inside the brain; export it again."
        )
        return ScanCheck("constant sections", REFUSE, sentence, count, 0, place)
    return ScanCheck("constant sections", OK, "No section inside the brain has one value alone.", 0, 0)


def _check_background(channels: Sequence[CheckedChannel]) -> ScanCheck:
    """Around a brain is nothing, which no channel of an MRI shows bright."""
    shares = {}
    for channel in (one for one in channels if one.stripped):
        background = float(channel.coarse[~channel.mask].flat[0])
        shares[channel.name] = float((channel.coarse[channel.mask] < background).mean())
    if not shares:
        return ScanCheck("background", OK, "The background is not of one value, and is not compared.")
    name = max(shares, key=lambda one: shares[one])
    number, limit = round(shares[name], 4), BRIGHT
    if number <= limit:
        return ScanCheck("background", OK, "The background is not brighter than the brain.", number, limit)
    path = next(channel.path for channel in channels if channel.name == name)
    sentence = f"{path}: the background of {name} is brighter than {number:.0%} of the brain: its contrast is inverted."
    return ScanCheck("background", REFUSE, sentence, number, limit, ScanPlace(name))


def _odd_channel(pairs: dict[tuple[str, str], float]) -> tuple[str, str]:
    """The channel that most of these pairs share, and the other channel of its worst pair."""
    counts = Counter(name for pair in pairs for name in pair)
    odd = max(counts, key=lambda name: (counts[name], max(value for pair, value in pairs.items() if name in pair)))
    worst = max((pair for pair in pairs if odd in pair), key=lambda pair: pairs[pair])
    return odd, next(name for name in worst if name != odd)
