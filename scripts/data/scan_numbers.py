"""Numbers that describe a scan: grid, brain, sections, intensities, and the similarity of its channels.

They are measured on every third millimetre of the voxels, for the profile of a cohort (`scripts.data.profile`) and for
the scan that is compared with it. A number of a channel or a pair is called `kind channel` or `kind one/other`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage

from scripts.data.alignment_checks import find_edge_maps, mask_overlap
from scripts.data.channel_checks import CheckedChannel
from scripts.data.channel_pairs import PairComparison, compare_pairs
from scripts.data.check_results import ScanPlace

LEVELS = (1, 5, 10, 25, 50, 75, 90, 95, 99)  # percentiles that describe the intensities of a channel
EXTREME = 99.9  # percentile of the distance to the median beyond which voxels are extreme
WIDE = 0.3  # of the largest section: smaller ones, at the ends of a brain, differ from their neighbours anyway
FLAT = 1e-3  # a section that varies less than this share of the brain is constant
RIM_VOXELS = 2  # of the coarse brain, whose intensities are described by themselves


class SectionChanges(NamedTuple):
    """How sections of a channel along one axis differ from the mean of their neighbours, in standard deviations.

    Attributes:
        typical: the median over wide sections.
        largest: the largest one, as a multiple of the median.
        place: of that section.
        constant: numbers of constant sections inside the brain.
    """

    typical: float
    largest: float
    place: int
    constant: list[int]


class ScanNumbers(NamedTuple):
    """What describes one scan.

    Attributes:
        numbers: by name.
        places: where in the scan a number was found, for those of one place.
        intensities: by channel, percentiles of the z-scores in the brain, and the median z-score of its rim.
        pairs: how channels fit on one another.
        constant: places of constant sections.
    """

    numbers: dict[str, float]
    places: dict[str, ScanPlace]
    intensities: dict[str, list[float]]
    pairs: dict[tuple[str, str], PairComparison]
    constant: list[ScanPlace]


def measure_scan(image: np.ndarray, channels: Sequence[CheckedChannel]) -> ScanNumbers:
    """Measure a scan.

    Args:
        image: [C, H, W, D].
        channels: its channels, in this order, which have affines.
    """
    affine = channels[0].affine
    assert affine is not None
    sizes = nib.affines.voxel_sizes(affine)
    steps = [-(-full // small) for full, small in zip(image.shape[1:], channels[0].mask.shape, strict=True)]
    coarse = sizes * steps
    brain = np.any([channel.mask for channel in channels], axis=0)
    numbers = {
        "voxel": float(sizes.max()),
        "field": float((sizes * image.shape[1:]).min()),
        "brain": float(np.count_nonzero(brain) * np.prod(coarse) / 1000),
        "cut": max(_end_shares(brain)),
    }
    places, constant, intensities = {}, [], {}
    for channel, voxels in zip(channels, image, strict=True):
        sections = [_compare_sections(voxels, channel.mask, steps, axis) for axis in range(3)]
        typical = [changes.typical for changes in sections]
        axis = int(np.argmax([changes.largest for changes in sections]))
        numbers[f"sharpness {channel.name}"] = min(typical) / max(*typical, 1e-6)
        numbers[f"sections {channel.name}"] = sections[axis].largest
        places[f"sections {channel.name}"] = ScanPlace(channel.name, axis, sections[axis].place)
        constant += [ScanPlace(channel.name, a, k) for a, own in enumerate(sections) for k in own.constant]
        numbers[f"extremes {channel.name}"], places[f"extremes {channel.name}"] = _find_extremes(voxels, channel)
        intensities[channel.name] = describe_intensities(channel)
    pairs = compare_pairs(find_edge_maps(channels))
    by_name = {channel.name: channel for channel in channels}
    for (one, other), compared in pairs.items():
        numbers[f"similarity {one}/{other}"] = compared.similarity
        numbers[f"overlap {one}/{other}"] = mask_overlap(by_name[one], by_name[other])[0]
    return ScanNumbers(
        {name: float(f"{value:.5g}") for name, value in numbers.items()}, places, intensities, pairs, constant
    )


def describe_intensities(channel: CheckedChannel) -> list[float]:
    """`LEVELS` of the z-scores in the brain, and the median z-score of its rim."""
    values = channel.coarse[channel.mask]
    clipped = np.clip(values, *np.percentile(values, [100 - EXTREME, EXTREME]))
    rim = channel.mask & ~ndimage.binary_erosion(channel.mask, iterations=RIM_VOXELS)
    described = [*np.percentile(values, LEVELS), np.median(channel.coarse[rim])]
    return [round(float((value - clipped.mean()) / max(clipped.std(), 1e-12)), 4) for value in described]


def turn_upside_down(described: Sequence[float]) -> list[float]:
    """What `describe_intensities` gives for the channel with inverted contrast."""
    *levels, rim = described
    return [*(-value for value in reversed(levels)), -rim]


def _end_shares(brain: np.ndarray) -> list[float]:
    """The area of the first and last section of the brain along each axis, as shares of the largest section."""
    shares = []
    for axis in range(brain.ndim):
        areas = np.count_nonzero(brain, axis=tuple(other for other in range(brain.ndim) if other != axis))
        there = np.flatnonzero(areas)
        shares += [float(areas[end] / areas.max()) for end in (there[0], there[-1])] if there.size else [0.0]
    return shares


def _find_extremes(voxels: np.ndarray, channel: CheckedChannel) -> tuple[float, ScanPlace]:
    """The largest distance of a voxel to the median, as a multiple of the `EXTREME` percentile of it, and its place."""
    values = channel.coarse[channel.mask]
    median = float(np.median(values))
    usual = float(np.percentile(np.abs(values - median), EXTREME))
    if channel.stripped:
        voxels = np.where(voxels == channel.coarse[~channel.mask].flat[0], median, voxels)
    ends = [int(voxels.argmin()), int(voxels.argmax())]
    far = max(ends, key=lambda index: abs(float(voxels.flat[index]) - median))
    place = np.unravel_index(far, voxels.shape)
    return abs(float(voxels.flat[far]) - median) / max(usual, 1e-12), ScanPlace(channel.name, 2, int(place[2]))


def _compare_sections(voxels: np.ndarray, brain: np.ndarray, steps: Sequence[int], axis: int) -> SectionChanges:
    """Compare each section with the mean of its two neighbours."""
    thin = tuple(slice(None, None, 1 if other == axis else step) for other, step in enumerate(steps))
    sections = np.moveaxis(voxels[thin], axis, 0).astype(np.float32)
    inside = np.repeat(brain, steps[axis], axis)
    inside = np.moveaxis(inside[tuple(slice(size) for size in voxels[thin].shape)], axis, 0)
    sections, inside = (array.reshape(len(sections), -1) for array in (sections, inside))
    areas = np.count_nonzero(inside, axis=1)
    wide = np.flatnonzero(areas >= WIDE * areas.max())
    first, last = int(wide[0]), int(wide[-1])
    if last - first < 4:
        return SectionChanges(1.0, 1.0, first, [])
    here = slice(first, last + 1)
    values = sections[here]
    seen = inside[here] | np.roll(inside[here], steps[axis], 0) | np.roll(inside[here], -steps[axis], 0)
    spread = max(float(values[inside[here]].std()), 1e-12)
    counts = np.maximum(seen.sum(1), 1)
    means = (values * seen).sum(1) / counts
    deviations = np.sqrt((((values - means[:, None]) ** 2) * seen).sum(1) / counts)
    edge = steps[axis] - 1  # the brain is known by voxels of the coarse grid, of which the outer ones reach beyond it
    flat = first + np.flatnonzero(deviations < FLAT * spread)
    constant = [int(k) for k in flat if first + edge <= k <= last - edge]
    apart = (values[1:-1] - (values[:-2] + values[2:]) / 2) * seen[1:-1]
    changes = np.sqrt((apart**2).sum(1) / counts[1:-1]) / spread
    typical, most = float(np.median(changes)), int(changes.argmax())
    largest = float(changes[most]) / max(typical, 1e-6)
    return SectionChanges(typical, min(largest, 1e6), first + 1 + most, constant)
