"""MONAI's random changes of intensities for a whole batch."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from monai import transforms
from monai.networks.layers.convutils import gaussian_1d
from torch.nn import functional

from scripts.data.batch_transform import BatchTransform


class RandBiasFieldd(BatchTransform, transforms.RandBiasFieldd):
    """MONAI's bias field, a polynomial over the patch, computed where the image is and once for all channels."""

    def _numbers(self, image: torch.Tensor) -> Sequence[float]:
        axes, count = image.dim() - 1, self.rand_bias_field.degree + 1
        self.rand_bias_field.randomize(img_size=image.shape[1:])
        orders = [
            order
            for order in np.ndindex(*[count] * axes)
            if (sum(order) < count if axes > 2 else order[1] <= order[0])  # MONAI's choice
        ]
        weights = np.zeros([count] * axes)
        weights[tuple(np.transpose(orders))] = self.rand_bias_field._coeff
        return weights.ravel().tolist()

    def _change(self, images: torch.Tensor, numbers: torch.Tensor, *_: Any) -> torch.Tensor:
        """The log of the field is a weighted sum of products of Legendre polynomials, one per axis."""
        shape, count = images.shape[2:], self.rand_bias_field.degree + 1
        field = numbers.view(-1, *[count] * len(shape))
        for length in shape:  # each step turns the first axis (orders) into a last axis (voxels)
            field = torch.tensordot(field, _legendre(length, count, images.device), ([1], [1]))
        return images * field.exp()[:, None]


class RandGaussianNoised(BatchTransform, transforms.RandGaussianNoised):
    """MONAI's noise, drawn where the image is."""

    def _numbers(self, image: torch.Tensor) -> Sequence[float]:
        return int(self.R.randint(2**31)), self.R.uniform(0, self.rand_gaussian_noise.std)

    def _change(self, images: torch.Tensor, numbers: torch.Tensor, drawn: Sequence[Sequence[float]]) -> torch.Tensor:
        noise = torch.empty_like(images)
        for patch, (seed, _) in zip(noise, drawn, strict=True):
            patch.normal_(generator=torch.Generator(images.device).manual_seed(int(seed)))
        return images + noise * _broadcast(numbers[:, 1:], images)


class RandGaussianSmoothd(BatchTransform, transforms.RandGaussianSmoothd):
    """MONAI's Gaussian filter."""

    def _numbers(self, image: torch.Tensor) -> Sequence[float]:
        smooth = self.rand_smooth
        smooth.randomize(None)
        longest = len(gaussian_1d(torch.tensor(max(*smooth.sigma_x, *smooth.sigma_y, *smooth.sigma_z))))
        kernels = [gaussian_1d(torch.tensor(s), approx=smooth.approx) for s in (smooth.x, smooth.y, smooth.z)]
        padded = [functional.pad(kernel, [(longest - len(kernel)) // 2] * 2) for kernel in kernels]
        return torch.cat(padded[: image.dim() - 1]).tolist()

    def _change(self, images: torch.Tensor, numbers: torch.Tensor, *_: Any) -> torch.Tensor:
        axes = images.dim() - 2
        kernels = numbers.view(len(images), axes, -1)
        taps = kernels.shape[-1]
        for axis in (axis for axis in range(axes) if images.shape[axis + 2] > 1):  # a slice has nothing beside it
            padded = functional.pad(images, [0, 0] * (axes - 1 - axis) + [taps // 2] * 2)
            length, images = images.shape[axis + 2], torch.zeros_like(images)
            for tap in range(taps):  # a sum of shifted images takes a third of the time of a convolution on a CPU
                weight = _broadcast(kernels[:, axis, tap, None], images)
                images.addcmul_(padded.narrow(axis + 2, tap, length), weight)
        return images


class RandScaleIntensityd(BatchTransform, transforms.RandScaleIntensityd):
    """MONAI's brightness: intensities times a factor, one per patch or per channel."""

    def _numbers(self, image: torch.Tensor) -> Sequence[float]:
        self.scaler.randomize(image)
        return (1 + np.atleast_1d(self.scaler.factor)).tolist()

    def _change(self, images: torch.Tensor, numbers: torch.Tensor, *_: Any) -> torch.Tensor:
        return images * _broadcast(numbers, images)


class RandScaleIntensityFixedMeand(BatchTransform, transforms.RandScaleIntensityFixedMeand):
    """MONAI's contrast: distances from the mean times a factor, one per patch or per channel."""

    _numbers = RandScaleIntensityd._numbers

    def _change(self, images: torch.Tensor, numbers: torch.Tensor, *_: Any) -> torch.Tensor:
        axes = list(range(2 if self.scaler.channel_wise else 1, images.dim()))
        mean = images.mean(axes, keepdim=True) if self.fixed_mean else 0
        scaled = (images - mean) * _broadcast(numbers, images) + mean
        return scaled.clamp(images.amin(axes, True), images.amax(axes, True)) if self.preserve_range else scaled


class RandSimulateLowResolutiond(BatchTransform, transforms.RandSimulateLowResolutiond):
    """MONAI's thick slices: fewer voxels and back again, by one factor for all keys."""

    def _numbers(self, image: torch.Tensor) -> Sequence[float]:
        self.sim_lowres_tfm.randomize()
        return (self.sim_lowres_tfm.zoom_factor,)

    def _change(self, images: torch.Tensor, numbers: torch.Tensor, drawn: Sequence[Sequence[float]]) -> torch.Tensor:
        coarse = []
        for image, (factor,) in zip(images, drawn, strict=True):  # each has its own intermediate size
            self.sim_lowres_tfm.zoom_factor = factor
            coarse.append(self.sim_lowres_tfm(image, randomize=False))
        return torch.stack(coarse)


class RandAdjustContrastd(BatchTransform, transforms.RandAdjustContrastd):
    """MONAI's gamma, with the range of each patch left on its device."""

    def _numbers(self, image: torch.Tensor) -> Sequence[float]:
        self.adjuster.randomize(None)
        return (self.adjuster.gamma_value,)

    def _change(self, images: torch.Tensor, numbers: torch.Tensor, *_: Any) -> torch.Tensor:
        axes = list(range(1, images.dim()))
        images = -images if self.invert_image else images
        low, high = images.amin(axes, True), images.amax(axes, True)
        changed = ((images - low) / (high - low + 1e-7)) ** _broadcast(numbers, images) * (high - low) + low
        if self.adjuster.retain_stats:
            std, mean = torch.std_mean(images, axes, keepdim=True)
            changed = changed - changed.mean(axes, keepdim=True)
            changed = changed / (changed.std(axes, keepdim=True) + 1e-8) * std + mean
        return -changed if self.invert_image else changed


def _broadcast(numbers: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Numbers [N, 1] or [N, C] in the shape that scales images [N, C, ...]."""
    return numbers.reshape(*numbers.shape, *[1] * (images.dim() - 2))


@lru_cache(maxsize=16)
def _legendre(length: int, count: int, device: torch.device) -> torch.Tensor:
    """The first `count` Legendre polynomials at the voxels of an axis, [length, count]."""
    basis = np.polynomial.legendre.legvander(np.linspace(-1, 1, length), count - 1)
    return torch.from_numpy(basis).to(device, torch.float32)
