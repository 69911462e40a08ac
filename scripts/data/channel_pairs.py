"""Similarity of two channels of a scan by their edges: where they lie, where they fit best, and mirrored.

Channels of one patient have their edges in the same places whatever their contrast, so that the correlation of gradient
magnitudes shows displaced, mirrored and foreign channels (as in registration by normalised gradients, Haber 2006).
"""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage

RIM_MM = 6.0  # of the brain's border, whose edge is the same for any two brains
SURE_GAIN = 0.1  # of a displaced fit over that where the channels lie, at least
LEAST_VOXELS = 1000  # of a brain without its rim, for its edges to be compared
DISPLACED_MM = 6.0  # two voxels of the coarse grid; less is noted
MIRRORED = 0.05  # by how much a mirrored channel must fit better; sound pairs are 0.09 or more below 0
EDGE_VOXELS = 20  # that one edge takes: the larger the brain in voxels, the less does chance correlate


class OddChannel(NamedTuple):
    """A channel that does not fit on another one, and by how much."""

    name: str
    other: str
    number: float


class EdgeMap(NamedTuple):
    """The edges of one channel, ready for comparison.

    Attributes:
        edges: gradient magnitude [H, W, D] inside the brain, of mean 0 and norm 1.
        values: intensities [H, W, D], clipped to their 1st and 99th percentile.
        brain: the mask [H, W, D].
        spacing: mm along each axis.
        mirror_axis: the axis that runs from left to right.
    """

    edges: np.ndarray
    values: np.ndarray
    brain: np.ndarray
    spacing: Sequence[float]
    mirror_axis: int


class PairComparison(NamedTuple):
    """How two channels fit.

    Attributes:
        similarity: correlation of edges where the channels lie, -1 to 1.
        correlation: of intensities in the brain that both show, -1 to 1.
        displacement_mm: how far one must be moved to fit best; 0 unless it then fits clearly better.
        mirrored: how much larger the correlation is with one channel mirrored, left to right; negative if smaller.
        chance: what chance alone may add to a correlation, three standard deviations.
    """

    similarity: float
    correlation: float
    displacement_mm: float
    mirrored: float
    chance: float


def find_edges(voxels: np.ndarray, brain: np.ndarray, spacing: Sequence[float], mirror_axis: int) -> EdgeMap | None:
    """The edges of a channel inside its brain; None for a brain of too few voxels.

    Args:
        voxels: [H, W, D], of a few mm.
        brain: its mask, [H, W, D].
        spacing: mm along each axis.
        mirror_axis: the axis that runs from left to right.
    """
    rim = max(1, round(RIM_MM / max(1.0, float(np.median(spacing)))))
    inner = ndimage.binary_erosion(brain, iterations=rim)
    if np.count_nonzero(inner) < LEAST_VOXELS:
        return None
    low, middle, high = np.percentile(voxels[brain], [1, 50, 99])
    values = np.where(brain, np.clip(voxels, low, high), middle).astype(np.float32)
    edges = np.zeros(voxels.shape, np.float32)
    gradient = ndimage.gaussian_gradient_magnitude(values, 1.0)[inner]
    edges[inner] = gradient - gradient.mean()
    edges /= max(float(np.linalg.norm(edges)), 1e-12)
    return EdgeMap(edges, values, brain, spacing, mirror_axis)


def compare_pairs(maps: Mapping[str, EdgeMap]) -> dict[tuple[str, str], PairComparison]:
    """The comparison of each two channels by their names."""
    spectra = {name: fft.rfftn(one.edges) for name, one in maps.items()}
    flipped = {name: fft.rfftn(np.flip(one.edges, one.mirror_axis)) for name, one in maps.items()}
    compared = {}
    for one, other in itertools.combinations(maps, 2):
        shape = maps[one].edges.shape
        fit = fft.irfftn(spectra[one] * spectra[other].conj(), shape)
        mirrored = fft.irfftn(spectra[one] * flipped[other].conj(), shape)
        here, best = float(fit.flat[0]), float(fit.max())
        moved, edges = 0.0, min(np.count_nonzero(maps[name].edges) for name in (one, other))
        chance = 3 / math.sqrt(max(1.0, edges / EDGE_VOXELS))
        if best > here + max(SURE_GAIN, chance):
            place = np.unravel_index(int(fit.argmax()), shape)
            voxels = [index - size if index > size // 2 else index for index, size in zip(place, shape, strict=True)]
            moved = float(np.linalg.norm(np.multiply(voxels, maps[one].spacing)))
        correlation = _correlate_intensities(maps[one], maps[other])
        compared[one, other] = PairComparison(here, correlation, moved, float(mirrored.max()) - best, chance)
    return compared


def _correlate_intensities(one: EdgeMap, other: EdgeMap) -> float:
    both = one.brain & other.brain
    here, there = one.values[both], other.values[both]
    return float(np.corrcoef(here, there)[0, 1]) if here.size > 2 and here.std() > 0 and there.std() > 0 else 0.0


def find_displaced(pairs: Mapping[tuple[str, str], PairComparison]) -> OddChannel | None:
    """The channel whose edges fit best elsewhere, and how far away in mm; None if all fit where they lie."""
    moved = {pair: compared.displacement_mm for pair, compared in pairs.items() if compared.displacement_mm}
    return _name_odd(moved, pairs)


def find_mirrored(pairs: Mapping[tuple[str, str], PairComparison]) -> OddChannel | None:
    """The channel whose edges fit better with left and right exchanged, and by what correlation; None if none does."""
    gains = {pair: own.mirrored for pair, own in pairs.items() if own.mirrored > max(MIRRORED, own.chance)}
    return _name_odd(gains, pairs)


def _name_odd(
    pairs: Mapping[tuple[str, str], float], compared: Mapping[tuple[str, str], PairComparison]
) -> OddChannel | None:
    """The channel that most of these pairs share, the other channel of its worst pair, and that pair's number.

    None if it fits on most of the channels that it was compared with: one that shows a part of the brain alone may fit
    one of the others elsewhere by chance.
    """
    if not pairs:
        return None
    counts = Counter(name for pair in pairs for name in pair)
    odd = max(counts, key=lambda name: (counts[name], max(value for pair, value in pairs.items() if name in pair)))
    if 2 * counts[odd] < sum(odd in pair for pair in compared):
        return None
    worst = max((pair for pair in pairs if odd in pair), key=lambda pair: pairs[pair])
    return OddChannel(odd, next(name for name in worst if name != odd), round(pairs[worst], 4))
