"""Strides and kernels of a U-Net for a patch of given voxel size, and the patches to choose from."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

BOTTLENECK = 4  # voxels per axis that pooling leaves at least
FEATURES = {2: 512, 3: 320}  # most of a level, by the number of axes
SIDE = {2: 2048, 3: 256}  # voxels per side of the first patch, as a cube of equal sides in mm


class Topology(NamedTuple):
    """A patch, and by level of the network the stride into it and the kernel of its convolutions, all by axis."""

    patch: tuple[int, ...]  # voxels, a multiple of the product of the strides
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]

    def settings(self, order: Sequence[int], first: int) -> dict[str, list]:
        """Patch and network as settings of train.yaml.

        Args:
            order: the axes of the file in the order of this topology; one more for slices across the first of them.
            first: features of the first level.
        """

        def by_axis(values: Sequence[int]) -> list[int]:
            own = (*[1] * (len(order) - len(values)), *values)
            return [own[list(order).index(axis)] for axis in range(len(order))]

        return {
            "patch_size": by_axis(self.patch),
            "filters": features(len(self.strides), len(self.patch), first),
            "strides": [by_axis(stride) for stride in self.strides],
            "kernels": [by_axis(kernel) for kernel in self.kernels],
        }

    @property
    def divisor(self) -> tuple[int, ...]:
        """By axis, the number of which the patch is a multiple."""
        return tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))


def features(levels: int, axes: int, first: int = 32) -> list[int]:
    """The features of each level: doubled from one to the next, up to 320 in 3D and 512 in 2D."""
    return [min(first * 2**level, max(first, FEATURES[axes])) for level in range(levels)]


def choose_topology(spacing: Sequence[float], patch: Sequence[int]) -> Topology:
    """Strides and kernels by axis; the patch is padded up to a multiple of the strides.

    An axis is halved while that leaves `BOTTLENECK` voxels, as long as its voxels are less than twice as large as the
    smallest of the axes that can be halved; its kernel is 1 until its voxels are less than twice as large as the
    smallest. The rules are those of nnU-Net (Isensee et al. 2021).

    Args:
        spacing: mm by axis.
        patch: voxels by axis.
    """
    axes = range(len(patch))
    size, voxel, kernel = [*patch], [*map(float, spacing)], [1] * len(patch)
    strides, kernels = [(1,) * len(patch)], []
    while halved := [axis for axis in axes if size[axis] >= 2 * BOTTLENECK]:
        finest = min(voxel[axis] for axis in halved)
        halved = [axis for axis in halved if voxel[axis] / finest < 2]
        if len(halved) == 1 and size[halved[0]] < 3 * BOTTLENECK:
            break
        kernel = [3 if voxel[axis] / min(voxel) < 2 else kernel[axis] for axis in axes]
        for axis in halved:
            size[axis], voxel[axis] = -(-size[axis] // 2), 2 * voxel[axis]
        strides.append(tuple(2 if axis in halved else 1 for axis in axes))
        kernels.append(tuple(kernel))
    kernels.append((3,) * len(patch))
    divisor = [math.prod(axis) for axis in zip(*strides, strict=True)]
    padded = tuple(-(-length // step) * step for length, step in zip(patch, divisor, strict=True))
    return Topology(padded, tuple(strides), tuple(kernels))


def shrinking_patches(spacing: Sequence[float], shape: Sequence[int]) -> Iterator[Topology]:
    """Patches to choose from, the largest first, until an axis cannot be cut further.

    The first is a cube in mm of `SIDE` voxels per side in the mean, within the scan. From each to the next the axis
    that is largest in relation to the scan is cut (of equal ones the last) by what the strides need.

    Args:
        spacing: mm by axis.
        shape: voxels of a median scan by axis.
    """
    mean = math.prod(spacing) ** (1 / len(spacing))
    first = [
        min(round(SIDE[len(shape)] * mean / size), int(length)) for size, length in zip(spacing, shape, strict=True)
    ]
    found = choose_topology(spacing, first)
    while True:
        yield found
        shares = [have / length for have, length in zip(found.patch, shape, strict=True)]
        axis = max(range(len(shares)), key=lambda number: (shares[number], number))
        patch = [*found.patch]
        patch[axis] -= found.divisor[axis]
        if patch[axis] < 1:
            return
        step = choose_topology(spacing, patch).divisor[axis]  # finds 224 between 256 and 192
        patch[axis] = found.patch[axis] - step
        found = choose_topology(spacing, patch)
