"""Random augmentation on the training device, after the crop: a whole batch at a time, one seed per patch.

The transforms have MONAI's names, arguments and distributions (a test compares them). Each draws the random numbers of
one patch on the host and computes several patches together on their device; all numbers of a batch are copied there at
once, without waiting. A chain that contains any other transform is applied patch by patch.

Configs name the transforms as parts of this module.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from monai import transforms
from monai.data import set_track_meta
from monai.transforms import Compose, Randomizable, Transform
from torch.utils.data import DataLoader

from scripts.data.batch_transform import BatchTransform
from scripts.data.intensity_transforms import (
    RandAdjustContrastd,
    RandBiasFieldd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandSimulateLowResolutiond,
)
from scripts.data.spatial_transforms import RandAffined, RandFlipd, rotation_margin

__all__ = [
    "AugmentedBatch",
    "PrefetchedBatches",
    "PreparedBatch",
    "RandAdjustContrastd",
    "RandAffined",
    "RandBiasFieldd",
    "RandFlipd",
    "RandGaussianNoised",
    "RandGaussianSmoothd",
    "RandScaleIntensityFixedMeand",
    "RandScaleIntensityd",
    "RandSimulateLowResolutiond",
    "rotation_margin",
]


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
