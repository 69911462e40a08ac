"""A DynUNet that returns the coarse heads of deep supervision at their own resolution."""

from typing import Any

import torch
from monai.networks.nets import DynUNet
from torch import nn


class CoarseHeadsDynUNet(DynUNet):
    """MONAI's DynUNet without the upsampling of coarse heads, which makes a training step cheaper.

    State and arguments are the same. Shapes: [B, C, ...] to [B, K, ...]; in training with deep supervision to `logits`
    of that shape and `heads`, coarser ones, finest first, each smaller by the strides between them.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor | dict[str, Any]:
        """Logits of one head, or of all heads in training."""
        before = list(self.heads)
        logits = self.output_block(self.skip_layers(x))
        # the layers share this list; a head left in it would keep the activations of its backward pass in memory
        heads, self.heads[:] = list(self.heads), before
        return {"logits": logits, "heads": heads} if self.training and self.deep_supervision else logits


def with_coarse_heads(network: nn.Module) -> nn.Module:
    """Turn MONAI's DynUNet into a `CoarseHeadsDynUNet`, in place; any other network is returned unchanged."""
    if type(network) is DynUNet:
        network.__class__ = CoarseHeadsDynUNet  # which adds nothing to its state
    return network
