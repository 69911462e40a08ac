"""Lesions of a region over time: which lesion of one time point is which of another, from their places in the first.

Lesions are the connected voxels of a region at one time point, on its own grid. Their voxels are moved to the space of
the first time point as points; two lesions of two time points are linked where points of both are near each other.
What is linked, directly or through others, is one lesion over time: so one that splits, and several that merge, stay
one row, with their number of parts.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as graph_components
from scipy.spatial import cKDTree

from scripts.data.images import connected_components

REACH_MM = 3.0  # between points of two lesions that are one; or the longest side of a voxel, if that is more
UNCERTAIN_ML = 0.1  # below, a lesion that is new or gone may be an error of the network
FIRST, MATCHED, NEW, BACK, GONE, ABSENT = "first", "matched", "new", "back", "gone", "absent"
SPLIT, MERGED, UNCERTAIN = "split", "merged", "uncertain"


class RegionLesions(NamedTuple):
    """The lesions of a region at one time point.

    Attributes:
        measures: of each, as in answer.json: `number`, `volume_ml`, `diameter_mm`, `perpendicular_mm`, ...
        points: of their voxels, [n, 3], in mm of the first time point.
        numbers: to which lesion each point belongs, [n].
        to_first: 4 x 4, from mm of this time point to mm of the first.
        affine: of the mask, 4 x 4.
        shape: of the mask.
    """

    measures: Sequence[Mapping[str, Any]]
    points: np.ndarray
    numbers: np.ndarray
    to_first: np.ndarray
    affine: np.ndarray
    shape: tuple[int, ...]

    @property
    def reach_mm(self) -> float:
        """How near points of another time point must be."""
        return max(REACH_MM, float(nib.affines.voxel_sizes(self.affine).max()))

    def shows(self, points: np.ndarray) -> bool:
        """Whether the middle of these points, in mm of the first time point, is inside the field of view."""
        to_voxels = np.linalg.inv(self.to_first @ self.affine)
        place = nib.affines.apply_affine(to_voxels, points.mean(axis=0))
        return bool(np.all(place > -0.5) and np.all(place < np.array(self.shape) - 0.5))


def find_region_lesions(
    mask: np.ndarray, affine: np.ndarray, measures: Sequence[Mapping[str, Any]], to_first: np.ndarray
) -> RegionLesions:
    """The lesions of a region.

    Args:
        mask: [H, W, D], turned to the patient as for the measures.
        affine: of the mask.
        measures: of the lesions of this region in answer.json, the largest first.
        to_first: 4 x 4, from mm of this time point to mm of the first.
    """
    numbered, sizes = connected_components(mask)
    rank = np.zeros(len(sizes) + 1, int)
    rank[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, len(sizes) + 1)  # their numbers in answer.json
    voxels = np.argwhere(mask)
    points = nib.affines.apply_affine(to_first @ affine, voxels) if len(voxels) else np.zeros((0, 3))
    return RegionLesions(measures, points, rank[numbered[mask]], to_first, affine, mask.shape)


def track_lesions(region: str, times: Sequence[RegionLesions], days: Sequence[int]) -> list[dict[str, Any]]:
    """Each lesion of a region over time, the earliest and largest first.

    Returns:
        by lesion: `region`, `number`, and `times`, for each time point `day`, `event`, `parts` (numbers in
        answer.json), `volume_ml`, `diameter_mm` and `perpendicular_mm` of the largest part, `product_mm2`, the sum over
        the parts, and `centre` in mm of the first time point.
    """
    nodes = [(time, own["number"]) for time, found in enumerate(times) for own in found.measures]
    place = {node: k for k, node in enumerate(nodes)}
    links = {
        (one, other): _find_links(times[one], times[other])
        for one, other in itertools.combinations(range(len(times)), 2)
    }
    pairs = [(place[one, a], place[other, b]) for (one, other), found in links.items() for a, b in found]
    rows, columns = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs)), (rows, columns)), (len(nodes), len(nodes)))
    family = graph_components(graph, directed=False)[1] if nodes else np.zeros(0, int)
    families = [
        [[nodes[k][1] for k in np.flatnonzero(family == number) if nodes[k][0] == time] for time in range(len(times))]
        for number in dict.fromkeys(family.tolist())
    ]
    made = [{"region": region, "times": [*_describe(parts, times, days, links)]} for parts in families]
    made.sort(key=lambda lesion: [-own["volume_ml"] for own in lesion["times"]])
    return [{"region": region, "number": number, "times": own["times"]} for number, own in enumerate(made, start=1)]


def _find_links(one: RegionLesions, other: RegionLesions) -> set[tuple[int, int]]:
    """The numbers of lesions of two time points that are near each other."""
    if not len(one.points) or not len(other.points):
        return set()
    reach, found = max(one.reach_mm, other.reach_mm), set[tuple[int, int]]()
    for here, there, order in ((one, other, slice(None)), (other, one, slice(None, None, -1))):
        distances, nearest = cKDTree(there.points).query(here.points, distance_upper_bound=reach)
        near = np.isfinite(distances)
        pairs = np.unique(np.stack([here.numbers[near], there.numbers[nearest[near]]], axis=-1), axis=0)
        found |= {(int(a), int(b)) for a, b in pairs[:, order]}
    return found


def _describe(
    parts: Sequence[Sequence[int]],
    times: Sequence[RegionLesions],
    days: Sequence[int],
    links: Mapping[tuple[int, int], set[tuple[int, int]]],
) -> Iterator[dict[str, Any]]:
    for time, (day, own) in enumerate(zip(days, parts, strict=True)):
        measures = [times[time].measures[number - 1] for number in own]
        largest = max(measures, key=lambda lesion: lesion["diameter_mm"], default=None)
        yield {
            "day": day,
            "event": _name_event(time, parts, times, links),
            "parts": list(own),
            "volume_ml": float(sum(lesion["volume_ml"] for lesion in measures)),
            "diameter_mm": largest["diameter_mm"] if largest else 0.0,
            "perpendicular_mm": largest["perpendicular_mm"] if largest else 0.0,
            "product_mm2": sum_products(measures),
            "centre": _centre(times[time], own),
        }


def sum_products(lesions: Sequence[Mapping[str, Any]]) -> float:
    """The sum of the products of both diameters, in mm^2."""
    return round(float(sum(lesion["diameter_mm"] * lesion["perpendicular_mm"] for lesion in lesions)), 1)


def _centre(found: RegionLesions, parts: Sequence[int]) -> list[float] | None:
    if not parts:
        return None
    return [round(float(place), 1) for place in found.points[np.isin(found.numbers, parts)].mean(axis=0)]


def _name_event(
    time: int,
    parts: Sequence[Sequence[int]],
    times: Sequence[RegionLesions],
    links: Mapping[tuple[int, int], set[tuple[int, int]]],
) -> str:
    """What became of a lesion since the time point before."""
    now, earlier = parts[time], [*parts[:time]]
    if not earlier:
        return FIRST if now else ABSENT
    before = earlier[-1]
    if not now and not before:
        return ABSENT
    if not now:
        lost = times[time - 1].points[np.isin(times[time - 1].numbers, before)]
        sure = _volume(times[time - 1], before) >= UNCERTAIN_ML and times[time].shows(lost)
        return GONE if sure else UNCERTAIN
    if not before:
        if any(earlier):
            return BACK
        found = times[time].points[np.isin(times[time].numbers, now)]
        sure = _volume(times[time], now) >= UNCERTAIN_ML and all(other.shows(found) for other in times[:time])
        return NEW if sure else UNCERTAIN
    own = [(a, b) for a, b in links[time - 1, time] if b in now]
    split = any(sum(a == part for a, _ in own) > 1 for part in before)
    merged = any(sum(b == part for _, b in own) > 1 for part in now)
    return " and ".join([SPLIT] * split + [MERGED] * merged) or MATCHED


def _volume(found: RegionLesions, parts: Sequence[int]) -> float:
    return sum(found.measures[number - 1]["volume_ml"] for number in parts)
