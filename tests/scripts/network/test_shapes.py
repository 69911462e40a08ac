"""A network is asked for its sizes and memory by shapes alone, whatever its class."""

import pytest
import torch
from monai.networks.nets import AttentionUnet, BasicUNetPlusPlus, DynUNet, SegResNet
from torch import nn

from scripts.errors import InputError
from scripts.network.shapes import check_patch_size, count_voxel_bytes, size_divisor


def unet(strides: list) -> DynUNet:
    return DynUNet(3, 2, 3, [3] * len(strides), strides, strides[1:], filters=[4] * len(strides)).eval()


@pytest.mark.parametrize(
    ("network", "size", "divisor"),
    [
        (unet([1, 2, 2, 2]), [32, 32, 32], [8, 8, 8]),
        (unet([1, [2, 2, 1], [2, 2, 1], 2]), [32, 32, 8], [8, 8, 2]),
        (unet([1, 3, 2]), [24, 24, 24], [6, 6, 6]),
        (SegResNet(3, 8, 2, 3, blocks_down=(1, 1, 1), blocks_up=(1, 1)).eval(), [16, 16, 16], [4, 4, 4]),
        (AttentionUnet(3, 2, 3, [4, 8, 8], [2, 2]).eval(), [16, 16, 16], [4, 4, 4]),
        (BasicUNetPlusPlus(3, 2, 3, [4, 4, 4, 4, 4, 4]).eval(), [32, 32, 32], [1, 1, 1]),  # it pads by itself
    ],
    ids=["DynUNet", "anisotropic", "stride 3", "SegResNet", "AttentionUnet", "U-Net++"],
)
def test_divisor_of_each_axis_is_found_without_the_class(network, size, divisor):
    assert size_divisor(network, 2, size) == divisor


class OneSize(nn.Module):
    """Accepts 8 voxels a side, as transformers with an embedding of positions accept one size."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, 2, 8, 8, 8))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + self.place


def test_network_of_one_size_has_no_divisor():
    assert size_divisor(OneSize(), 2, [8, 8, 8]) is None
    check_patch_size(OneSize(), 2, [8, 8, 8])


@pytest.mark.parametrize(
    ("network", "size", "said"),
    [
        (unet([1, 2, 2, 2]), [20, 32, 32], r"multiple of 8, 8, 8, such as \(16, 32, 32\) or \(24, 32, 32\)"),
        (unet([1, 2, 2, 2]), [8, 8, 8], r"multiple of 8, 8, 8, such as \(16, 16, 16\)"),
        (OneSize(), [9, 9, 9], "give a size that the network accepts"),
    ],
    ids=["not divisible", "a single voxel is left", "one size"],
)
def test_patch_that_does_not_fit_is_refused(network, size, said):
    with pytest.raises(InputError, match=said):
        check_patch_size(network, 2, size)


def test_counted_memory_grows_with_the_features():
    few, many = (count_voxel_bytes(BasicUNetPlusPlus(3, 2, 3, [n] * 6).eval(), 2, [32, 32, 32]) for n in (4, 8))
    assert 1.8 < many / few < 2.1
    assert few > 4 * 4 * 4  # four feature maps of 4 features in float32, at least


def test_asking_leaves_weights_and_mode_as_they_were():
    network = unet([1, 2, 2]).train()
    before = [weight.clone() for weight in network.parameters()]
    size_divisor(network, 2, [16, 16, 16])
    count_voxel_bytes(network, 2, [16, 16, 16])
    assert network.training
    assert all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))


class Looking(nn.Module):
    """Looks at values of voxels, which shapes do not have."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image if image.max() > 0 else image[image > 0]


def test_memory_of_a_network_that_looks_at_voxels_is_unknown():
    assert count_voxel_bytes(Looking(), 1, [8, 8, 8]) is None
