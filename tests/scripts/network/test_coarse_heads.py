"""Heads of deep supervision before they are upsampled."""

import copy

import pytest
import torch
from monai.networks.nets import DynUNet
from torch.nn import functional

from scripts.network.coarse_heads import CoarseHeadsDynUNet, with_coarse_heads
from scripts.network.outputs import read_output

IMAGE = torch.randn(2, 2, 16, 32, 16)


def network(kind: type[DynUNet], heads: int = 2, **settings) -> DynUNet:
    torch.manual_seed(0)
    strides = [1, 2, (2, 2, 1), 2]
    settings = {"deep_supervision": heads > 0, "deep_supr_num": max(heads, 1), **settings}
    return kind(3, 2, 3, [3] * 4, strides, strides[1:], filters=[4, 6, 8, 8], **settings)


def test_the_state_is_that_of_monais_network():
    one, other = (network(kind).state_dict() for kind in (DynUNet, CoarseHeadsDynUNet))
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("heads", [0, 2])
def test_in_evaluation_logits_are_monais(heads):
    expected = network(DynUNet, heads).eval()(IMAGE)
    assert torch.equal(network(CoarseHeadsDynUNet, heads).eval()(IMAGE), expected)


def test_in_training_without_heads_logits_are_monais():
    assert torch.equal(network(CoarseHeadsDynUNet, 0)(IMAGE), network(DynUNet, 0)(IMAGE))


def test_in_training_each_head_has_its_own_size():
    logits = read_output(network(CoarseHeadsDynUNet)(IMAGE), 3).heads
    assert [tuple(head.shape) for head in logits] == [(2, 3, 16, 32, 16), (2, 3, 8, 16, 8), (2, 3, 4, 8, 8)]
    repeated = torch.stack([functional.interpolate(head, IMAGE.shape[2:]) for head in logits], 1)
    assert torch.equal(repeated, network(DynUNet)(IMAGE))


def test_heads_can_be_added_to_monais_network_later():
    one = network(DynUNet)
    assert with_coarse_heads(one) is one
    assert [head.shape[2] for head in read_output(one(IMAGE), 3).heads] == [16, 8, 4]
    assert len(read_output(copy.deepcopy(one)(IMAGE), 3).heads) == 3  # also after a step: no head is kept


def test_other_networks_stay_unchanged():
    one = torch.nn.Conv3d(2, 3, 1)
    assert type(with_coarse_heads(one)) is torch.nn.Conv3d
