"""HD95 by area equals that of DeepMind's surface-distance, which BraTS 2023 reports."""

import numpy as np
import pytest
from monai.metrics.utils import get_code_to_measure_table
from scipy import ndimage

from scripts.scoring.surfaces import CORNERS, areas_by_code, hd95_by_area


def ball(shape, centre, radius) -> np.ndarray:
    return sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), centre, strict=True)) <= radius**2


A = ball((30, 30, 30), (15, 15, 15), 8)
B = ball((30, 30, 30), (15, 15, 18), 8)
C = ball((30, 30, 30), (14, 16, 15), 6)
FALSE = A.copy()
FALSE[1:7, 1:7, 1:7] = True

# compute_robust_hausdorff(compute_surface_distances(a, b, spacing), 95) of surface-distance 0.1
RECORDED = [
    (A, B, (1, 1, 1), 2.8284271247461903),
    (A, B, (1, 1, 5), 6.557438524302),
    (A, B, (0.8, 1.5, 3), 6.0),
    (A, C, (1, 1, 1), 3.0),
    (A, C, (1, 1, 5), 5.477225575051661),
    (A, C, (0.8, 1.5, 3), 4.5),
    (A, FALSE, (1, 1, 1), 13.30413469565007),
    (ball((30, 30), (15, 15), 8), ball((30, 30), (14, 17), 6), (1, 1), 4.123105625617661),
    (ball((30, 30), (15, 15), 8), ball((30, 30), (14, 17), 6), (0.5, 2), 6.082762530298219),
]


@pytest.mark.parametrize(("a", "b", "spacing", "expected"), RECORDED)
def test_the_distance_is_the_recorded_one_of_surface_distance(a, b, spacing, expected):
    assert hd95_by_area(a, b, spacing) == pytest.approx(expected, rel=1e-9)
    assert hd95_by_area(b, a, spacing) == pytest.approx(expected, rel=1e-9)


@pytest.mark.filterwarnings("ignore:Please import")  # it calls scipy by old names
@pytest.mark.parametrize("seed", range(5))
def test_the_distance_is_that_of_surface_distance_on_random_lesions(seed):
    oracle = pytest.importorskip("surface_distance", reason="surface-distance is not installed")
    rng = np.random.default_rng(seed)
    spacing = tuple(rng.choice([0.5, 1.0, 1.2, 5.0], size=3))
    noise = ndimage.gaussian_filter(rng.normal(size=(2, 25, 24, 20)), (0, 2, 2, 2))
    a, b = noise[0] > 0.05, noise[0] + 0.5 * noise[1] > 0.06
    distances = oracle.compute_surface_distances(a, b, spacing)
    assert hd95_by_area(a, b, spacing) == pytest.approx(oracle.compute_robust_hausdorff(distances, 95))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 5.0), (0.9, 2.3, 0.4)])
def test_each_of_256_neighbourhoods_has_the_area_of_marching_cubes(spacing):
    table, kernel = (tensor.numpy() for tensor in get_code_to_measure_table(spacing))
    kernel = kernel.reshape(2, 2, 2).astype(int)
    ours = areas_by_code(spacing)
    for code in range(256):  # MONAI numbers the corners in another order
        assert ours[CORNERS[(kernel & code) > 0].sum()] == pytest.approx(table[code], abs=1e-5), code


def test_surface_of_a_picture_is_the_length_of_its_contour():
    table, kernel = (tensor.numpy() for tensor in get_code_to_measure_table((1.3, 0.4)))
    kernel = kernel.reshape(2, 2).astype(int)
    for code in range(16):
        inside = np.repeat(((kernel & code) > 0)[..., None], 2, axis=2)
        assert areas_by_code((1.3, 0.4))[CORNERS[inside].sum()] == pytest.approx(table[code], abs=1e-6), code
