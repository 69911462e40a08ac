"""Losses of presence, prototypes and voxel features."""

import math

import pytest
import torch

from scripts.network.prototypes import PrototypeHead
from scripts.training.prototype_losses import ContrastiveLoss, PresenceLoss, PrototypeLoss

LABEL = torch.zeros(2, 2, 4, 4, 4)
LABEL[0, 0, :2] = 1  # the first patch holds the first region


def test_presence_is_compared_with_what_the_patch_holds():
    right = torch.tensor([[9.0, -9.0], [-9.0, -9.0]])
    assert float(PresenceLoss()(right, LABEL)) < 0.001
    assert float(PresenceLoss()(-right, LABEL)) == pytest.approx(9, abs=0.01)


def test_presence_of_one_region_leaves_out_the_others():
    assert float(PresenceLoss(region=0)(torch.tensor([[9.0, 9.0], [-9.0, 9.0]]), LABEL)) < 0.001


def features_of(label: torch.Tensor) -> torch.Tensor:
    """Features [B, 2, ...] that tell the first region from the rest."""
    inside = label[:, :1]
    return torch.cat([inside, 1 - inside], 1)


def test_prototype_loss_is_small_where_features_tell_regions_apart():
    label, torch_loss = LABEL[:, :1], PrototypeLoss()
    apart = torch_loss((features_of(label), PrototypeHead(1, 1, 2)), label)
    alike = torch_loss((torch.ones(2, 2, 4, 4, 4) / math.sqrt(2), PrototypeHead(1, 1, 2)), label)
    assert float(apart) < 0.001
    assert float(alike) == pytest.approx(math.log(2), abs=0.001)


def test_prototype_loss_takes_labels_finer_than_features():
    fine = LABEL.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)[:, :1]
    assert float(PrototypeLoss()((features_of(LABEL), PrototypeHead(1, 1, 2)), fine)) < 0.001


def test_contrast_is_the_published_mean_over_partners():
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(1, 3, 2, 2, 2), dim=1)
    label = (torch.arange(8).reshape(1, 1, 2, 2, 2) < 3).float()
    flat, kinds = vectors[0].flatten(1).T.double(), label.flatten().tolist()
    expected = []
    for i in range(8):
        others = [j for j in range(8) if j != i]
        total = sum(math.exp(float(flat[i] @ flat[j]) / 0.1) for j in others)
        partners = [j for j in others if kinds[j] == kinds[i]]
        logs = [math.log(math.exp(float(flat[i] @ flat[j]) / 0.1) / total) for j in partners]
        expected.append(-sum(logs) / len(logs))
    assert float(ContrastiveLoss(voxels=8)(vectors, label)) == pytest.approx(sum(expected) / 8, rel=1e-4)


def test_contrast_draws_rare_regions_as_often_as_background():
    torch.manual_seed(0)
    label = torch.zeros(1, 1, 16, 16, 16)
    label[0, 0, 0, 0, :8] = 1
    # were the eight voxels not among the few drawn, features that differ would cost as much as equal ones
    different = ContrastiveLoss(voxels=16)(features_of(label), label)
    equal = ContrastiveLoss(voxels=16)(torch.ones(1, 2, 16, 16, 16) / math.sqrt(2), label)
    assert float(different) < float(equal) - 0.3


def test_contrast_of_a_single_voxel_is_zero():
    assert float(ContrastiveLoss()(torch.ones(1, 2, 1, 1, 1), torch.ones(1, 1, 1, 1, 1))) == 0
