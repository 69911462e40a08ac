"""A plan of a training: a grid, a patch, a network and a batch for a cohort and a memory, each with its reason."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bundle.benchmarks.steps import MeasuredStep
from bundle.studies.decisions import Cohort, Grid, Line, decide_grid, decide_normalization, decide_sampling
from bundle.studies.nnunet_rules import Configuration, plan_configuration, plan_low_resolution
from bundle.studies.step_memory import StepMemory
from bundle.studies.topology import Topology
from scripts.errors import InputError

CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade")
FLAT = 3  # times that a patch is longer than along its coarsest axis: augmented in plane
ANGLE, ANGLE_NNUNET, ANY_ANGLE = 0.26, 0.52, 3.14  # radians: 15, 30 and 180 degrees
STRETCH = 0.2  # share by which an axis is stretched or shrunk
NNUNET_SHARE = 0.33  # of the patches, centred on foreground
AXES = "xyz"


class Plan(NamedTuple):
    """The lines of a plan, for each configuration why it does not exist ("" if it does), and the measured step."""

    configuration: str
    lines: list[Line]
    exists: dict[str, str]
    step: MeasuredStep | None


class CountedOutputs:
    """nnU-Net's default planner, in place of `StepMemory`.

    Args:
        order: the axes of the scans in the order of planning.
        classes: output channels, background included.
        gib: the memory.
    """

    def __init__(self, order: Sequence[int], classes: int, gib: float) -> None:
        self.order, self.classes, self.gib = order, classes, gib

    def settings_of(self, topology: Topology) -> dict[str, Any]:
        """Patch and network of a topology."""
        return topology.settings(self.order, first=32)

    def plan(self, spacing: Sequence[float], shape: Sequence[int], cohort: float, exact: bool = False) -> Configuration:
        """As `StepMemory.plan`."""
        return plan_configuration(spacing, shape, cohort, self.classes, self.gib)


Search = StepMemory | CountedOutputs


def make_plan(
    cohort: Cohort,
    configuration: str | None,
    search_of: Callable[[Sequence[int]], Search],
    like: str | None = None,
    fixed: Iterable[str] = (),
) -> Plan:
    """Decide all lines of a configuration.

    Args:
        cohort: the scans.
        configuration: one of `CONFIGURATIONS`; None: 3d_fullres, or 2d where that does not exist.
        search_of: what finds patch and batch, for the axes in planning order.
        like: nnunet, for its rules.
        fixed: settings and sections that a recipe has set, which are left out.

    Raises:
        InputError: the configuration does not exist, or nothing fits the memory.
    """
    grid = decide_grid(cohort, like)
    search = search_of(grid.order)
    found, exists, why_low = plan_configurations(grid, search, len(cohort.sizes), configuration)
    name = configuration or ("2d" if exists["3d_fullres"] else "3d_fullres")
    if exists[name]:
        others = ", ".join(other for other, why in exists.items() if not why)
        raise InputError(f"--configuration {name} does not exist here: {exists[name]}; there is {others}.")
    chosen, step, low = found["3d_fullres" if name == "3d_cascade" else name], None, name == "3d_lowres"
    if low:
        spacing = [float(f"{chosen.spacing[grid.order.index(axis)]:.5g}") for axis in range(len(grid.order))]
        shape = tuple(chosen.shape[grid.order.index(axis)] for axis in range(len(grid.order)))
        line = Line("spacing", spacing, f"mm; {why_low}")
        grid = grid._replace(line=line, spacing=np.array(spacing), shape=shape)
    voxels = float(math.prod(grid.shape) * len(cohort.sizes))
    plan = partial(search.plan, chosen.spacing, chosen.shape, voxels, exact=True)
    if isinstance(search, StepMemory) and search.measure is not None:
        chosen, step = search.plan_measured(plan, {"spacing": grid.line.value})
    else:
        chosen = plan()
    settings = search.settings_of(chosen.topology)
    lines = [grid.line, *(decide_normalization(cohort) if cohort.unit == "mm" else [])]
    lines += network_lines(chosen, settings, grid, search.gib, step)
    lines.append(batch_dice_line(chosen, low, like, not exists["3d_lowres"]))
    lines += augmentation_lines(settings["patch_size"], chosen.topology.patch, grid, like)
    if like is None:
        lines += decide_sampling(cohort, settings["patch_size"], grid)
    else:
        lines.append(Line("tumour_share", NNUNET_SHARE, "nnU-Net's share of patches with forced foreground"))
    return Plan(name, [line for line in lines if not is_set(line.setting, fixed)], exists, step)


def plan_configurations(
    grid: Grid, search: Search, cases: int, wanted: str | None
) -> tuple[dict[str, Configuration], dict[str, str], str]:
    """What was planned, by name; for each of `CONFIGURATIONS` why it does not exist; why there is a low resolution."""
    spacing, shape = [float(grid.spacing[axis]) for axis in grid.order], [grid.shape[axis] for axis in grid.order]
    voxels = float(math.prod(shape) * cases)
    exists, why, found = dict.fromkeys(CONFIGURATIONS, ""), "", {}
    if len(shape) == 2 or min(shape) == 1:
        reason = "pictures have two axes" if len(shape) == 2 else "the scans have one slice"
        exists.update(dict.fromkeys(CONFIGURATIONS[1:], reason))
    else:
        found["3d_fullres"] = full = search.plan(spacing, shape, voxels)
        low, why = plan_low_resolution(
            full, lambda coarse, small: search.plan(coarse, small, float(math.prod(small) * cases))
        )
        if low is None:
            exists["3d_lowres"] = exists["3d_cascade"] = why
        else:
            found["3d_lowres"] = low
    if wanted == "2d" or not found:
        plane = slice(len(shape) - 2, None)
        found["2d"] = search.plan(spacing[plane], shape[plane], voxels)
    return found, exists, why


def network_lines(
    chosen: Configuration, settings: dict[str, Any], grid: Grid, gib: float, step: MeasuredStep | None
) -> list[Line]:
    """Patch, network and batch."""
    patch, strides = settings["patch_size"], chosen.topology.strides
    size = " x ".join(f"{have * mm:.4g}" for have, mm in zip(patch, grid.spacing, strict=True))
    scan, flat = " x ".join(map(str, grid.shape)), len(chosen.shape) < len(patch)
    memory = f"measured: {step.gib:.2f} GiB" if step else f"estimated for {gib:.3g} GiB"
    about = f"voxels; {chosen.cover:.0%} of a {'slice of a ' * flat}median scan of {scan}, {size} mm; {memory}"
    lines = [Line("patch_size", patch, about)]
    if "strides" in settings:
        lines.append(Line("filters", settings["filters"], f"features of {len(strides)} levels, doubled at each"))
        late = [axis for axis in range(len(patch)) if any(stride[axis] == 1 for stride in settings["strides"][1:])]
        spared = "".join(AXES[axis] for axis in late)
        why = f"; along {spared} later or not at all, where voxels are longer or fewer" if late else ""
        why = f"; none along {spared}, across slices" if flat else why
        lines.append(Line("strides", settings["strides"], f"each level halves the grid down to 4 voxels at least{why}"))
        thin = "".join(AXES[axis] for axis in range(len(patch)) if settings["kernels"][0][axis] == 1)
        until = ": slices are seen one by one" if flat else " until the others are as coarse"
        why = f"1 along {thin}{until}" if thin else "voxels are as long along all axes"
        lines.append(Line("kernels", settings["kernels"], why))
    capped = "at most 5 % of the cohort in a step" if chosen.capped else f"what {gib:.3g} GiB hold"
    return [*lines, Line("batch_size", chosen.batch, f"patches; {capped}; with several GPUs of each")]


def batch_dice_line(chosen: Configuration, low: bool, like: str | None, has_low: bool) -> Line:
    """Whether the patches of a batch count as one image in the Dice loss."""
    if like is None:
        return Line("region_loss::batch", True, "Dice over the batch: patches are parts, and some hold no tumour")
    whole = len(chosen.shape) == 2 or (has_low and not low)
    reason = "patches are small parts" if whole else "a patch holds most of a scan"
    return Line(
        "region_loss::batch", whole, f"Dice over the batch in 2D, and where there is a low resolution: {reason}"
    )


def augmentation_lines(patch: Sequence[int], planned: Sequence[int], grid: Grid, like: str | None) -> list[Line]:
    """Rotation and stretching: in the plane of thick slices, and of 2D networks."""
    axes, coarsest = len(patch), grid.order[0]
    small, any_angle = (ANGLE_NNUNET, ANY_ANGLE) if like else (ANGLE, ANGLE)
    if axes == 2:
        angle = (ANGLE if max(patch) / min(patch) > 1.5 else ANY_ANGLE) if like else ANGLE
        return [Line("rotation", [angle], "radians, in the plane"), Line("scaling", [STRETCH] * 2, "by axis")]
    if len(planned) == axes and max(planned) / planned[0] <= FLAT:
        return [Line("rotation", [small] * 3, "radians, about each axis: the patch is nearly as deep as wide")]
    rotation = [any_angle if axis == coarsest else 0.0 for axis in range(3)]
    scaling = [0.0 if axis == coarsest else STRETCH for axis in range(3)]
    deep = f"a patch is {max(patch) / patch[coarsest]:.0f} times wider than deep"
    why = f"radians, about {AXES[coarsest]} alone: {deep}, and a turn out of the plane would mix slices"
    return [Line("rotation", rotation, why), Line("scaling", scaling, f"not along {AXES[coarsest]}")]


def is_set(place: str, fixed: Iterable[str]) -> bool:
    """Whether a recipe has set a place, a section of it, or the section that it is in."""
    return any(f"{place}::".startswith(f"{other}::") or f"{other}::".startswith(f"{place}::") for other in fixed)
