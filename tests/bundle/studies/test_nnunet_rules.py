"""Tests of `bundle/studies/nnunet_rules.py` and `topology.py`: nnU-Net's plans for public data sets, to the digit."""

import math

import numpy as np
import pytest

from bundle.studies.nnunet_rules import (
    GB,
    Configuration,
    choose_spacing,
    plan_configuration,
    plan_low_resolution,
    planning_order,
    resampled_shape,
)
from bundle.studies.topology import shrinking_patches
from tests.made import refused

BRATS = (1, 1, 1), (140, 171, 137), 1251, 4
TWO_MM = (2, 2, 2), (70, 88, 69), 5, 4
HIPPOCAMPUS = (1, 1, 1), (36, 50, 35), 260, 3
PROSTATE = (3.6, 0.625, 0.625), (20, 320, 319), 32, 3
ACDC = (5, 1.5625, 1.5625), (18, 237, 208), 200, 4
LIVER = (1, 0.7676, 0.7676), (482, 512, 512), 131, 3
AMOS = (2, 0.7129, 0.7129), (237, 582, 582), 360, 16
THICK = (5, 0.9, 0.9), (28, 200, 170), 100, 4
VECTORS = [
    (BRATS, (128, 128, 128), 2),
    (TWO_MM, (80, 96, 80), 2),
    ((*TWO_MM[:2], 500, 4), (80, 96, 80), 8),
    (HIPPOCAMPUS, (40, 56, 40), 9),
    (PROSTATE, (20, 320, 256), 2),
    (ACDC, (20, 256, 224), 4),
    (LIVER, (128, 128, 128), 2),
    (AMOS, (64, 192, 160), 2),
    (THICK, (28, 224, 192), 3),
]
MEMORY = {  # GB asked for BraTS: patch and batch
    4: ((96, 128, 96), 2),
    6: ((128, 128, 112), 2),
    8: ((128, 128, 128), 2),
    11: ((128, 192, 128), 2),
    16: ((160, 192, 160), 2),
    24: ((160, 192, 160), 3),
    40: ((160, 192, 160), 5),
    80: ((160, 192, 160), 11),
}


def plan(cohort: tuple, gb: float = GB) -> Configuration:
    spacing, shape, cases, classes = cohort
    return plan_configuration(spacing, shape, math.prod(shape) * cases, classes, gb)


def low_resolution(cohort: tuple) -> tuple[Configuration | None, str]:
    cases, classes = cohort[2:]
    return plan_low_resolution(
        plan(cohort), lambda spacing, shape: plan_configuration(spacing, shape, math.prod(shape) * cases, classes)
    )


def digits(strides: tuple[tuple[int, ...], ...]) -> str:
    return " ".join("".join(map(str, stride)) for stride in strides)


@pytest.mark.parametrize(("cohort", "patch", "batch"), VECTORS)
def test_patch_and_batch_of_public_data_sets(cohort, patch, batch):
    found = plan(cohort)
    assert (found.topology.patch, found.batch) == (patch, batch)


@pytest.mark.parametrize(("gb", "expected"), MEMORY.items())
def test_more_memory_gives_a_larger_patch_then_batch(gb, expected):
    found = plan(BRATS, gb)
    assert (found.topology.patch, found.batch) == expected


@pytest.mark.parametrize(
    ("cohort", "gb", "levels"), [(BRATS, GB, 6), (BRATS, 4, 5), (TWO_MM, GB, 5), (HIPPOCAMPUS, GB, 4)]
)
def test_levels_follow_from_the_patch(cohort, gb, levels):
    assert len(plan(cohort, gb).topology.strides) == levels


def test_thick_slices_join_pooling_and_kernels_later():
    prostate, thick = plan(PROSTATE).topology, plan(THICK).topology
    assert digits(prostate.strides) == "111 122 122 222 222 122 122"
    assert digits(prostate.kernels) == "133 133 333 333 333 333 333"
    assert digits(thick.strides) == "111 122 122 222 222 122"


def test_slices_of_the_hippocampus_have_the_stated_batch():
    shape, cases = HIPPOCAMPUS[1:3]
    assert plan_configuration((1, 1), shape[1:], math.prod(shape) * cases, 3).batch == 366


@pytest.mark.parametrize("cohort", [BRATS, TWO_MM, HIPPOCAMPUS, PROSTATE, ACDC, THICK])
def test_no_low_resolution_where_a_patch_covers_a_quarter(cohort):
    found, reason = low_resolution(cohort)
    assert found is None
    assert "of a median scan" in reason


@pytest.mark.parametrize(
    ("cohort", "spacing", "shape", "patch"),
    [(LIVER, (2.5, 1.919, 1.919), (193, 205, 205), (128, 128, 128)), (AMOS, (3.405, 1.73, 1.73), None, (80, 160, 160))],
)
def test_low_resolution_of_large_scans(cohort, spacing, shape, patch):
    found, _ = low_resolution(cohort)
    assert found is not None
    assert np.allclose(found.spacing, spacing, atol=6e-4)
    assert shape is None or found.shape == shape
    assert (found.topology.patch, found.batch) == (patch, 2)


def test_search_for_low_resolution_ends_for_one_slice():
    found, reason = low_resolution(((1, 1, 1), (1, 4000, 4000), 20, 2))
    assert found is None
    assert "an axis of 1 voxels cannot be made shorter" in reason


def test_patch_may_exceed_the_scan_by_padding():
    assert plan(HIPPOCAMPUS).topology.patch > HIPPOCAMPUS[1]


@pytest.mark.parametrize("cohort", [BRATS, PROSTATE, ACDC, AMOS, THICK])
def test_every_patch_is_a_multiple_of_its_strides(cohort):
    for topology in shrinking_patches(*cohort[:2]):
        assert all(length % step == 0 for length, step in zip(topology.patch, topology.divisor, strict=True))
        assert topology.divisor == tuple(math.prod(axis) for axis in zip(*topology.strides, strict=True))


def test_batch_is_at_most_a_share_of_the_cohort():
    assert plan(TWO_MM).capped
    assert not plan((*TWO_MM[:2], 500, 4)).capped


def test_thick_slices_take_the_tenth_percentile():
    spacings = np.array([[0.9, 0.9, z] for z in (2, 4, 5, 5, 5, 6, 6, 6, 6, 6)])
    shapes = np.array([[170, 200, 28]] * 10)
    target, axis = choose_spacing(spacings, shapes)
    assert axis == 2
    assert target.tolist() == [0.9, 0.9, np.percentile(spacings[:, 2], 10)]


def test_thin_slices_take_the_median():
    target, axis = choose_spacing(np.array([[0.9, 0.9, 1.0]] * 3 + [[0.9, 0.9, 9.0]]), np.array([[200, 200, 150]] * 4))
    assert (target.tolist(), axis) == ([0.9, 0.9, 1.0], None)


def test_thick_spacing_is_never_below_the_others():
    spacings = np.array([[1.0, 1.0, z] for z in (0.5, 0.5, 5, 5, 5)])
    target, _ = choose_spacing(spacings, np.array([[200, 200, 20]] * 5))
    assert target[2] == pytest.approx(1 + 1e-5, abs=1e-9)


def test_corrupt_spacing_of_one_scan_moves_nothing():
    target, _ = choose_spacing(np.array([[1.0, 1.0, 1.0]] * 4 + [[1.0, 1.0, 1000.0]]), np.array([[140, 171, 137]] * 5))
    assert target.tolist() == [1.0, 1.0, 1.0]


def test_axes_are_planned_from_the_coarsest_then_backwards():
    assert planning_order((0.625, 0.625, 3.6)) == [2, 1, 0]
    assert planning_order((3.0, 1.0, 1.0)) == [0, 2, 1]
    assert planning_order((1.0, 1.0, 1.0)) == [2, 1, 0]


def test_median_shape_is_that_of_resampled_scans():
    spacings, shapes = np.array([[1.0, 1.0], [2.0, 2.0], [1.0, 1.0]]), np.array([[100, 80], [60, 50], [90, 70]])
    assert resampled_shape(spacings, shapes, [1.0, 1.0]) == (100, 80)


def test_too_little_memory_is_refused_in_a_sentence():
    assert refused(plan, BRATS, 1e-9) == "--gpu_gb is 1e-09: no patch is small enough for that; give more memory."
