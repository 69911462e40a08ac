"""A random dictionary transform that changes a whole batch at a time, with the random numbers of one patch each."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai import transforms


class BatchTransform(transforms.RandomizableTransform, transforms.MapTransform):
    """A random dictionary transform that draws for one patch and computes several patches of one shape together.

    A subclass is one of MONAI's transforms as well, or has none there, and has `_numbers` and `_change` in place of its
    `__call__`.
    """

    def draw(self, image: torch.Tensor) -> Sequence[float] | None:
        """Draw the numbers that define the change of one patch, always the same count; None: no change.

        Args:
            image: the patch [C, ...]; only its shape is used.
        """
        self.randomize(None)
        return self._numbers(image) if self._do_transform else None

    def apply(
        self, patches: dict[Hashable, torch.Tensor], numbers: torch.Tensor, drawn: Sequence[Sequence[float]]
    ) -> dict[Hashable, torch.Tensor]:
        """The patches [N, C, ...] of each key after the transform.

        Args:
            patches: key to patches [N, C, ...].
            numbers: drawn for each patch, [N, K], float32 on the device of the patches.
            drawn: the same on the host, unrounded.
        """
        return {key: self._change(images, numbers, drawn) for key, images in patches.items()}

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Transform one patch [C, ...] of each key; `lazy` is MONAI's argument and has no effect."""
        first = data[self.first_key(dict(data))]
        drawn = self.draw(first)
        if drawn is None:
            return dict(data)
        patches = {key: data[key][None] for key in self.key_iterator(data)}
        changed = self.apply(patches, torch.tensor([drawn]).to(first), [drawn])
        return {**data, **{key: images[0] for key, images in changed.items()}}

    def _numbers(self, image: torch.Tensor) -> Sequence[float]:
        raise NotImplementedError

    def _change(self, images: torch.Tensor, numbers: torch.Tensor, drawn: Sequence[Sequence[float]]) -> torch.Tensor:
        raise NotImplementedError


def matrix_for_torch(matrix: np.ndarray, size: Sequence[int], output_size: Sequence[int] | None = None) -> list[float]:
    """The numbers of `theta` of torch's `affine_grid` for a matrix about the centre of an image, in voxels.

    torch counts axes from the last one, from -1 to 1 whatever their length. `output_size` is that of the result.
    """
    axes, voxels = len(size), np.array(size)
    theta = matrix[:axes] * np.append(output_size or size, 2) / voxels[:, None]
    return theta[::-1, [*reversed(range(axes)), axes]].ravel().tolist()
