"""Diameters of shapes whose size is known."""

import numpy as np
import pytest

from scripts.scoring.diameters import measure_diameters


def box(*sides: int) -> np.ndarray:
    mask = np.zeros([side + 4 for side in sides], bool)
    mask[tuple(slice(2, 2 + side) for side in sides)] = True
    return mask


def disc(radius: float, hole: float = -1.0) -> np.ndarray:
    x, y = np.indices((64, 64)) - 31.5
    distance = np.hypot(x, y)
    return ((distance <= radius) & (distance > hole))[..., None]


def test_rectangle_has_the_diagonal_of_its_outer_corners():
    found = measure_diameters(box(30, 40, 1), (1, 1, 1))
    assert found.longest == pytest.approx(50)
    assert found.perpendicular == pytest.approx(37.5)  # the chord through a corner, at a right angle to the diagonal


def test_spacing_is_applied_along_each_axis():
    assert measure_diameters(box(6, 4, 1), (0.5, 1, 7)).longest == pytest.approx(5)


def test_single_voxel_has_the_diagonal_of_its_pixel():
    found = measure_diameters(box(1, 1, 1), (1, 1, 1))
    assert found.longest == pytest.approx(np.sqrt(2))
    assert found.perpendicular == pytest.approx(np.sqrt(2))


@pytest.mark.parametrize("hole", [-1.0, 14.0])
def test_a_ring_is_as_wide_as_the_disc(hole):
    found = measure_diameters(disc(20, hole), (1, 1, 1))
    assert found.longest == pytest.approx(40, abs=1.5)
    assert found.perpendicular == pytest.approx(found.longest, abs=1)


def test_the_slice_with_the_longest_diameter_counts():
    mask = box(3, 3, 5)
    mask[2:12, 2:4, 4] = mask[2:6, 2:6, 6] = True
    mask = np.pad(mask, ((0, 6), (0, 2), (0, 0)))
    assert measure_diameters(mask, (1, 1, 1)).slice == 4


def test_the_lines_have_their_lengths_and_cross_at_right_angles():
    found = measure_diameters(disc(9) | np.roll(disc(6), 9, axis=0), (1.5, 1, 1))
    one, other = found.ends, found.perpendicular_ends
    assert np.linalg.norm(one[1] - one[0]) == pytest.approx(found.longest)
    assert np.linalg.norm(other[1] - other[0]) == pytest.approx(found.perpendicular)
    assert np.dot(one[1] - one[0], other[1] - other[0]) == pytest.approx(0, abs=1e-9)


def test_no_perpendicular_chord_is_longer():
    rng = np.random.default_rng(0)
    mask = np.zeros((30, 30, 1), bool)
    mask[tuple(rng.integers(5, 25, (2, 40)))] = True
    found = measure_diameters(mask, (1, 1, 1))
    corners = (
        np.argwhere(mask[..., 0])[:, None] + np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]])
    ).reshape(-1, 2)
    along = (found.ends[1] - found.ends[0]) / found.longest
    width = np.ptp(corners @ np.array([-along[1], along[0]]))
    assert 0.5 * width <= found.perpendicular <= width + 1e-9
    assert found.longest == pytest.approx(max(np.linalg.norm(a - corners, axis=1).max() for a in corners))
