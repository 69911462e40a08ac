"""Fully convolutional networks give scores on the image's grid."""

import pytest
import torch
from torch.nn import functional

from scripts.errors import InputError
from scripts.network.fcn import SkipFCN, upsampling


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_scores_have_the_size_of_the_image(stride):
    network = SkipFCN(3, 2, [4, 4, 8, 8, 8], 16, stride).eval()
    assert network(torch.rand(2, 3, 64, 96)).shape == (2, 2, 64, 96)
    assert len(network.skips) == {32: 0, 16: 1, 8: 2}[stride]


@pytest.mark.parametrize("factor", [2, 8])
def test_upsampling_starts_as_bilinear_interpolation(factor):
    image = torch.rand(1, 3, 6, 5)
    found = upsampling(3, factor)(image)
    expected = functional.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = (..., slice(factor, -factor), slice(factor, -factor))  # edges see zeros beyond the image
    torch.testing.assert_close(found[inner], expected[inner])


def test_other_strides_are_refused():
    with pytest.raises(InputError, match="stride 4 and 5 levels: expected a stride of 8, 16 or 32"):
        SkipFCN(3, 2, stride=4)
