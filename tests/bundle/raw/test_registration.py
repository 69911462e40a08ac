"""Rigid registration of the channels of a head."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bundle.raw.registration import REACH_MM, register_rigid
from bundle.raw.volumes import find_head, to_itk
from scripts.data.images import GridImage
from scripts.data.itk_files import LPS_TO_RAS
from tests.made import refused
from tests.made.head import AFFINE, MOVES, make_head, scan_again, scan_head

LIMIT_MM = 1.0  # worst error 60 mm from the centre of the head, a fifth of a voxel


def register(fixed: GridImage, moving: GridImage):
    images = [to_itk(image._replace(voxels=image.voxels.astype(np.float32))) for image in (fixed, moving)]
    return register_rigid(*images, (find_head(fixed), find_head(moving)), ("channel T1c", "channel moving"))


def worst_error(found, true: np.ndarray) -> float:
    """The largest distance in mm of points 60 mm from the centre to where a true map (RAS) brings them."""
    centre = np.array(found.transform.GetCenter())
    points = centre + REACH_MM * np.concatenate([np.eye(3), -np.eye(3)])
    moved = np.array([found.transform.TransformPoint(point.tolist()) for point in points])
    return float(np.linalg.norm(moved - nib.affines.apply_affine(LPS_TO_RAS @ true @ LPS_TO_RAS, points), axis=1).max())


@pytest.fixture(scope="module")
def scans():
    return scan_head()


@pytest.mark.parametrize("name", ["T1", "T2", "FLAIR"])
def test_a_displaced_channel_is_found_on_another_grid(scans, name):
    found = register(scans["T1c"], scans[name])
    assert found.moved_mm > 10
    assert found.after > found.before
    assert worst_error(found, MOVES[name]) < LIMIT_MM


def test_a_channel_in_place_stays_there(scans):
    channels, _ = make_head()
    found = register(GridImage(channels["T1c"], AFFINE), GridImage(channels["T1"], AFFINE))
    assert found.moved_mm < LIMIT_MM


def test_headers_without_a_common_space_are_no_obstacle(scans):
    channels, _ = make_head()
    far = AFFINE.copy()
    far[:3, 3] += (400, -300, 500)
    found = register(scans["T1c"], GridImage(channels["T2"], far))
    assert found.before == 0
    assert worst_error(found, far @ np.linalg.inv(AFFINE)) < LIMIT_MM


def test_a_scan_of_something_else_is_refused(scans):
    rng = np.random.default_rng(0)
    ball = np.linalg.norm(np.indices((52, 52, 52)) - 26.0, axis=0)[None][0] < 9
    other = np.where(ball, 500, 0) + rng.integers(0, 30, ball.shape)
    sentence = refused(register, scans["T1c"], scan_again(other, np.eye(4), ball.shape, AFFINE))
    assert "channel moving could not be registered to channel T1c" in sentence
