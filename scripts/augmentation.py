"""Where does random augmentation happen? On the training device, after the crop, one seed a patch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.data import set_track_meta
from monai.transforms import Compose, Transform


class AugmentedBatch:
    """A `prepare_batch` for MONAI's trainer: moves a batch to the device and augments each patch there.

    Args:
        augmentation: random dictionary transforms of `image` and `label`.

    Each patch brings its own seed, so what it becomes depends neither on the loader processes nor on the other patches.
    """

    def __init__(self, augmentation: Transform) -> None:
        self.augmentation = augmentation if isinstance(augmentation, Compose) else Compose([augmentation])

    def __call__(
        self, batch: Mapping[str, Any], device: torch.device | str, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image [B, C, ...] and label [B, R, ...], both float32 on `device`."""
        images = batch["image"].to(device, torch.float32, non_blocking=non_blocking)
        labels = batch["label"].to(device, torch.float32, non_blocking=non_blocking)
        set_track_meta(False)
        try:
            patches = []
            for image, label, seed in zip(images, labels, batch["seed"].tolist(), strict=True):
                self.augmentation.set_random_state(seed=seed + 1)  # the crop was drawn from `seed` itself
                patches.append(self.augmentation({"image": image, "label": label}))
        finally:
            set_track_meta(True)
        return torch.stack([p["image"] for p in patches]), torch.stack([p["label"] for p in patches])
