"""Tests of `scripts/data/images.py`."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from scripts.data import nifti
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


@pytest.mark.parametrize("shape", [(9, 7, 8), (12, 11)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.4])
def test_components_of_a_box_are_those_of_the_whole(shape, share):
    mask = np.zeros(shape, bool)
    inner = tuple(slice(2, size - 1) for size in shape)
    mask[inner] = np.random.default_rng(0).random(mask[inner].shape) < share
    numbered, sizes = connected_components(mask)
    whole, count = ndimage.label(mask, np.ones([3] * mask.ndim))
    assert np.array_equal(numbered, whole)
    assert sizes.tolist() == [np.count_nonzero(whole == number) for number in range(1, count + 1)]


def test_a_tilted_scan_has_the_same_voxel_volume():
    turn = torch.tensor([[0.8, -0.6, 0, 7], [0.6, 0.8, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1.0]])
    assert voxel_ml(MetaTensor(volume(), affine=turn @ AFFINE)) == pytest.approx(0.01)
    assert voxel_ml(volume()) == 0.001


def test_read_once_ends_with_its_block(tmp_path):
    path = tmp_path / "a.nii"
    first, second = (nib.Nifti1Image(np.full((2, 2, 2), value, np.int16), np.eye(4)) for value in (1, 2))
    nib.save(first, path)
    with nifti.read_once([path]):
        nifti.read_nifti(path)
        nib.save(second, path)
        held = nifti.read_nifti(path)
    assert held.voxels.max() == 1
    assert not held.voxels.flags.writeable
    assert nifti.read_nifti(path).voxels.max() == 2
