"""Losses on the form of regions, in addition to one on their overlap: certainty, slices, holes and islands."""

import torch
from torch import nn
from torch.nn import functional

POOLS = {2: functional.max_pool2d, 3: functional.max_pool3d}  # by axes


class RareEntropyLoss(nn.Module):
    """Mean entropy in nats of the prediction at the voxels of a region, which a certain prediction has not.

    Shapes: logits and target [B, R, ...], the rarest region alone where the loss is a term with `regions`; returns a
    scalar, 0 without such voxels. It makes wrong predictions certain too: as a small addition to other losses.
    """

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean over the regions' voxels."""
        entropy = functional.binary_cross_entropy_with_logits(logits, logits.sigmoid(), reduction="none")
        return (entropy * target).sum() / target.sum().clamp_min(1)


class SliceConsistencyLoss(nn.Module):
    """Mean change of the probability between neighbouring slices where the label does not change.

    Shapes: logits and target [B, R, ...], slices along the last axis; returns a scalar.
    """

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean over pairs of voxels with the same label."""
        change = logits.sigmoid().diff(dim=-1).abs()
        same = (target.diff(dim=-1).abs() < 0.5).float()
        return (change * same).sum() / same.sum().clamp_min(1)


class TopologyLoss(nn.Module):
    """Small holes and islands of the prediction that the label does not have.

    A closing (maximum, then minimum, over a neighbourhood) fills holes and gaps smaller than it, an opening removes
    islands and bridges; what they change in the prediction is compared with what they change in the label.

    Args:
        size: of the neighbourhood in voxels, odd.

    Shapes: logits and target [B, R, ...]; returns a scalar, the mean absolute difference. The soft closing and opening
    by pooling are those of Shit et al. 2021 (clDice, https://arxiv.org/abs/2003.07311).
    """

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.size = size

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean over voxels."""
        predicted = logits.sigmoid()
        with torch.no_grad():
            filled, removed = self._changes(target)
        own_filled, own_removed = self._changes(predicted)
        return (own_filled - filled).abs().mean() + (own_removed - removed).abs().mean()

    def _changes(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        margin = self.size // 2
        values = functional.pad(values, [margin] * 2 * (values.dim() - 2))  # outside the patch is background
        filled = -self._maximum(-self._maximum(values)) - values
        removed = values - self._maximum(-self._maximum(-values))
        return filled, removed

    def _maximum(self, values: torch.Tensor) -> torch.Tensor:
        return POOLS[values.dim() - 2](values, self.size, stride=1, padding=self.size // 2)
