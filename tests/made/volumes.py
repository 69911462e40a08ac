"""Boxes of ones in a small volume."""

import torch

AFFINE = torch.diag(torch.tensor([1.0, 2.0, 5.0, 1.0]))  # 10 mm³ = 0.01 ml a voxel
REGION = ["tumour"]
FOUR = (slice(0, 4), 0, 0)  # 0.04 ml


def volume(*boxes: tuple[slice, ...], shape=(12, 12, 12)) -> torch.Tensor:
    """Ones in the boxes, [1, X, Y, Z]."""
    made = torch.zeros(1, *shape)
    for box in boxes:
        made[(0, *box)] = 1
    return made
