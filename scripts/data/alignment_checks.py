"""Checks of how the channels of a volume lie on one another: their brains, and their edges."""

import itertools
from collections import Counter
from collections.abc import Sequence

import nibabel as nib
import numpy as np
from scipy import ndimage

from scripts.data.case_record import CaseRecord
from scripts.data.channel_checks import CheckedChannel
from scripts.data.channel_pairs import (
    DISPLACED_MM,
    EdgeMap,
    OddChannel,
    compare_pairs,
    find_displaced,
    find_edges,
    find_mirrored,
)

# Dice below, or mm between centroids above, is an error. Skull-stripped channels of real cases have Dice 0.998 or more,
# and 0.77 or less if shifted by 25 mm (test_case_checks.py measures it if the scans are there); whole heads vary more.
ALIGNMENT_LIMITS = {"stripped": (0.85, 8.0), "head": (0.70, 12.0)}
CUT_SHARE = 0.25  # a brain whose last section is at least this share of its largest one is cut off there
LOST_SHARE = 0.02  # of a brain: if more lies outside the field of view of another channel, the user should know


def check_alignment(channels: Sequence[CheckedChannel], record: CaseRecord) -> float | None:
    """Find the channel whose brain is not aligned with the others', and return the smallest Dice of two brain masks.

    Volumes only, since a slice does not show it; None where no two channels can be compared.
    """
    smallest = None
    channels = [channel for channel in channels if channel.is_volume and not channel.mask.all()]
    apart: dict[tuple[int, int], tuple[float, float]] = {}
    for (i, one), (j, other) in itertools.combinations(enumerate(channels), 2):
        dice, distance = mask_overlap(one, other)
        smallest = dice if smallest is None else min(dice, smallest)
        _note_lost_brain(one, other, record)
        least, most = ALIGNMENT_LIMITS["stripped" if one.stripped and other.stripped else "head"]
        if dice < least or distance > most:
            apart[i, j] = dice, distance
    counts = Counter(i for pair in apart for i in pair)
    odd = [i for i, count in counts.items() if count == len(apart) == len(channels) - 1 > 1]
    for (i, j), (dice, distance) in apart.items():
        channel, other = (channels[j], channels[i]) if j in odd or not odd else (channels[i], channels[j])
        reference = f"the other channels, such as {other.name}" if odd else f"channel {other.name} ({other.path.name})"
        record.problems.append(
            f"{channel.path}: channel {channel.name} does not lie on {reference}: their brains are"
            f" {distance:.0f} mm apart and overlap with Dice {dice:.2f}; register it to them, or find the right file."
        )
        if odd:
            break
    return smallest


def _note_lost_brain(one: CheckedChannel, other: CheckedChannel, record: CaseRecord) -> None:
    for whole, part in ((one, other), (other, one)):
        seen = np.count_nonzero(whole.mask[field_of_view(part.mask)]) / np.count_nonzero(whole.mask)
        text = f"channel {part.name} lacks a part of the brain; channels are compared where all show it"
        if seen < 1 - LOST_SHARE and text not in record.notes:
            record.notes.append(text)


def field_of_view(mask: np.ndarray) -> tuple[slice, ...]:
    """The part of the grid in which a channel shows a brain whole: it ends where the brain is cut off by a plane."""
    ends = []
    for axis in range(mask.ndim):
        areas = np.count_nonzero(mask, axis=tuple(other for other in range(mask.ndim) if other != axis))
        there = np.flatnonzero(areas)
        cut = [there.size > 0 and areas[there[end]] >= CUT_SHARE * areas.max() for end in (0, -1)]
        ends.append(slice(int(there[0]) if cut[0] else None, int(there[-1]) + 1 if cut[1] else None))
    return tuple(ends)


def mask_overlap(one: CheckedChannel, other: CheckedChannel) -> tuple[float, float]:
    """Dice of two channels' brain masks, and the distance between their centroids in mm, in their common field of view.

    A brain that lies wholly outside the other's field of view has Dice 0 and an infinite distance.
    """
    views = [field_of_view(channel.mask) for channel in (one, other)]
    common = [np.zeros_like(one.mask), np.zeros_like(one.mask)]
    for target, channel, view in zip(common, (one, other), reversed(views), strict=True):
        target[view] = channel.mask[view]
    if not (common[0].any() and common[1].any()):
        return 0.0, float("inf")
    dice = 2 * np.count_nonzero(common[0] & common[1]) / (np.count_nonzero(common[0]) + np.count_nonzero(common[1]))
    steps = np.array([full / small for full, small in zip(one.shape, one.mask.shape, strict=True)])
    assert one.affine is not None
    between = [np.array(ndimage.center_of_mass(mask)) * steps for mask in common]
    return float(dice), float(np.linalg.norm(one.affine[:3, :3] @ (between[0] - between[1])))


def check_edges(channels: Sequence[CheckedChannel], record: CaseRecord) -> None:
    """Find the channel of a volume whose edges fit the others' only when it is displaced or mirrored."""
    maps = find_edge_maps([channel for channel in channels if channel.is_volume])
    pairs = compare_pairs(maps)
    if (odd := find_displaced(pairs)) is not None and odd.number >= DISPLACED_MM:
        record.problems.append(describe_displaced(odd, channels))
    elif (odd := find_mirrored(pairs)) is not None:
        record.problems.append(describe_mirrored(odd, channels))


def find_edge_maps(channels: Sequence[CheckedChannel]) -> dict[str, EdgeMap]:
    """The edges of each channel that has enough of them; the channels have affines."""
    maps = {}
    for channel in (one for one in channels if one.affine is not None and not one.mask.all()):
        assert channel.affine is not None
        steps = [-(-full // small) for full, small in zip(channel.shape, channel.mask.shape, strict=True)]
        mirror_axis = int(np.argmin(nib.io_orientation(channel.affine)[:, 0]))
        sizes = nib.affines.voxel_sizes(channel.affine) * steps
        if (edges := find_edges(channel.coarse, channel.mask, sizes, mirror_axis)) is not None:
            maps[channel.name] = edges
    return maps


def describe_displaced(odd: OddChannel, channels: Sequence[CheckedChannel]) -> str:
    """A displaced channel, in a sentence with its file."""
    path = next(channel.path for channel in channels if channel.name == odd.name)
    where = f"fits on channel {odd.other} {odd.number:.0f} mm away from where it lies"
    return f"{path}: channel {odd.name} {where}; register it, or find the right file."


def describe_mirrored(odd: OddChannel, channels: Sequence[CheckedChannel]) -> str:
    """A mirrored channel, in a sentence with its file."""
    path = next(channel.path for channel in channels if channel.name == odd.name)
    what = f"fits on channel {odd.other} with left and right exchanged, so that one of them is mirrored"
    return f"{path}: channel {odd.name} {what}; export it again."
