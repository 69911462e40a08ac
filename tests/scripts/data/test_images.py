"""Tests of `scripts/data/images.py`."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.data.images import connected_components
from scripts.inference.small_components import voxel_ml
from tests.made.volumes import AFFINE, volume


def test_touching_at_a_corner_is_one_component():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    numbered, sizes = connected_components(mask)
    assert sorted(sizes) == [1, 2]
    assert numbered[0, 0, 0] == numbered[1, 1, 1] != numbered[3, 3, 3]
    assert numbered[0, 0, 1] == 0


def test_slices_have_components_too():
    numbered, sizes = connected_components(np.eye(3, dtype=bool))
    assert (numbered.shape, sizes.tolist()) == ((3, 3), [3])


def test_a_tilted_scan_has_the_same_voxel_volume():
    turn = torch.tensor([[0.8, -0.6, 0, 7], [0.6, 0.8, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1.0]])
    assert voxel_ml(MetaTensor(volume(), affine=turn @ AFFINE)) == pytest.approx(0.01)
    assert voxel_ml(volume()) == 0.001
