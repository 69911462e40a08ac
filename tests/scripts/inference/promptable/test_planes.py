"""The slices of a scan hold its own voxels, in the way they are displayed, for any order and direction of its axes."""

import numpy as np
import pytest
import torch

from scripts.data.clicks import Click
from scripts.inference.promptable.planes import PLANES, SliceView, choose_plane, to_grey_values
from scripts.inference.promptable.prompts import SlicePrompt, to_tensors
from scripts.inference.promptable.sam2 import VideoFrames
from tests.made.clicks import AFFINES, SHAPE, towards

VOXELS = np.random.default_rng(0).random(SHAPE).astype(np.float32)
TOWARDS = {"axial": "SPL", "coronal": "AIL", "sagittal": "LIP"}  # slices, rows, columns
SIGNS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("plane", PLANES)
def test_slices_are_the_voxels_of_the_scan(affine, plane):
    view = SliceView(SHAPE, affine, plane)
    slices = view.slices(VOXELS)
    assert np.array_equal(view.scan(slices), VOXELS)
    for voxel in ((0, 0, 0), (3, 7, 11), (19, 17, 13)):
        assert slices[view.place(voxel)] == VOXELS[voxel]


@pytest.mark.parametrize("axes", ["RAS", "LPS", "ASR", "SLP", "IRA"])
@pytest.mark.parametrize("plane", PLANES)
def test_slices_are_shown_with_front_or_head_on_top(axes, plane):
    affine = towards(axes)
    view = SliceView(SHAPE, affine, plane)
    place = np.linalg.inv(view.to_slice)  # from slice, row, column to the voxel
    for axis, side in enumerate(TOWARDS[plane]):
        step = affine[:3, :3] @ place[:3, axis]
        world, sign = SIGNS[side]
        assert step[world] * sign == np.abs(step).max() > 0


@pytest.mark.parametrize(
    ("sizes", "plane"),
    [
        ((1, 1, 1), "axial"),
        ((1, 1, 5), "axial"),
        ((1, 4, 1), "coronal"),
        ((3, 1, 1), "sagittal"),
        ((1.05, 1, 1), "axial"),
    ],
)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 1, 3]])
def test_the_plane_is_across_the_longest_side_of_a_voxel(sizes, plane, order):
    assert choose_plane(np.diag([*sizes, 1.0])[:, order]) == plane


@pytest.mark.parametrize("place", [(0, 0), (4, 9), (17, 19)])
def test_a_point_lies_on_its_voxel_in_the_picture(place):
    slices = np.zeros((1, 18, 20), np.float32)
    slices[(0, *place)] = 1
    size = 180
    frame = VideoFrames(slices, size)[0].mean(0)
    bright = torch.nonzero(frame > frame.max() - 0.3 * (frame.max() - frame.min())).float().mean(0)  # row, column
    points, labels, box = to_tensors(SlicePrompt((Click(place, True),)), slices.shape[1:], size)
    assert torch.allclose(points[0, 0, 0], bright.flip(0), atol=1.5)
    assert labels.tolist() == [[[1]]]
    assert box is None


def test_a_box_has_its_last_voxel_in_it():
    _, _, box = to_tensors(SlicePrompt(box=(2, 0, 3, 19)), (10, 20), 40)
    assert (box + 0.5).tolist() == [[[0, 8, 40, 16]]]  # x, y, x, y of edges


def test_grey_values_leave_out_the_background_and_outliers():
    voxels = np.zeros((10, 10, 10), np.float32)
    voxels[2:8] = np.linspace(-1, 1, 600).reshape(6, 10, 10)
    voxels[5, 5, 5] = 1000
    grey = to_grey_values(voxels)
    assert grey.min() == 0
    assert grey.max() == 1
    assert not grey[:2].any()
    assert (grey > 0.5).sum() == pytest.approx(300, abs=5)
