"""A 2D network on slabs of a volume."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import DynUNet
from torch import nn

from scripts.errors import InputError
from scripts.network.slab import SLICES_AT_ONCE, SlabNetwork


class Pick(nn.Module):
    """Gives one channel of its input: which neighbour, of which channel, a slice was stacked with."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image[:, self.channel : self.channel + 1]


@pytest.mark.parametrize(("channel", "offset"), [(0, -1), (1, 0), (2, 1)])
def test_slice_is_stacked_with_neighbours_and_ends_are_repeated(channel, offset):
    volume = torch.rand(2, 2, 5, 6, 7)
    seen = SlabNetwork(Pick(channel), slab=3)(volume)
    expected = volume[:, :1][..., [min(max(place + offset, 0), 6) for place in range(7)]]
    assert torch.equal(seen, expected)


def test_the_second_contrast_follows_the_whole_slab_of_the_first():
    volume = torch.rand(1, 2, 4, 4, 5)
    assert torch.equal(SlabNetwork(Pick(3 + 1), slab=3)(volume), volume[:, 1:])


def test_volume_of_several_chunks_gives_equal_train_and_eval_outputs():
    torch.manual_seed(0)
    network = SlabNetwork(nn.Conv2d(3, 2, 3, padding=1), slab=3)
    volume = torch.rand(1, 1, 8, 8, SLICES_AT_ONCE + 5)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(volume), network.train()(volume))


def test_heads_of_deep_supervision_keep_their_axis():
    network = SlabNetwork(
        DynUNet(2, 12, 3, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[4, 4, 8, 8], deep_supervision=True), slab=3
    )
    output = network.train()(torch.rand(1, 4, 16, 16, 5))
    assert [head.shape for head in (output["logits"], *output["heads"])] == [(1, 3, 16, 16, 5)] * 2
    assert network.eval()(torch.rand(1, 4, 16, 16, 5)).shape == (1, 3, 16, 16, 5)


def test_an_even_slab_has_no_middle_slice_and_is_refused():
    with pytest.raises(InputError, match="slab is 2: expected an odd number"):
        SlabNetwork(nn.Identity(), slab=2)
