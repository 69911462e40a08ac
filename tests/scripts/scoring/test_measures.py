"""Measures of masks of known size and place."""

import nibabel as nib
import numpy as np
import pytest

from scripts.scoring.measures import (
    Midline,
    find_border_positions,
    find_midline,
    measure_lesions_of,
    measure_volume_and_surface,
    oblique_by,
    turn_to_patient,
)

SHAPE = (80, 96, 72)
GRID = np.indices(SHAPE).astype(float)


def ball(centre, radius: float, spacing=(1.0, 1.0, 1.0)) -> np.ndarray:
    away = [(axis - middle) * step for axis, middle, step in zip(GRID, centre, spacing, strict=True)]
    return np.sqrt(sum(np.square(one) for one in away)) <= radius


def turned(degrees: float) -> np.ndarray:
    """An affine whose second and third axes are turned about the first."""
    angle = np.radians(degrees)
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return nib.affines.from_matvec(rotation, [-40, -40, -30])


BRAIN = ((GRID[0] - 40) / 34) ** 2 + ((GRID[1] - 48) / 42) ** 2 + ((GRID[2] - 36) / 30) ** 2 <= 1


def lesion_at(mask: np.ndarray, affine: np.ndarray | None = None) -> dict:
    affine = np.eye(4) if affine is None else affine
    (found,) = measure_lesions_of(mask, affine, find_border_positions(BRAIN, affine), find_midline(BRAIN, affine))
    return found


def test_cuboid_has_its_volume_and_about_its_surface():
    mask = np.zeros((30, 30, 30), bool)
    mask[5:25, 5:15, 5:10] = True
    found = measure_volume_and_surface(mask, (1, 2, 3))
    assert found["volume_ml"] == 6.0
    assert found["surface_cm2"] == pytest.approx(20.0, rel=0.08)  # 2 (20 x 20 + 20 x 15 + 20 x 15) mm², edges cut off


def test_ball_has_about_its_surface():
    found = measure_volume_and_surface(ball((40, 48, 36), 20), (1, 1, 1))
    assert found["volume_ml"] == pytest.approx(33.51, rel=0.01)
    assert found["surface_cm2"] == pytest.approx(50.27, rel=0.1)


def test_empty_region_has_no_volume_surface_or_lesion():
    empty = np.zeros((8, 8, 8), bool)
    assert measure_volume_and_surface(empty, (1, 1, 1)) == {"volume_ml": 0.0, "surface_cm2": 0.0}
    assert measure_lesions_of(empty, np.eye(4), None, None) == []


def test_lesions_are_listed_by_size_with_their_centres():
    found = measure_lesions_of(ball((20, 30, 30), 4) | ball((60, 60, 40), 8), np.eye(4), None, None)
    assert [lesion["centre"] for lesion in found] == [[60.0, 60.0, 40.0], [20.0, 30.0, 30.0]]
    assert found[0]["diameter_mm"] == pytest.approx(16, abs=1.6)


@pytest.mark.parametrize(("x", "side", "distance"), [(60, "right", 15), (20, "left", 15), (41, "both", 0)])
def test_side_and_distance_to_the_midline(x, side, distance):
    found = lesion_at(ball((x, 48, 36), 5))
    assert found["side"] == side
    assert found["midline_mm"] == pytest.approx(distance, abs=0.3)


def test_the_midline_of_a_turned_head_turns_with_it():
    angle = np.radians(10)
    affine = nib.affines.from_matvec(
        np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    )
    midline = find_midline(BRAIN, affine)
    far = nib.affines.apply_affine(affine, [[60.0, 80.0, 36.0], [40.0, 80.0, 36.0], [40.0, 10.0, 36.0]])
    assert midline.distances(far) == pytest.approx([20, 0, 0], abs=0.5)


def test_distance_to_the_surface_of_the_brain():
    found = lesion_at(ball((40, 48, 36), 5))
    assert found["brain_surface_mm"] == pytest.approx(25, abs=1.1)  # the third half axis is 30
    assert lesion_at(BRAIN & ball((73, 48, 36), 4))["brain_surface_mm"] == 0.0


def test_ventricles_are_no_surface_of_the_brain():
    hollow = BRAIN & ~ball((40, 48, 36), 8)
    positions = find_border_positions(hollow, np.eye(4))
    assert np.abs(positions - [40, 48, 36]).max(axis=1).min() > 15


def test_unknown_brain_gives_no_position():
    (found,) = measure_lesions_of(ball((20, 30, 30), 4), np.eye(4), None, None)
    assert (found["side"], found["midline_mm"], found["brain_surface_mm"]) == (None, None, None)


@pytest.mark.parametrize("codes", ["LPS", "PIR", "SAL"])
def test_measures_do_not_depend_on_the_orientation_of_the_file(codes):
    mask, affine = ball((60, 30, 40), 7, (1, 1, 2)), np.diag([1.0, 1, 2, 1])
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    stored = nib.apply_orientation(mask, turn)
    of_file = affine @ nib.orientations.inv_ornt_aff(turn, mask.shape)
    back = turn_to_patient(stored, of_file)
    assert np.array_equal(back.voxels, mask)
    assert np.allclose(back.affine, affine)
    assert back.spacing == (1.0, 1.0, 2.0)


def test_diameters_of_an_oblique_scan_are_axial():
    """A rod along the patient's vertical axis, in a scan turned by 30 degrees, is as wide as a rod."""
    affine = turned(30)
    world = nib.affines.apply_affine(affine, np.moveaxis(GRID, 0, -1))
    rod = (np.hypot(world[..., 0] - 0, world[..., 1] - 5) <= 6) & (np.abs(world[..., 2] - 20) <= 18)
    assert oblique_by(affine) == pytest.approx(30)
    (found,) = measure_lesions_of(rod, affine, None, None)
    assert found["diameter_mm"] == pytest.approx(12, abs=2)  # 36 mm along the slices of the scan
    assert found["volume_ml"] == pytest.approx(np.pi * 36 * 36 / 1000, rel=0.05)
    ends = np.array(found["diameter_ends"])
    assert ends[0, 2] == pytest.approx(ends[1, 2])


def test_distances_of_a_midline_are_perpendicular_to_it():
    assert Midline(0, 1, 0).distances(np.array([[1.0, 0, 0]])) == pytest.approx([np.sqrt(0.5)])
