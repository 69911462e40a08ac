"""MONAI's random flips, rotations and scalings for a whole batch, and the margin that they need around a patch."""

import itertools
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from monai import transforms
from monai.transforms import Compose, Transform
from monai.transforms.utils import create_rotate, create_scale, map_spatial_axes
from monai.utils import ensure_tuple
from torch.nn import functional

from scripts.data.batch_transform import BatchTransform, matrix_for_torch

ANGLES = 9  # of each axis, among which the one that reaches farthest is sought


class RandFlipd(BatchTransform, transforms.RandFlipd):
    """MONAI's flip."""

    def _numbers(self, image: torch.Tensor) -> Sequence[float]:
        return ()

    def _change(self, images: torch.Tensor, *_: Any) -> torch.Tensor:
        return images.flip([axis + 1 for axis in map_spatial_axes(images.dim() - 1, self.flipper.spatial_axis)])


class RandAffined(BatchTransform, transforms.RandAffined):
    """MONAI's rotation and scaling about the centre of a patch, in single precision, one grid for all keys.

    It ignores arguments for shearing, translation and output size.

    Args:
        one_scale: the same factor for all axes, drawn from the first range.
        others: arguments of MONAI's.
    """

    def __init__(self, *args: Any, one_scale: bool = False, **others: Any) -> None:
        super().__init__(*args, **others)
        self.one_scale = one_scale
        self.output_size: Sequence[int] | None = None  # of the middle that is sampled; None: the whole patch

    def _numbers(self, image: torch.Tensor) -> Sequence[float]:
        drawn = self.rand_affine.rand_affine_grid
        drawn.randomize()
        axes = image.dim() - 1
        factors = drawn.scale_params or [1.0]
        scale = create_scale(axes, factors[:1] * axes if self.one_scale else factors)
        matrix = np.asarray(create_rotate(axes, drawn.rotate_params or 0.0) @ scale)
        return matrix_for_torch(matrix, image.shape[1:], self.output_size)

    def apply(
        self, patches: dict[Hashable, torch.Tensor], numbers: torch.Tensor, drawn: Sequence[Sequence[float]]
    ) -> dict[Hashable, torch.Tensor]:
        """Sample every key at the same places, each in its own mode."""
        shape = patches[self.first_key(patches)].shape
        axes = len(shape) - 2
        size = [*shape[:2], *(self.output_size or shape[2:])]
        grid = functional.affine_grid(numbers.view(-1, axes, axes + 1), size, align_corners=False)
        return {
            key: functional.grid_sample(patches[key], grid, mode, padding, align_corners=False)
            for key, mode, padding in self.key_iterator(patches, self.mode, self.padding_mode)
        }


def rotation_margin(augmentation: Transform, patch_size: Sequence[int]) -> list[int]:
    """The voxels to add on each side of a patch, by axis, so that `RandAffined` samples none beyond them.

    With several of them the margin is that of the largest rotations and scalings one after the other.
    """
    plain = augmentation if isinstance(augmentation, Compose) else Compose([augmentation])
    half = reach = np.array(patch_size) / 2
    for transform in reversed(plain.flatten().transforms):
        if isinstance(transform, transforms.RandAffined) and transform.prob > 0:
            drawn = transform.rand_affine.rand_affine_grid
            angles = [np.linspace(*_ends(limit or 0.0), ANGLES) for limit in ensure_tuple(drawn.rotate_range or ())]
            factors = [1 + _ends(limit or 0.0)[1] for limit in ensure_tuple(drawn.scale_range or ())]
            axes = len(patch_size)
            factors = factors[:1] * axes if getattr(transform, "one_scale", False) else factors
            turned = [np.abs(create_rotate(axes, turn)[:axes, :axes]) for turn in itertools.product(*angles)]
            reach = np.max(turned @ (reach * [*factors, *[1] * axes][:axes]), axis=0)
    return [int(np.ceil(more)) for more in reach - half]


def _ends(limit: float | Sequence[float]) -> tuple[float, float]:
    """The smallest and largest value that MONAI draws from one of its ranges."""
    return (limit[0], limit[1]) if isinstance(limit, Sequence) else (-abs(limit), abs(limit))
