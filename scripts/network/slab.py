"""2.5D segmentation: a 2D network that sees each slice with its neighbours as further channels."""

import torch
from torch import nn
from torch.nn import functional

from scripts.errors import InputError

SLICES_AT_ONCE = 32  # in evaluation, whose input may be a whole volume


class SlabNetwork(nn.Module):
    """Runs a 2D network over the last axis of a volume, each slice stacked with its neighbours.

    Args:
        network: maps [N, C * slab, H, W] to [N, R, H, W] (in training with deep supervision to [N, heads, R, H, W]).
        slab: number of slices, odd; at the ends of the volume the last slice is repeated.

    Shapes: [B, C, H, W, D] to [B, R, H, W, D].
    """

    def __init__(self, network: nn.Module, slab: int = 3) -> None:
        super().__init__()
        if slab < 1 or slab % 2 == 0:
            raise InputError(f"slab is {slab}: expected an odd number of slices, the middle one being segmented.")
        self.network, self.slab = network, slab

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Logits of all slices of the volume."""
        batch, depth, margin = len(volume), volume.shape[-1], self.slab // 2
        padded = functional.pad(volume, (margin, margin, 0, 0, 0, 0), mode="replicate")
        slabs = padded.unfold(-1, self.slab, 1)  # [B, C, H, W, D, slab]
        slices = slabs.permute(0, 4, 1, 5, 2, 3).flatten(2, 3).flatten(0, 1)  # [B * D, C * slab, H, W]
        chunks = [slices] if self.training else slices.split(SLICES_AT_ONCE)
        logits = torch.cat([self.network(chunk) for chunk in chunks])
        return logits.unflatten(0, (batch, depth)).movedim(1, -1)
