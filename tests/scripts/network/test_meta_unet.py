"""The 3D U-Net with presence and prototypes: what it returns, its gate, and its bank of prototypes."""

import pytest
import torch
from monai.bundle import ConfigParser

from scripts.network.meta_unet import MetaUNet3D
from scripts.network.outputs import read_output
from scripts.network.prototypes import PrototypeHead
from tests.made import ROOT

IMAGE = torch.randn(2, 2, 16, 16, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return MetaUNet3D(2, 3, [4, 8, 8, 8])


def test_training_returns_all_outputs_and_evaluation_logits(network):
    found = read_output(network(IMAGE), axes=3)
    assert [tuple(head.shape[2:]) for head in found.heads] == [(16, 16, 8), (8, 8, 4), (4, 4, 2)]
    assert found.others["presence"].shape == (2, 3)
    assert found.others["features"].shape == (2, 16, 8, 8, 4)
    assert network.eval()(IMAGE).shape == (2, 3, 16, 16, 8)


def test_parts_can_be_left_out():
    network = MetaUNet3D(2, 3, [4, 8, 8], presence_gate=False, prototypes=False)
    assert {*read_output(network(IMAGE), axes=3).others} == {"presence"}


def test_closed_gate_leaves_nothing_of_the_image(network):
    torch.nn.init.constant_(network.gate.bias, -100.0)
    logits = network.eval()(IMAGE)
    assert torch.allclose(logits, logits[..., :1, :1, :1].expand_as(logits), atol=1e-5)


def test_prototypes_change_logits_once_their_factor_is_learned(network):
    features = network(IMAGE)["features"]
    network.prototypes.update(features, (torch.rand(2, 3, 8, 8, 4) > 0.5).float())
    before = network.eval()(IMAGE)
    torch.nn.init.ones_(network.fusion)
    assert not torch.allclose(network(IMAGE), before)


def test_prototypes_are_part_of_the_weights(network):
    assert {"prototypes.bank", "prototypes.seen"} <= {*network.state_dict()}


def halves() -> tuple[torch.Tensor, torch.Tensor]:
    """Two patches whose first half is in the region, with features of their own there: [2, 2, 4, 1, 1], [2, 1, ...]."""
    features, shares = torch.zeros(2, 2, 4, 1, 1), torch.zeros(2, 1, 4, 1, 1)
    features[:, 0, :2], features[:, 1, 2:], shares[:, :, :2] = 1, 1, 1
    return features, shares


def test_prototypes_are_means_of_the_voxels_inside_and_outside():
    head, (features, shares) = PrototypeHead(1, 1, 2), halves()
    head.update(features, shares)
    assert head.bank[:, 0].tolist() == [[1, 0], [0, 1]]
    assert (head.compare(features) > 0).float().equal(shares)


def test_bank_moves_by_the_momentum_and_keeps_absent_regions():
    head, (features, shares) = PrototypeHead(1, 2, 2, momentum=0.75), halves()
    two = torch.cat([shares, torch.zeros_like(shares)], 1)
    head.update(features, two)
    head.update(-features, two)
    assert head.bank[0].tolist() == [[0.5, 0], [0, 0]]
    assert head.seen[0].tolist() == [1, 0]


def test_features_that_are_not_finite_leave_the_bank():
    head, (features, shares) = PrototypeHead(1, 1, 2), halves()
    head.update(features, shares)
    before = head.bank.clone()
    head.update(features * torch.inf, shares)
    assert head.bank.equal(before)


def test_only_the_first_patches_are_shots():
    head, (features, shares) = PrototypeHead(1, 1, 2, shots=1), halves()
    features[1] = -features[1]
    head.update(features, shares)
    assert head.bank[0, 0].tolist() == [1, 0]


def test_unknown_prototypes_say_nothing():
    head, (features, _) = PrototypeHead(1, 1, 2), halves()
    assert not head.compare(features).any()


@pytest.mark.parametrize("task", sorted((ROOT / "configs" / "tasks").glob("*.yaml")), ids=lambda path: path.stem)
def test_rare_region_of_a_task_has_fewest_labels(task):
    parser = ConfigParser()
    parser.read_config([task, ROOT / "configs" / "recipes" / "meta_unet.yaml"])
    labels = {name: len(values) for name, values in parser["regions"].items()}
    rare = parser.get_parsed_content("rare_region")
    assert labels[rare] == min(labels.values())
    assert rare == "ET" or "ET" not in labels
