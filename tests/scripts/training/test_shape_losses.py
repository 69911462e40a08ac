"""Losses of certainty, slices, holes and islands."""

import math

import pytest
import torch

from scripts.training.shape_losses import RareEntropyLoss, SliceConsistencyLoss, TopologyLoss

CUBE = torch.zeros(1, 1, 9, 9, 9)
CUBE[..., 2:7, 2:7, 2:7] = 1


def certain(mask: torch.Tensor) -> torch.Tensor:
    return 40 * mask - 20


def test_entropy_counts_the_voxels_of_the_region_alone():
    logits = certain(CUBE)
    logits[..., 0, 0, 0] = 0  # outside
    assert float(RareEntropyLoss()(logits, CUBE)) < 1e-6
    assert float(RareEntropyLoss()(torch.zeros_like(CUBE), CUBE)) == pytest.approx(math.log(2))
    assert float(RareEntropyLoss()(logits, torch.zeros_like(CUBE))) == 0


def test_entropy_falls_when_a_voxel_becomes_certain():
    logits = torch.full_like(CUBE, 0.5).requires_grad_()
    RareEntropyLoss()(logits, CUBE).backward()
    assert float(logits.grad[0, 0, 4, 4, 4]) < 0


def test_slices_may_change_where_the_label_does():
    assert float(SliceConsistencyLoss()(certain(CUBE), CUBE)) < 1e-6
    missing = CUBE.clone()
    missing[..., 4] = 0
    assert float(SliceConsistencyLoss()(certain(missing), CUBE)) > 0.05


@pytest.mark.parametrize("axes", [2, 3])
def test_topology_of_the_label_itself_costs_nothing(axes):
    label = CUBE if axes == 3 else CUBE[..., 4]
    assert float(TopologyLoss()(certain(label), label)) < 1e-6


def test_topology_sees_holes_and_islands_but_no_shift():
    hole, island = CUBE.clone(), CUBE.clone()
    hole[..., 4, 4, 4], island[..., 0, 0, 0] = 0, 1
    assert all(float(TopologyLoss()(certain(wrong), CUBE)) > 1 / 9**3 for wrong in (hole, island))
    assert float(TopologyLoss()(certain(CUBE.roll(1, -1)), CUBE)) < 1e-6
