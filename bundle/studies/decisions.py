"""Decisions of a plan that follow from the cohort alone, each with its reason: grid, intensities, sampling, folds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bundle.cohort.case_sizes import CaseSize, pooled_percentiles
from bundle.studies.nnunet_rules import choose_spacing, planning_order, resampled_shape

ALIKE = 0.1  # spacings that differ by less from the median need no resampling
STRIPPED = 0.75  # of a scan's voxels left after the crop; below, the background is not part of the scan
CLIPPED = (0.5, 99.5)  # percentiles of CT intensities in the regions
RESCALED = {"rescale_to_0_1", "rgb_to_0_1"}  # channel names that ask for minimum to maximum
WITH_TUMOUR = 2 / 3  # of the patches should hold some, wherever they are drawn
VALIDATED = 10  # patients of a fold that a choice needs at least


class Line(NamedTuple):
    """A setting of the plan, and why it has this value."""

    setting: str
    value: Any
    reason: str


class Cohort(NamedTuple):
    """The scans that a plan is made for."""

    sizes: list[CaseSize]
    channels: list[str]
    regions: Mapping[str, Sequence[int]]
    unit: str  # mm or pixels
    folds: dict[int, int]  # patients of each

    @property
    def spacings(self) -> np.ndarray:
        """Mm, [cases, axes]."""
        return np.array([size.spacing for size in self.sizes])

    @property
    def shapes(self) -> np.ndarray:
        """Voxels after the crop, [cases, axes]."""
        return np.array([size.shape for size in self.sizes])


class Grid(NamedTuple):
    """The grid that a network sees."""

    line: Line
    spacing: np.ndarray  # mm by axis
    order: list[int]  # of the axes, for planning
    shape: tuple[int, ...]  # of a median scan


def decide_grid(cohort: Cohort, like: str | None = None) -> Grid:
    """The spacing, and the median scan on it; `like` nnunet resamples also where scans nearly agree."""
    spacings, shapes, count = cohort.spacings, cohort.shapes, len(cohort.sizes)
    if cohort.unit != "mm":
        line = Line("spacing", None, "pictures have no size in mm")
        return Grid(line, np.ones(shapes.shape[1]), [*range(shapes.shape[1])][::-1], _median(shapes))
    target, thick = choose_spacing(spacings, shapes)
    order, away = planning_order(target), np.abs(spacings - target)
    farthest = int(away.max(axis=1).argmax())
    own = f"the largest distance to a scan's own is {away.max():.3g} mm ({cohort.sizes[farthest].case})"
    distance = own if away.max() > 0 else "all have the same"
    ratios = np.percentile(spacings / np.median(spacings, axis=0), CLIPPED, axis=0)
    if like is None and np.abs(ratios - 1).max() <= ALIKE:
        median = " x ".join(f"{size:.4g}" for size in target)
        reason = f"no resampling: 99 % of {count} scans are within {ALIKE:.0%} of the median, {median} mm"
        return Grid(Line("spacing", None, f"{reason}; {distance}"), target, order, _median(shapes))
    reason = f"mm; median of {count} scans; {distance}"
    if thick is not None:
        wide = np.delete(np.median(spacings, axis=0), thick).max()
        times = np.median(spacings[:, thick]) / wide
        reason += (
            f"; along axis {'xyz'[thick]} the tenth percentile: slices are {times:.1f} times thicker than wide, and the"
            " median would blur the thin ones"
        )
    value = [float(f"{size:.5g}") for size in target]
    return Grid(Line("spacing", value, reason), target, order, resampled_shape(spacings, shapes, target))


def decide_normalization(cohort: Cohort) -> list[Line]:
    """The method by the names of the channels: CT has a unit, MRI has none."""
    names = [name.casefold() for name in cohort.channels]
    computed = [name == "ct" for name in names]
    if all(computed) and any(size.levels for size in cohort.sizes):
        ends = [round(value) for value in pooled_percentiles(cohort.sizes, CLIPPED)]
        reason = f"HU; {CLIPPED[0]} and {CLIPPED[1]} % of the voxels in the regions of {len(cohort.sizes)} scans"
        return [Line("normalize", "hu_window", "CT: the same unit in every scan"), Line("hu_window", ends, reason)]
    if {*names} <= RESCALED:
        return [Line("normalize", "minmax", "the names of the channels ask for minimum to maximum")]
    kept = float(np.median([size.kept for size in cohort.sizes]))
    reason = f"a median scan keeps {kept:.0%} of its voxels when the background is cut off"
    mixed = "; CT next to other channels: one method for all" if any(computed) else ""
    if kept < STRIPPED:
        return [Line("normalize", "zscore_nonzero", f"no unit; {reason}: statistics are taken of the rest{mixed}")]
    return [Line("normalize", "zscore", f"no unit; {reason}, so all voxels are of the scan{mixed}")]


def decide_sampling(cohort: Cohort, patch: Sequence[int], grid: Grid) -> list[Line]:
    """Where patches are centred, from the volumes of the regions.

    Args:
        cohort: of the plan.
        patch: voxels by axis.
        grid: of the plan.
    """
    volumes = {name: [size.volume(name) for size in cohort.sizes if size.components[name]] for name in cohort.regions}
    medians = {name: float(np.median(found)) if found else 0.0 for name, found in volumes.items()}
    flat = "thousand mm²" if cohort.unit == "mm" else "thousand pixels"
    largest, unit = max(medians, key=lambda name: medians[name]), flat if len(patch) < 3 else "ml"
    shown = f"median volume {', '.join(f'{name} {volume:.3g}' for name, volume in medians.items())} {unit}"
    lines = []
    rare = [name for name, volume in medians.items() if 0 < volume <= medians[largest] / 2]
    if len(cohort.regions) > 1:
        why = "at most half of the largest" if rare else "none is half as large as the largest, so any counts"
        lines.append(Line("centre_regions", rare or None, f"{shown}: {why}"))
    side = (1000 * medians[largest]) ** (1 / len(patch))  # mm, or pixels, of a cube of the tumour's volume
    within = zip(patch, grid.spacing, grid.shape, strict=True)
    anywhere = math.prod(min(1.0, float(have + side / size) / scan) for have, size, scan in within)
    share = min(0.9, max(1 / 3, (WITH_TUMOUR - anywhere) / max(1e-9, 1 - anywhere)))
    reason = f"of the patches are centred on it; one drawn anywhere holds some of {largest} in about {anywhere:.0%}"
    lines.append(Line("tumour_share", round(share, 2), f"{reason}; together at least two of three"))
    empty = sum(not any(size.components.values()) for size in cohort.sizes) / len(cohort.sizes)
    if empty > 0.5:
        reason = f"{empty:.0%} of the cases have no label; drawn equally often, they would give an empty prediction"
        lines.append(Line("labelled_case_share", 0.5, reason))
    smallest = {
        name: min((size.components[name][0] for size in cohort.sizes if size.components[name]), default=0.0)
        for name in cohort.regions
    }
    limits = {name: float(f"{volume:.2g}") for name, volume in smallest.items()}
    reason = f"{unit}; no larger min_component_ml is selected: a patient's largest component may be that small"
    return [*lines, Line("component_limits", limits, reason)]


def describe_folds(cohort: Cohort) -> str:
    """Whether the number of patients suits the number of folds, in one sentence."""
    patients, folds = len({size.patient for size in cohort.sizes}), len(cohort.folds)
    fewest = min(cohort.folds.values(), default=0)
    advised = 5 if patients >= 10 else max(2, patients // 2)
    text = f"folds: the list has {folds} for {patients} patients, the smallest has {fewest}"
    if folds != advised:
        text += f"; {advised} suit this number (`prepare --folds {advised}`)"
    if fewest < VALIDATED:
        text += f"; fewer than {VALIDATED} validation patients select a checkpoint by chance: pool the folds"
    return f"{text}."


def _median(shapes: np.ndarray) -> tuple[int, ...]:
    return tuple(int(size) for size in np.median(shapes, axis=0))
