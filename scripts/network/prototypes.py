"""Prototypes of regions: the mean feature of its voxels and of all others, with which a voxel is compared."""

import torch
from torch import nn
from torch.nn import functional

from scripts.distributed import sum_over_processes

SHARPNESS = 10.0  # of the difference of two cosines, as a logit


class PrototypeHead(nn.Module):
    """Features of voxels, and their similarity to the prototypes of each region.

    A region has two prototypes, of its voxels and of all others. A bank keeps their moving averages, which are part of
    the weights of the network; `update` is called in training (`scripts.training.prototype_losses.PrototypeLoss`).

    Args:
        channels: C, of the network's features.
        regions: R.
        features: F, of a voxel.
        shots: patches of a step that give new prototypes of a region, at most; the first ones that hold it.
        momentum: share of the old average in the new one.

    Shapes: [B, C, ...] to unit vectors [B, F, ...].

    Source: prototypical networks (Snell et al. 2017, https://arxiv.org/abs/1703.05175), with masked means (Wang et al.
    2019, https://arxiv.org/abs/1908.06391).
    """

    bank: torch.Tensor
    seen: torch.Tensor

    def __init__(self, channels: int, regions: int, features: int = 16, shots: int = 2, momentum: float = 0.95) -> None:
        super().__init__()
        self.project = nn.Conv3d(channels, features, 1)
        self.shots, self.momentum = shots, momentum
        self.register_buffer("bank", torch.zeros(2, regions, features))  # of voxels inside, and outside
        self.register_buffer("seen", torch.zeros(2, regions))  # 1 once there is a prototype

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The features of each voxel, of length 1."""
        return functional.normalize(self.project(image), dim=1)

    def compare(self, features: torch.Tensor) -> torch.Tensor:
        """Logits [B, R, ...]: whether a voxel is more like the inside of a region; 0 before both prototypes are known.

        `features` are [B, F, ...].
        """
        inside, outside = functional.normalize(self.bank, dim=-1)
        difference = (inside - outside) * self.seen.prod(0)[:, None] * SHARPNESS
        return torch.einsum("bf...,rf->br...", features, difference)

    @torch.no_grad()
    def update(self, features: torch.Tensor, shares: torch.Tensor) -> None:
        """Move the prototypes towards those of a batch, over all processes; features that are not finite do not count.

        Args:
            features: [B, F, ...].
            shares: of each voxel in each region, 0 to 1, [B, R, ...].
        """
        vectors, found = features.detach().flatten(2), shares.flatten(2)
        for place, weights in enumerate((found, 1 - found)):
            sizes = weights.sum(-1)  # [B, R]
            has = (sizes > 0).float()
            has = has * (has.cumsum(0) <= self.shots)
            means = torch.einsum("bfn,brn->brf", vectors, weights) / sizes.clamp_min(1e-6)[..., None]
            total, count = sum_over_processes((means * has[..., None]).sum(0)), sum_over_processes(has.sum(0))
            new = total / count.clamp_min(1)[:, None]
            known = ((count > 0) & new.isfinite().all(-1)).float()
            new = new.nan_to_num(0.0, 0.0, 0.0)
            keep = torch.where(self.seen[place] > 0, self.momentum, 0.0) * known + (1 - known)
            self.bank[place] = keep[:, None] * self.bank[place] + (1 - keep[:, None]) * new
            self.seen[place] = torch.maximum(self.seen[place], known)
