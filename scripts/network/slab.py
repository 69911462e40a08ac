"""2.5D segmentation: a 2D network that sees each slice with its neighbours as further channels."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from scripts.errors import InputError
from scripts.network.outputs import read_logits, read_output

SLICES_AT_ONCE = 32  # in evaluation, whose input may be a whole volume


class SlabNetwork(nn.Module):
    """Runs a 2D network over the last axis of a volume, each slice stacked with its neighbours.

    Args:
        network: maps [N, C * slab, H, W] to logits [N, K, H, W], in training also to coarser heads (`read_output`).
        slab: number of slices, odd; at the ends of the volume the last slice is repeated.

    Shapes: [B, C, H, W, D] to [B, K, H, W, D]; in training with several heads to `logits` and `heads`.
    """

    def __init__(self, network: nn.Module, slab: int = 3) -> None:
        super().__init__()
        if slab < 1 or slab % 2 == 0:
            raise InputError(f"slab is {slab}: expected an odd number of slices, the middle one being segmented.")
        self.network, self.slab = network, slab

    def forward(self, volume: torch.Tensor) -> torch.Tensor | dict[str, Any]:
        """Logits of all slices of the volume."""
        batch, depth, margin = len(volume), volume.shape[-1], self.slab // 2
        padded = functional.pad(volume, (margin, margin, 0, 0, 0, 0), mode="replicate")
        slabs = padded.unfold(-1, self.slab, 1)  # [B, C, H, W, D, slab]
        slices = slabs.permute(0, 4, 1, 5, 2, 3).flatten(2, 3).flatten(0, 1)  # [B * D, C * slab, H, W]
        if not self.training:
            chunks = [read_logits(self.network(chunk), axes=2) for chunk in slices.split(SLICES_AT_ONCE)]
            return torch.cat(chunks).unflatten(0, (batch, depth)).movedim(1, -1)
        heads = [
            head.unflatten(0, (batch, depth)).movedim(1, -1) for head in read_output(self.network(slices), axes=2).heads
        ]
        return {"logits": heads[0], "heads": heads[1:]} if len(heads) > 1 else heads[0]
