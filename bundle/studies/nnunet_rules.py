"""The planning rules of nnU-Net 2.8.1: target spacing, patch and batch from a count of convolution outputs.

Axes are in the order of planning: the coarsest target spacing first (`planning_order`). Source: Isensee et al., Nature
Methods 18:203 (2021).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bundle.studies.topology import Topology, features, shrinking_patches
from scripts.errors import InputError

THICK = 3.0  # voxels this much longer than wide, and as many times fewer of them, are thick slices
LOW_RESOLUTION = 0.25  # share of a median scan; a patch that covers less asks for a coarser grid
LEAST_BATCH = 2
GB = 8.0  # memory that nnU-Net plans for
OUTPUTS = {3: 560e6, 2: 85e6}  # of convolutions that fit there, by the number of axes
BATCH = {3: 2, 2: 12}  # patches for which `OUTPUTS` are meant
COHORT_SHARE = 0.05  # of all voxels of the cohort that a batch may hold


class Configuration(NamedTuple):
    """A planned grid with its patch and batch."""

    spacing: tuple[float, ...]  # mm by axis
    shape: tuple[int, ...]  # voxels of a median scan
    topology: Topology
    batch: int
    capped: bool = False  # the batch would exceed its share of the cohort

    @property
    def cover(self) -> float:
        """The share of a median scan that a patch covers."""
        return math.prod(self.topology.patch) / math.prod(self.shape)


def choose_spacing(spacings: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, int | None]:
    """The median spacing, with the tenth percentile along the axis of thick slices; and that axis, or None.

    Args:
        spacings: mm, [cases, axes].
        shapes: voxels after the crop, [cases, axes].
    """
    target, voxels = np.median(spacings, axis=0), np.median(shapes, axis=0)
    worst = int(target.argmax())
    others = [axis for axis in range(len(target)) if axis != worst]
    if not (target[worst] > THICK * target[others].max() and voxels[worst] * THICK < voxels[others].min()):
        return target, None
    target[worst] = np.percentile(spacings[:, worst], 10)
    if target[worst] < target[others].max():
        target[worst] = target[others].max() + 1e-5
    return target, worst


def planning_order(spacing: Sequence[float]) -> list[int]:
    """The axes x, y, z in the order of planning: as nnU-Net reads them, z, y, x, but the coarsest first."""
    backwards = [*reversed(range(len(spacing)))]
    coarsest = max(backwards, key=lambda axis: spacing[axis])
    return [coarsest, *(axis for axis in backwards if axis != coarsest)]


def resampled_shape(spacings: np.ndarray, shapes: np.ndarray, target: Sequence[float]) -> tuple[int, ...]:
    """The median shape of all scans, in voxels of the target spacing; the arguments as for `choose_spacing`."""
    return tuple(int(size) for size in np.median(np.round(spacings / np.asarray(target) * shapes), axis=0))


def count_outputs(topology: Topology, classes: int) -> int:
    """The outputs of all convolutions for one patch; `classes` are the output channels, background included."""
    width, size, voxels = features(len(topology.strides), len(topology.patch)), [*topology.patch], []
    for stride in topology.strides:
        size = [length // step for length, step in zip(size, stride, strict=True)]
        voxels.append(math.prod(size))
    encoder = sum(2 * f * v for f, v in zip(width, voxels, strict=True))
    decoder = sum(3 * f * v for f, v in zip(width[:-1], voxels[:-1], strict=True))
    return encoder + decoder + classes * voxels[0]


def plan_configuration(
    spacing: Sequence[float], shape: Sequence[int], cohort: float, classes: int, gb: float = GB
) -> Configuration:
    """The largest patch whose counted outputs are within the memory, and the batch that fills it.

    Args:
        spacing: mm by axis.
        shape: voxels of a median scan.
        cohort: voxels of all scans together.
        classes: output channels, background included.
        gb: memory.

    Raises:
        InputError: no patch is small enough.
    """
    axes, allowed = len(shape), OUTPUTS[len(shape)] * (gb / GB)
    for topology in shrinking_patches(spacing, shape):
        outputs = count_outputs(topology, classes)
        if outputs * LEAST_BATCH / BATCH[axes] <= allowed:
            fitting = round(allowed / outputs * BATCH[axes])
            most = round(cohort * COHORT_SHARE / math.prod(topology.patch))
            return Configuration(
                tuple(spacing), tuple(shape), topology, max(min(fitting, most), LEAST_BATCH), most < fitting
            )
    raise InputError(f"--gpu_gb is {gb:g}: no patch is small enough for that; give more memory.")


def plan_low_resolution(
    full: Configuration, plan: Callable[[Sequence[float], Sequence[int]], Configuration]
) -> tuple[Configuration | None, str]:
    """The low-resolution configuration, or None; and the reason in words.

    The grid is made coarser by 3 % at a time, first along the axes of finer voxels, until a patch covers a quarter of
    a median scan. The search ends where an axis has no voxel left.

    Args:
        full: at full resolution.
        plan: gives the configuration for a spacing and the shape of a median scan.
    """
    if full.cover >= LOW_RESOLUTION:
        return None, f"a patch covers {full.cover:.0%} of a median scan at full resolution"
    spacing, cover = np.array(full.spacing), full.cover
    while cover < LOW_RESOLUTION:
        finer = spacing.max() / spacing > 2
        spacing = spacing * np.where(finer if finer.any() else True, 1.03, 1.0)
        exact = np.array(full.spacing) / spacing * full.shape
        shape = [round(length) for length in exact]
        if min(shape) < 1:
            return None, f"no coarser grid helps: an axis of {min(full.shape)} voxels cannot be made shorter"
        low = plan(tuple(spacing), shape)
        cover = math.prod(low.topology.patch) / math.prod(exact)
    if math.prod(full.shape) < 2 * math.prod(exact):
        return None, "the grid on which a patch covers a quarter of a median scan is hardly coarser"
    return low, f"a patch covers {full.cover:.0%} of a median scan at full resolution, which is less than 25 %"
