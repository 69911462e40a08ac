"""Random augmentation on the training device, after the crop: a whole batch at a time, one seed per patch.

The transforms have MONAI's names, arguments and distributions (a test compares them). Each draws the random numbers of
one patch on the host and computes several patches together on their device; all numbers of a batch are copied there at
once, without waiting. A chain that contains any other transform is applied patch by patch.
"""

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from monai import transforms
from monai.data import set_track_meta
from monai.networks.layers.convutils import gaussian_1d
from monai.transforms import Compose, Randomizable, Transform
from monai.transforms.utils import create_rotate, create_scale, map_spatial_axes
from monai.utils import ensure_tuple
from torch.nn import functional
from torch.utils.data import DataLoader

ANGLES = 9  # of each axis, among which the one that reaches farthest is sought


class AugmentedBatch:
    """A `prepare_batch` for MONAI's trainer: moves a batch to the device and augments it there.

    Args:
        augmentation: random dictionary transforms of `image` and `label`. One that changes the label too moves voxels,
            and moves all channels; one of the image alone changes intensities, and leaves out the channels of the place
            of a patch (`window_channels` of the batch), which follow those of the scan.
        patch_size: for patches with a margin (`rotation_margin`): what is left of them after the last `RandAffined`.

    Each patch has its own seed, so its augmentation depends neither on the loader processes nor on the other patches.
    All transforms draw from one random state. MONAI would give a transform and its inner parts the same seed, so that
    one number decided both whether and how a patch is changed; and creating states takes longer than augmenting a
    small patch.
    """

    def __init__(self, augmentation: Transform, patch_size: Sequence[int] | None = None) -> None:
        self.augmentation = augmentation if isinstance(augmentation, Compose) else Compose([augmentation])
        self.transforms = self.augmentation.flatten().transforms
        self.at_once = type(self.augmentation) is Compose and all(
            isinstance(t, BatchTransform) for t in self.transforms
        )
        self.patch_size = patch_size
        affine = [number for number, t in enumerate(self.transforms) if isinstance(t, transforms.RandAffined)]
        self.last_affine = max(affine, default=-1)
        if affine and isinstance(last := self.transforms[self.last_affine], RandAffined):
            last.output_size = patch_size
        self.state = np.random.RandomState()
        for transform in self.transforms:
            if isinstance(transform, Randomizable):
                transform.set_random_state(state=self.state)

    def __call__(
        self, batch: Mapping[str, Any], device: torch.device | str, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image [B, C, ...] and label [B, R, ...], both float32 on `device`."""
        if isinstance(batch, PreparedBatch):
            return batch["image"], batch["label"]
        # copied in the dtype of the loader's pinned memory: the CPU would do a conversion, and wait
        patches: dict[Hashable, list[torch.Tensor]] = {
            key: list(batch[key].to(device, non_blocking=True).float()) for key in ("image", "label")
        }
        scan = None
        if "window_channels" in batch:
            scan, further = len(patches["image"][0]), batch["window_channels"].to(device, non_blocking=True).float()
            patches["image"] = [torch.cat(pair) for pair in zip(patches["image"], further, strict=True)]
        augment = self._at_once if self.at_once else self._one_by_one
        set_track_meta(False)
        try:
            augment(patches, batch["seed"].tolist(), scan)
        finally:
            set_track_meta(True)
        return torch.stack(patches["image"]), torch.stack(patches["label"])

    def _seed(self, seed: int) -> None:
        self.state.seed(seed ^ 1)  # the crop was drawn from `seed` itself

    def _one_by_one(self, patches: dict[Hashable, list[torch.Tensor]], seeds: Sequence[int], scan: int | None) -> None:
        whole = type(self.augmentation) is not Compose or (scan is None and self.patch_size is None)
        for row, seed in enumerate(seeds):
            self._seed(seed)
            patch = {key: images[row] for key, images in patches.items()}
            for number, transform in enumerate([self.augmentation] if whole else self.transforms):
                before = patch["image"]
                patch = transform({**patch, "image": before[_channels_of(transform, scan)]})
                patch["image"] = _put_back(patch["image"], before)
                if whole or number == self.last_affine:
                    patch = {key: self._middle(image) for key, image in patch.items()}
            for key, images in patches.items():
                images[row] = patch[key]

    def _at_once(self, patches: dict[Hashable, list[torch.Tensor]], seeds: Sequence[int], scan: int | None) -> None:
        steps: list[tuple[BatchTransform, dict[int, Sequence[float]]]] = [(t, {}) for t in self.transforms]
        for row, seed in enumerate(seeds):
            self._seed(seed)
            for number, (transform, drawn) in enumerate(steps):
                first = patches[transform.first_key(patches)][row][_channels_of(transform, scan)]
                first = self._middle(first) if number > self.last_affine else first
                if (numbers := transform.draw(first)) is not None:
                    drawn[row] = numbers
        every = torch.tensor([x for _, drawn in steps for row in drawn.values() for x in row], dtype=torch.float32)
        device = patches["image"][0].device
        every = (every.pin_memory() if device.type == "cuda" else every).to(device, non_blocking=True)
        for number, (transform, drawn) in enumerate(steps):
            if drawn:
                size = len(next(iter(drawn.values())))
                own, every = every.tensor_split([len(drawn) * size])
                part = _channels_of(transform, scan)
                chosen = {
                    key: torch.stack([patches[key][row][part] for row in drawn])
                    for key in transform.key_iterator(patches)
                }
                changed = transform.apply(chosen, own.view(len(drawn), size), list(drawn.values()))
                for key, images in changed.items():
                    for row, image in zip(drawn, images, strict=True):
                        patches[key][row] = _put_back(image, patches[key][row])
            if number == self.last_affine:
                for key, every_row in patches.items():
                    patches[key] = [self._middle(image) for image in every_row]

    def _middle(self, image: torch.Tensor) -> torch.Tensor:
        """A patch [C, ...] without its margin."""
        if self.patch_size is None:
            return image
        margins = [(have - want) // 2 for have, want in zip(image.shape[1:], self.patch_size, strict=True)]
        sides = zip(margins, self.patch_size, strict=True)
        inside = (slice(None), *(slice(margin, margin + want) for margin, want in sides))
        return image[inside]


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


def _channels_of(transform: Any, scan: int | None) -> slice:
    """The channels that a transform changes: the first `scan` ones, or all if it changes the label too."""
    if scan is None or any("label" in part.keys for part in _parts(transform)):
        return slice(None)
    return slice(scan)


def _parts(transform: Any) -> Iterator[Any]:
    """The transform, or those that it chooses among (`OneOf`)."""
    inner = getattr(transform, "transforms", None)
    yield from (part for each in inner for part in _parts(each)) if inner else (transform,)


def _put_back(changed: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """The changed channels, followed by those that the transform has left out."""
    return changed if len(changed) == len(before) else torch.cat([changed, before[len(changed) :]])


class PreparedBatch(dict):
    """A batch whose image and label are ready for the network."""


class PrefetchedBatches:
    """A loader for MONAI's trainer that, on a GPU, prepares each batch while the network processes the previous one.

    Args:
        loader: yields the batches.
        prepare: copies and augments a batch.
        device: of the network; on a CPU the batches are passed on unchanged.

    A pass draws no batch beyond the loader's last, so that the next epoch is drawn from its own seed.
    """

    def __init__(self, loader: DataLoader, prepare: AugmentedBatch, device: torch.device | str) -> None:
        self.loader, self.prepare, self.device = loader, prepare, torch.device(device)
        self.ahead = self.device.type == "cuda"

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        if not self.ahead:
            yield from self.loader
            return
        prepared = map(self._prepare, self.loader)
        following = next(prepared, None)
        while following is not None:
            (batch, ready), following = following, next(prepared, None)
            if ready is not None:
                own = torch.cuda.current_stream(self.device)
                own.wait_event(ready)
                for key in ("image", "label"):
                    batch[key].record_stream(own)  # or its memory would be reused while the network reads it
            yield batch

    def _prepare(self, batch: Mapping[str, Any]) -> tuple[PreparedBatch, torch.cuda.Event | None]:
        """The batch and the event after which it is ready."""
        with torch.cuda.stream(self._stream):
            image, label = self.prepare(batch, self.device)
        ready = None if self._stream is None else self._stream.record_event()
        return PreparedBatch(batch, image=image, label=label), ready

    @cached_property
    def _stream(self) -> torch.cuda.Stream | None:
        """One for all epochs: each stream has its own memory."""
        return torch.cuda.Stream(self.device) if self.device.type == "cuda" else None


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


def matrix_for_torch(matrix: np.ndarray, size: Sequence[int], output_size: Sequence[int] | None = None) -> list[float]:
    """The numbers of `theta` of torch's `affine_grid` for a matrix about the centre of an image, in voxels.

    torch counts axes from the last one, from -1 to 1 whatever their length. `output_size` is that of the result.
    """
    axes, voxels = len(size), np.array(size)
    theta = matrix[:axes] * np.append(output_size or size, 2) / voxels[:, None]
    return theta[::-1, [*reversed(range(axes)), axes]].ravel().tolist()


def _broadcast(numbers: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Numbers [N, 1] or [N, C] in the shape that scales images [N, C, ...]."""
    return numbers.reshape(*numbers.shape, *[1] * (images.dim() - 2))


@lru_cache(maxsize=16)
def _legendre(length: int, count: int, device: torch.device) -> torch.Tensor:
    """The first `count` Legendre polynomials at the voxels of an axis, [length, count]."""
    basis = np.polynomial.legendre.legvander(np.linspace(-1, 1, length), count - 1)
    return torch.from_numpy(basis).to(device, torch.float32)
