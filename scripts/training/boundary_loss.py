"""The boundary loss: a wrong voxel costs its distance from the boundary of the region."""

from collections.abc import Sequence

import torch
from torch import nn


class BoundaryLoss(nn.Module):
    """Mean over voxels of |probability - target| times the distance to the boundary of the target.

    It approximates the integral of distances between the boundaries of target and prediction. A patch without the
    region, or filled by it, has no boundary and costs 0: combine it with another loss. In the first steps the many
    wrong voxels would outweigh that loss; let the weight rise during the run (`LossTerm`: `start`, `ramp`).

    Args:
        spacing: mm per axis; None: distances are in voxels.
        limit: greater distances count as this one, in mm; the time of a step grows with it.

    Shapes: logits and target [B, R, ...]; returns a scalar in mm, the mean over regions, 0 for a perfect prediction.
    Source: Kervadec et al. 2019, equation 4 with its constant.
    """

    binary_target = True  # a share of raters has no boundary

    def __init__(self, spacing: Sequence[float] | None = None, limit: float = 10.0) -> None:
        super().__init__()
        self.spacing, self.limit = spacing, limit
        self.last: tuple[torch.Tensor, torch.Tensor] | None = None  # a target, and its distances

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean over regions and voxels."""
        if self.last is None or self.last[0] is not target:  # all heads of deep supervision have the same target
            spacing = self.spacing or [1.0] * (target.dim() - 2)
            self.last = target, boundary_distances(target > 0.5, spacing, self.limit)
        return (self.last[1] * (logits.sigmoid() - target).abs()).mean()


def boundary_distances(masks: torch.Tensor, spacing: Sequence[float], limit: float) -> torch.Tensor:
    """The distance from each voxel to the nearest one on the other side of the boundary, in mm.

    Exact up to the limit, on any device: squared distances are the sum of those along the axes, so one axis after the
    other takes the minimum over shifts up to the limit (Felzenszwalb and Huttenlocher 2012). `scipy` takes longer for
    large patches, and on a GPU waits for it.

    Args:
        masks: [B, R, ...], bool.
        spacing: mm per axis.
        limit: the largest distance, in mm.

    Returns:
        [B, R, ...]; 0 in a mask that is empty or full.
    """
    sides = torch.stack([masks, ~masks])
    squared = torch.where(sides, 0.0, limit**2)
    for axis, mm in enumerate(spacing, start=3):
        size, nearest = squared.shape[axis], squared.clone()
        for shift in range(1, min(int(limit / mm), size - 1) + 1):
            further = squared + (shift * mm) ** 2
            for here, there in ((0, shift), (shift, 0)):
                part = nearest.narrow(axis, here, size - shift)
                torch.minimum(part, further.narrow(axis, there, size - shift), out=part)
        squared = nearest
    has_both = sides.flatten(3).any(-1).all(0)
    return squared.sqrt().sum(0) * has_both.reshape(*has_both.shape, *[1] * len(spacing))
