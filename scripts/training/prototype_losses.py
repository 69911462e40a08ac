"""Losses of what `scripts.network.meta_unet.MetaUNet3D` returns next to logits: presence, prototypes and features."""

import torch
from torch import nn
from torch.nn import functional

from scripts.network.prototypes import PrototypeHead


class PresenceLoss(nn.Module):
    """Cross-entropy of whether a patch holds each region.

    Args:
        region: the number of the only region that counts, such as the rarest; None: the mean over all.

    Shapes: logits [B, R], target [B, R, ...]; returns a scalar.
    """

    def __init__(self, region: int | None = None) -> None:
        super().__init__()
        self.region = region

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean over patches."""
        holds = (target.flatten(2).amax(-1) > 0).float()
        places = slice(None) if self.region is None else slice(self.region, self.region + 1)
        return functional.binary_cross_entropy_with_logits(logits[:, places].float(), holds[:, places])


class PrototypeLoss(nn.Module):
    """Cross-entropy of the regions of voxels by their similarity to prototypes, which the batch updates first.

    Shapes: features [B, F, ...] and the `PrototypeHead` that made them; target [B, R, ...], of any multiple of the
    features' size; returns a scalar.
    """

    def forward(self, pair: tuple[torch.Tensor, PrototypeHead], target: torch.Tensor) -> torch.Tensor:
        """The mean over regions and voxels."""
        features, head = pair[0].float(), pair[1]
        shares = _at_size(target, features)
        head.update(features, shares)
        return functional.binary_cross_entropy_with_logits(head.compare(features), shares)


class ContrastiveLoss(nn.Module):
    """Supervised contrastive loss: voxels of the same regions have similar features, voxels of others do not.

    Args:
        voxels: of a batch that are compared, drawn so that each region and the background have an equal share.
        temperature: by which similarities are divided.

    Shapes: features of length 1, [B, F, ...]; target [B, R, ...], of any multiple of their size; returns a scalar.

    Source: Khosla et al. 2020, https://arxiv.org/abs/2004.11362 (the mean over positive pairs outside the logarithm).
    """

    def __init__(self, voxels: int = 256, temperature: float = 0.1) -> None:
        super().__init__()
        self.voxels, self.temperature = voxels, temperature

    def forward(self, features: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean over voxels that have a partner."""
        vectors = features.float().movedim(1, -1).flatten(0, -2)  # [N, F]
        inside = (_at_size(target, features) > 0.5).movedim(1, -1).flatten(0, -2).float()  # [N, R]
        groups = torch.cat([inside, 1 - inside.amax(-1, keepdim=True)], 1)
        weights = (groups / groups.sum(0).clamp_min(1)).sum(1)
        count = min(self.voxels, len(weights))  # by an exponential race, since multinomial waits for a GPU
        drawn = (torch.empty_like(weights).exponential_() / weights).topk(count, largest=False).indices
        vectors, inside = vectors[drawn], inside[drawn]
        others = ~torch.eye(len(drawn), dtype=torch.bool, device=drawn.device)
        alike = (torch.cdist(inside, inside, 1) < 0.5) & others
        similar = (vectors @ vectors.T / self.temperature).masked_fill(~others, -torch.inf)
        log_shares = similar - similar.logsumexp(1, keepdim=True)
        partners = alike.sum(1)
        loss = -log_shares.masked_fill(~alike, 0.0).sum(1) / partners.clamp_min(1)
        return loss.sum() / (partners > 0).sum().clamp_min(1)


def _at_size(target: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """The share of each region in the voxels of the features."""
    return functional.adaptive_avg_pool3d(target, (*features.shape[2:],))
