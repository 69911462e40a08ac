"""Where does random augmentation happen? On the training device, after the crop, one seed a patch.

Three of MONAI's transforms leave the device, or compute in double precision; here they do neither. What they draw has
the same distribution (tests/scripts/test_augmentation.py compares them).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai import transforms
from monai.data import set_track_meta
from monai.transforms import Compose, Randomizable, Transform
from monai.transforms.utils import create_rotate, create_scale
from torch.nn import functional


class AugmentedBatch:
    """A `prepare_batch` for MONAI's trainer: moves a batch to the device and augments each patch there.

    Args:
        augmentation: random dictionary transforms of `image` and `label`.

    Each patch brings its own seed, so what it becomes depends neither on the loader processes nor on the other patches.
    All transforms draw from one random state. MONAI would seed a transform and its inner parts alike, so that whether a
    patch is changed, and how, were one number; and making states takes longer than augmenting a small patch.
    """

    def __init__(self, augmentation: Transform) -> None:
        self.augmentation = augmentation if isinstance(augmentation, Compose) else Compose([augmentation])
        self.state = np.random.RandomState()
        for transform in self.augmentation.flatten().transforms:
            if isinstance(transform, Randomizable):
                transform.set_random_state(state=self.state)

    def __call__(
        self, batch: Mapping[str, Any], device: torch.device | str, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image [B, C, ...] and label [B, R, ...], both float32 on `device`."""
        # in the dtype of the loader's pinned memory: a conversion on the way would be done by the CPU, which waits
        images, labels = (batch[key].to(device, non_blocking=True).float() for key in ("image", "label"))
        set_track_meta(False)
        try:
            patches = []
            for image, label, seed in zip(images, labels, batch["seed"].tolist(), strict=True):
                self.state.seed(seed ^ 1)  # the crop was drawn from `seed` itself
                patches.append(self.augmentation({"image": image, "label": label}))
        finally:
            set_track_meta(True)
        return torch.stack([p["image"] for p in patches]), torch.stack([p["label"] for p in patches])


class RandAffined(transforms.RandAffined):
    """MONAI's rotation and scaling about the centre of a patch, in single precision, one grid for all keys.

    Shearing, translation and another output size are MONAI's own.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None) -> dict[Hashable, torch.Tensor]:
        """Tensors [C, ...] of one shape and device; `lazy` is MONAI's, and nothing waits here."""
        moved = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return moved
        drawn = self.rand_affine.rand_affine_grid
        drawn.randomize()
        first = moved[self.first_key(moved)]
        axes = first.dim() - 1
        matrix = create_rotate(axes, drawn.rotate_params) @ create_scale(axes, drawn.scale_params)
        # torch counts axes from the last one, from -1 to 1 whatever their length
        voxels = np.array(first.shape[1:])
        theta = (matrix[:axes] * np.append(voxels, 1) / voxels[:, None])[::-1, [*reversed(range(axes)), axes]]
        theta = torch.from_numpy(theta.copy()).to(first)
        grid = functional.affine_grid(theta[None], [1, *first.shape], align_corners=False)
        for key, mode, padding in self.key_iterator(moved, self.mode, self.padding_mode):
            sampled = functional.grid_sample(moved[key][None], grid, mode, padding, align_corners=False)
            moved[key] = sampled[0]
        return moved


class RandGaussianNoised(transforms.RandGaussianNoised):
    """MONAI's noise, drawn where the image is."""

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Images [C, ...] of one shape and device."""
        noisy = dict(data)
        self.randomize(None)
        if self._do_transform:
            image = noisy[self.first_key(noisy)]
            generator = torch.Generator(image.device).manual_seed(int(self.R.randint(2**31)))
            std = self.R.uniform(0, self.rand_gaussian_noise.std)
            noise = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype) * std
            for key in self.key_iterator(noisy):
                noisy[key] = noisy[key] + noise
        return noisy


class RandBiasFieldd(transforms.RandBiasFieldd):
    """MONAI's bias field, a polynomial over the patch, computed where the image is and once for all channels."""

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Images [C, ...] of one shape and device."""
        biased = dict(data)
        self.randomize(None)
        if self._do_transform:
            image = biased[self.first_key(biased)]
            self.rand_bias_field.randomize(img_size=image.shape[1:])
            field = self._field(image).exp()
            for key in self.key_iterator(biased):
                biased[key] = biased[key] * field
        return biased

    def _field(self, image: torch.Tensor) -> torch.Tensor:
        """The logarithm [...] of the field: products of one Legendre polynomial an axis, weighted and added."""
        shape, count = image.shape[1:], self.rand_bias_field.degree + 1
        orders = [
            order
            for order in np.ndindex(*[count] * len(shape))
            if (sum(order) < count if len(shape) > 2 else order[1] <= order[0])  # as MONAI takes them
        ]
        weights = np.zeros([count] * len(shape))
        weights[tuple(np.transpose(orders))] = self.rand_bias_field._coeff
        field = torch.from_numpy(weights).to(image)
        for length in shape:  # each turns the first axis, of orders, into the last one, of voxels
            basis = np.polynomial.legendre.legvander(np.linspace(-1, 1, length), count - 1)
            field = torch.tensordot(field, torch.from_numpy(basis).to(image), ([0], [1]))
        return field
