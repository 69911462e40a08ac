"""A DynUNet that hands over its coarse heads as they are, in place of upsampling them to the patch."""

import torch
from monai.networks.nets import DynUNet
from torch import nn


class CoarseHeadsDynUNet(DynUNet):
    """MONAI's DynUNet, of which a training step under deep supervision costs less; the same state and arguments.

    Shapes: [B, C, ...] to [B, R, ...]; in training under deep supervision to a list of such logits, finest first, each
    coarser one smaller by the strides between them.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits of one head, or of all while training."""
        before = list(self.heads)
        logits = self.output_block(self.skip_layers(x))
        # the layers share this list; a head that stays in it would keep all that is remembered for the way back
        heads, self.heads[:] = list(self.heads), before
        return [logits, *heads] if self.training and self.deep_supervision else logits


def with_coarse_heads(network: nn.Module) -> nn.Module:
    """The same network, which hands over its heads as `CoarseHeadsDynUNet` does if it is MONAI's; for chaining."""
    if type(network) is DynUNet:
        network.__class__ = CoarseHeadsDynUNet  # which adds nothing to its state
    return network
