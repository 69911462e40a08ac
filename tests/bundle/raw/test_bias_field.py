"""Removal of a bias field of known form."""

import numpy as np

from bundle.raw.bias_field import remove_bias_field
from bundle.raw.volumes import find_head
from scripts.data.images import GridImage
from tests.made import refused
from tests.made.head import AFFINE, make_head


def shaded():
    """A T1 as scanned, the brain, and the same with a gain from 0.6 to 1.5 along one axis."""
    channels, brain = make_head()
    gain = np.exp(np.linspace(-0.5, 0.4, brain.shape[1]))[:, None]
    return channels["T1"].astype(np.float32), brain, channels["T1"] * gain.astype(np.float32)


def test_a_smooth_gain_is_mostly_removed():
    plain, brain, uneven = shaded()
    image = GridImage(uneven, AFFINE)
    even, varied = remove_bias_field(image, find_head(image), "T1")
    left = [np.std(np.log(voxels[brain] / plain[brain])) for voxels in (uneven, even.voxels)]
    assert left[1] < left[0] / 2
    assert varied > 1.5


def test_a_normalised_channel_is_refused_with_its_share():
    plain, brain, _ = shaded()
    image = GridImage((plain - plain[brain].mean()) / plain.std(), AFFINE)
    head = find_head(GridImage(plain, AFFINE))
    assert "channel T1 is negative in" in refused(remove_bias_field, image, head, "T1")
