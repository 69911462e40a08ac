"""Labels that are not one certain mask: voxels to ignore, and masks of several raters of one case.

Prepared masks [R * K, ...] hold the K output channels of each of R raters, one rater after the other. A voxel is 0 or 1
in each, a share of the raters between, or `IGNORED`.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform

from scripts.data.consensus import staple_mask

IGNORED = 2  # of a voxel in prepared masks: it counts nowhere


def combine_raters(masks: torch.Tensor, method: str) -> torch.Tensor:
    """The masks of several raters as the target of training.

    Args:
        masks: [R, K, ...] of 0, 1 and `IGNORED`.
        method: `draw` or `all`: every mask, for a draw later on; `majority`: the share of those raters who do not
            ignore the voxel; `staple`: 0 or 1 for each channel by itself (`staple_mask`), and `IGNORED` where any rater
            ignores the voxel.

    Returns:
        [R * K, ...] for every mask, else [K, ...].
    """
    if method not in ("majority", "staple") or len(masks) == 1:
        return masks.flatten(0, 1)
    ignored = masks == IGNORED
    if method == "majority":
        counted = (~ignored).sum(0)
        shares = masks.masked_fill(ignored, 0).sum(0) / counted.clamp_min(1)
        return shares.masked_fill(counted == 0, IGNORED)
    drawn = (masks == 1).numpy(force=True)
    together = np.stack([staple_mask(drawn[:, channel]) for channel in range(drawn.shape[1])])
    fused = torch.from_numpy(together).to(masks.device, masks.dtype)
    return fused.masked_fill(ignored.any(0), IGNORED)


def split_raters(masks: torch.Tensor, channels: int, axis: int = 0) -> Sequence[torch.Tensor]:
    """The masks of each rater, of `channels` along the axis."""
    return masks.split(channels, axis) if masks.shape[axis] > channels else (masks,)


def draw_rater(masks: torch.Tensor, channels: int | None, seed: int) -> torch.Tensor:
    """The masks [K, ...] of one of the raters of [R * K, ...], each as likely; `channels` is K, None for one rater."""
    if channels is None or len(masks) == channels:
        return masks
    every = split_raters(masks, channels)
    return every[int(np.random.default_rng([seed, 2]).integers(len(every)))]


class RemoveIgnoredd(MapTransform):
    """Clear, in masks and probabilities, the voxels that any rater ignores, so that metrics do not count them.

    Of the keys [K, ...], the first channel is the background if they are classes; `label` has the masks [R * K, ...]
    with `IGNORED`.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Clear each key."""
        ignored = (data["label"] == IGNORED).any(0, keepdim=True)
        changed = dict(data)
        for key in self.key_iterator(changed):  # logits are on the host where a GPU cannot hold them
            changed[key] = changed[key].masked_fill(ignored.to(changed[key].device), 0)
        return changed
