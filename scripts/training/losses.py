"""What is the network punished for? Losses over overlapping regions, one sigmoid channel each."""

from collections.abc import Callable, Mapping, Sequence

import torch
from monai.losses import TverskyLoss
from torch import nn
from torch.nn import functional

from scripts.distributed import summed


class RegionDiceCELoss(nn.Module):
    """Dice over the batch plus cross-entropy, for regions that may overlap.

    MONAI's `DiceCELoss(sigmoid=True)` takes the softmax cross-entropy as soon as there are two channels, which makes
    nested regions compete; here each region has its own binary cross-entropy.

    Args:
        lambda_dice: weight of the Dice part.
        lambda_ce: weight of the cross-entropy part.
        region_weights: region name to weight, applied to both parts; None: all alike.
        batch: Dice over the whole batch, in all processes: a patch without tumour then does not count as a total miss.
        pos_weight: how much a voxel inside a region counts in the cross-entropy against one outside.

    Shapes: logits and target [B, R, ...]; returns a scalar. Source: nnU-Net (Isensee et al. 2021) trains on it.
    """

    def __init__(
        self,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        region_weights: Mapping[str, float] | None = None,
        batch: bool = True,
        pos_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.lambda_dice, self.lambda_ce = lambda_dice, lambda_ce
        self.register_buffer("pos_weight", torch.tensor(float(pos_weight)), persistent=False)
        self.batch = batch
        self.register_buffer("weights", _normalised(region_weights), persistent=False)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The weighted mean over regions."""
        regions = logits.shape[1]
        dice = self._dice(logits.sigmoid(), target).reshape(-1, regions).mean(0)
        entropy = functional.binary_cross_entropy_with_logits(
            logits, target, reduction="none", pos_weight=self.pos_weight
        )
        entropy = entropy.transpose(0, 1).flatten(1).mean(1)
        return _weighted_mean(self.lambda_dice * dice + self.lambda_ce * entropy, self.weights)

    def _dice(self, probability: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """[R], or [B, R] by patch, as MONAI's `DiceLoss`, which knows of one process alone."""
        axes = [axis for axis in range(target.dim()) if axis != 1 and (axis or self.batch)]
        both, size = (probability * target).sum(axes), probability.sum(axes) + target.sum(axes)
        if self.batch:
            both, size = summed(torch.stack([both, size]))
        return 1 - (2 * both + 1e-5) / (size + 1e-5)


class FocalTverskyLoss(nn.Module):
    """(1 - Tversky index) to a power, for every region.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives; beta > alpha trades precision for recall, which small regions need.
        gamma: the power; below 1 it keeps the gradient of regions that are already good, above 1 it turns to bad ones.
        region_weights: region name to weight; None: all alike.

    Shapes: logits and target [B, R, ...]; returns a scalar. MONAI's `AsymmetricFocalTverskyLoss` ignores every channel
    beyond the second, so the power is taken of `TverskyLoss` per channel. Source: Abraham and Khan 2019, where the
    power is 1 / gamma with gamma = 4/3.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 0.75,
        region_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.tversky = TverskyLoss(
            sigmoid=True, alpha=alpha, beta=beta, batch=True, reduction="none", smooth_nr=1e-5, smooth_dr=1e-5
        )
        self.register_buffer("weights", _normalised(region_weights), persistent=False)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The weighted mean over regions."""
        tversky = self.tversky(logits, target).reshape(-1)
        # the slope of x ** 0.75 is infinite at 0
        return _weighted_mean(tversky.clamp_min(1e-6) ** self.gamma, self.weights)


class DeepSupervisionLoss(nn.Module):
    """The same loss on every head of the network, the coarse ones counting less and, if wished, ever less.

    Args:
        loss: the loss of one head.
        decay: each coarser head counts `decay` times the one above it; the weights sum to 1.
        progress: a callable that tells how far training has come, 0 to 1, or None.
        anneal: multiply the decay by 1 - progress, so that training ends on the finest head alone.

    Shapes: training output of DynUNet [B, heads, R, ...] (coarse heads already upsampled) or one head [B, R, ...];
    target [B, R, ...]; returns a scalar. Computed in float32, also under autocast.
    """

    def __init__(
        self, loss: nn.Module, decay: float = 0.5, progress: Callable[[], float] | None = None, anneal: bool = False
    ) -> None:
        super().__init__()
        self.loss, self.decay = loss, decay
        self.progress = progress if anneal and progress is not None else lambda: 0.0

    def head_weights(self, heads: int) -> Sequence[float]:
        """The weight of each head, finest first; they sum to 1."""
        decay = self.decay * (1.0 - self.progress())
        weights = [decay**level for level in range(heads)]
        return [weight / sum(weights) for weight in weights]

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The weighted sum over heads."""
        heads = logits.unbind(1) if logits.dim() == target.dim() + 1 else [logits]
        weights = self.head_weights(len(heads))
        with torch.autocast(logits.device.type, enabled=False):
            parts = [
                weight * self.loss(head.float(), target.float())
                for weight, head in zip(weights, heads, strict=True)
                if weight > 0  # an annealed head costs nothing
            ]
        return torch.stack(parts).sum()


def _normalised(region_weights: Mapping[str, float] | None) -> torch.Tensor | None:
    if region_weights is None:
        return None
    weights = torch.tensor(list(region_weights.values()), dtype=torch.float32)
    return weights / weights.sum()


def _weighted_mean(per_region: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    return per_region.mean() if weights is None else (per_region * weights).sum()
