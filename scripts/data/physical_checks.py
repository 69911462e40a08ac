"""Checks of a scan for physical faults, which need no training cases: a channel displaced, mirrored, or no scan."""

from collections.abc import Sequence

import numpy as np

from scripts.data.alignment_checks import describe_displaced, describe_mirrored
from scripts.data.channel_checks import CheckedChannel
from scripts.data.channel_pairs import DISPLACED_MM, MIRRORED, find_displaced, find_mirrored
from scripts.data.check_results import NOTE, OK, REFUSE, TO_PREPARE, ScanCheck, ScanPlace
from scripts.data.scan_numbers import ScanNumbers

NO_PAIRS = "There are no two channels whose edges can be compared."
BRIGHT = 0.98  # share of the brain that a background cannot exceed: 0.99 where inverted, 0.67 where centred
LABEL_VALUES = 10  # a channel of so few values is a label map


def check_physics(scan: ScanNumbers, channels: Sequence[CheckedChannel]) -> list[ScanCheck]:
    """The checks of a scan by its numbers, and by its channels in the order of the network."""
    return [
        _check_values(channels),
        _check_displacement(scan, channels),
        _check_mirror(scan, channels),
        _check_sections(scan, channels),
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
    odd = find_displaced(scan.pairs)
    if odd is None:
        sound = "The edges of all channels fit best where they are." if scan.pairs else NO_PAIRS
        return ScanCheck("displacement", OK, sound, 0.0 if scan.pairs else None, DISPLACED_MM)
    status = REFUSE if odd.number >= DISPLACED_MM else NOTE
    sentence = describe_displaced(odd, channels)
    if status == REFUSE:
        sentence = f"{sentence.rstrip('.')} ({TO_PREPARE})."
    return ScanCheck("displacement", status, sentence, odd.number, DISPLACED_MM, ScanPlace(odd.name, other=odd.other))


def _check_mirror(scan: ScanNumbers, channels: Sequence[CheckedChannel]) -> ScanCheck:
    odd = find_mirrored(scan.pairs)
    if odd is None:
        sound = "No channel fits better with left and right exchanged." if scan.pairs else NO_PAIRS
        number = round(max(own.mirrored for own in scan.pairs.values()), 4) if scan.pairs else None
        return ScanCheck("mirrored channel", OK, sound, number, MIRRORED)
    place = ScanPlace(odd.name, other=odd.other)
    return ScanCheck("mirrored channel", REFUSE, describe_mirrored(odd, channels), odd.number, MIRRORED, place)


def _check_sections(scan: ScanNumbers, channels: Sequence[CheckedChannel]) -> ScanCheck:
    if scan.constant:
        place, count = scan.constant[0], len(scan.constant)
        path = next(channel.path for channel in channels if channel.name == place.channel)
        sections = f"{count} section{'s' * (count > 1)} of one value inside the brain, such as number {place.slice}"
        sentence = f"{path}: channel {place.channel} has {sections}; export it again."
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
