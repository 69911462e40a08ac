"""Losses for overlapping regions, one sigmoid channel each.

A loss that is linear in its target can be computed on coarse logits without upsampling them, from the mean label of the
voxels that share a logit. Such a loss has a method `at_resolution(logits, shares, voxels)`, where `shares` is the
target averaged over the `voxels` of each logit; its value is that for logits repeated to the target's size.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from monai.losses import TverskyLoss
from torch import nn
from torch.nn import functional

from scripts.distributed import sum_over_processes
from scripts.network.outputs import read_output


class RegionDiceCELoss(nn.Module):
    """Dice over the batch plus cross-entropy, for regions that may overlap.

    MONAI's `DiceCELoss(sigmoid=True)` uses the softmax cross-entropy for two or more channels, so that nested regions
    compete; here each region has its own binary cross-entropy.

    Args:
        lambda_dice: weight of the Dice part.
        lambda_ce: weight of the cross-entropy part.
        region_weights: region name to weight, applied to both parts; None: equal weights.
        batch: Dice over the whole batch, so that a patch without tumour is not a total miss; in training mode over
            those of all processes.
        pos_weight: weight of a voxel inside a region relative to one outside, in the cross-entropy.

    Shapes: logits and target [B, R, ...]; returns a scalar. Source: the loss of nnU-Net (Isensee et al. 2021).
    """

    pos_weight: torch.Tensor | None
    weights: torch.Tensor | None

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
        # None: even a factor of 1 costs a pass over all voxels
        self.register_buffer("pos_weight", None if pos_weight == 1 else torch.tensor(float(pos_weight)), False)
        self.batch = batch
        self.register_buffer("weights", _normalised(region_weights), persistent=False)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The weighted mean over regions."""
        return self.at_resolution(logits, target)

    def at_resolution(self, logits: torch.Tensor, shares: torch.Tensor, voxels: float = 1.0) -> torch.Tensor:
        """The loss of logits for several voxels each.

        Args:
            logits: [B, R, ...].
            shares: the share of a logit's voxels in the region, 0 to 1, of the same shape.
            voxels: number of voxels per logit.
        """
        dice = self._dice(logits.sigmoid(), shares, voxels).reshape(-1, logits.shape[1]).mean(0)
        entropy = functional.binary_cross_entropy_with_logits(
            logits.transpose(0, 1), shares.transpose(0, 1), reduction="none", pos_weight=self.pos_weight
        )
        entropy = entropy.mean(list(range(1, entropy.dim())))
        return _weighted_mean(self.lambda_dice * dice + self.lambda_ce * entropy, self.weights)

    def _dice(self, probability: torch.Tensor, target: torch.Tensor, voxels: float) -> torch.Tensor:
        """[R], or [B, R] by patch, as MONAI's `DiceLoss`, but over all processes."""
        axes = [axis for axis in range(target.dim()) if axis != 1 and (axis or self.batch)]
        both, size = (probability * target).sum(axes), probability.sum(axes) + target.sum(axes)
        sums = voxels * torch.stack([both, size])
        both, size = sum_over_processes(sums) if self.batch and self.training else sums
        return 1 - (2 * both + 1e-5) / (size + 1e-5)


class FocalTverskyLoss(nn.Module):
    """(1 - Tversky index) to a power, for every region.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives; beta > alpha trades precision for recall, which small regions need.
        gamma: the power; below 1 it keeps the gradient of good regions, above 1 it concentrates on bad ones.
        region_weights: region name to weight; None: equal weights.

    Shapes: logits and target [B, R, ...]; returns a scalar. MONAI's `AsymmetricFocalTverskyLoss` ignores all channels
    after the second, so the power is taken of `TverskyLoss` per channel. Source: Abraham and Khan 2019, where the
    power is 1 / gamma with gamma = 4/3.
    """

    weights: torch.Tensor | None

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 0.75,
        region_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.tversky = _tversky(alpha, beta)
        self.register_buffer("weights", _normalised(region_weights), persistent=False)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The weighted mean over regions."""
        tversky = self.tversky(logits, target).reshape(-1)
        # the slope of x ** 0.75 is infinite at 0
        return _weighted_mean(tversky.clamp_min(1e-6) ** self.gamma, self.weights)


class UnifiedFocalLoss(nn.Module):
    """Focal cross-entropy plus focal Tversky, both asymmetric: the focus is on what is rare.

    In the cross-entropy, background that is already right loses weight and the region keeps its own. In the Tversky
    part, the mean over region and background, the power is taken of the region alone, which keeps its gradient.

    Args:
        weight: of the cross-entropy, 0 to 1; the Tversky part has the rest.
        delta: weight of false negatives, 0 to 1; false positives, and background in the cross-entropy, have the rest.
        gamma: the focus, 0 (none) to below 1.

    Shapes: logits and target [B, R, ...]; returns a scalar, the mean over regions. MONAI's
    `AsymmetricUnifiedFocalLoss` takes a single region, and probabilities, of which 0 and 1 have no gradient. Source:
    Yeung et al. 2022, whose values are the defaults.
    """

    def __init__(self, weight: float = 0.5, delta: float = 0.6, gamma: float = 0.5) -> None:
        super().__init__()
        self.weight, self.delta, self.gamma = weight, delta, gamma
        self.tversky = _tversky(1 - delta, delta)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean over regions."""
        log_inside, log_outside = functional.logsigmoid(logits), functional.logsigmoid(-logits)
        focus = (self.gamma * log_inside).exp()  # p ** gamma, with a finite slope at 0
        entropy = -self.delta * target * log_inside - (1 - self.delta) * (1 - target) * focus * log_outside
        region = self.tversky(logits, target).clamp_min(1e-6) ** (1 - self.gamma)
        tversky = 0.5 * (region + self.tversky(-logits, 1 - target))
        return self.weight * entropy.mean() + (1 - self.weight) * tversky.mean()


class MeanOverRegions(nn.Module):
    """A loss of one channel, applied to every region by itself.

    For a loss without weights of regions, or one that sums over all channels.

    Args:
        loss: maps logits and target [B, 1, ...] to a scalar.
        region_weights: region name to weight; None: equal weights.

    Shapes: logits and target [B, R, ...]; returns a scalar.
    """

    weights: torch.Tensor | None

    def __init__(self, loss: nn.Module, region_weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.register_buffer("weights", _normalised(region_weights), persistent=False)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The weighted mean over regions."""
        pairs = zip(logits.split(1, dim=1), target.split(1, dim=1), strict=True)
        return _weighted_mean(torch.stack([self.loss(*pair) for pair in pairs]), self.weights)


class DeepSupervisionLoss(nn.Module):
    """The same loss on every head of the network, with smaller weights for coarser heads, optionally annealed to 0.

    Args:
        loss: the loss of one head.
        decay: ratio of the weight of a head to that of the next finer one; the weights sum to 1.
        progress: returns the completed share of training, 0 to 1; or None.
        anneal: multiply the decay by 1 - progress, so that training ends on the finest head alone.

    Shapes: what a network returns (`scripts.network.outputs.read_output`), heads of [B, K, ...]; target [B, K, ...];
    returns a scalar. Computed in float32, also under autocast.

    Heads that are coarser than the target are upsampled here (nearest), unless the loss has `at_resolution`.
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

    @property
    def values(self) -> dict[str, torch.Tensor]:
        """The value of each named term in the last call, detached; of a loss with terms (`LossTerms`)."""
        return getattr(self.loss, "values", {})

    def forward(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """The weighted sum over heads, plus those terms of the loss that are of other outputs."""
        self.values.clear()
        found = read_output(output, target.dim() - 2)
        weights = self.head_weights(len(found.heads))
        with torch.autocast(target.device.type, enabled=False):
            target = _plain(target)
            # an annealed head costs nothing
            heads = [_plain(head) for head, weight in zip(found.heads, weights, strict=True) if weight > 0]
            parts = [weight * part for weight, part in zip(weights, self._of_heads(heads, target), strict=False)]
            if of_outputs := getattr(self.loss, "of_outputs", None):
                parts.append(of_outputs(found.others, target))
        return torch.stack(parts).sum()

    def _of_heads(self, heads: Sequence[torch.Tensor], target: torch.Tensor) -> Iterator[torch.Tensor]:
        at_resolution = getattr(self.loss, "at_resolution", None)
        shares = target
        for head in heads:
            if head.shape[2:] == target.shape[2:]:
                yield self.loss(head, target)
            elif at_resolution and _divides(head, shares):
                shares = _averaged(shares, head)
                yield at_resolution(head, shares, target.numel() / shares.numel())
            else:
                yield self.loss(functional.interpolate(head, target.shape[2:]), target)


def _tversky(alpha: float, beta: float) -> TverskyLoss:
    """1 - the Tversky index over the batch, with one element per region."""
    return TverskyLoss(
        sigmoid=True, alpha=alpha, beta=beta, batch=True, reduction="none", smooth_nr=1e-5, smooth_dr=1e-5
    )


def _plain(values: torch.Tensor) -> torch.Tensor:
    """In float32 and contiguous: mixed memory layouts slow down every operation of a loss."""
    return values.to(torch.float32, memory_format=torch.contiguous_format)


def _divides(coarse: torch.Tensor, fine: torch.Tensor) -> bool:
    return not any(whole % part for whole, part in zip(fine.shape[2:], coarse.shape[2:], strict=True))


def _averaged(fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
    """Means of blocks, in the shape of `coarse`; exact for labels if strides are powers of 2."""
    pool = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[fine.dim() - 3]
    return pool(fine, [whole // part for whole, part in zip(fine.shape[2:], coarse.shape[2:], strict=True)])


def _normalised(region_weights: Mapping[str, float] | None) -> torch.Tensor | None:
    if region_weights is None:
        return None
    weights = torch.tensor(list(region_weights.values()), dtype=torch.float32)
    return weights / weights.sum()


def _weighted_mean(per_region: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    return per_region.mean() if weights is None else (per_region * weights).sum()
