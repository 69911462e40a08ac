"""Repeated measurements: displaced copies of a scan, and the smallest change that they do not explain."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bundle.followup.repeats import summarise_repeats, write_displaced
from scripts.data.images import read_image


def test_a_displaced_copy_has_the_same_grid_and_volume(tmp_path):
    grid = np.indices((40, 40, 40)) - 18.0
    ball = (np.linalg.norm(grid * 2.0, axis=0) < 20).astype(np.float32)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    (file,) = write_displaced([ball], affine, tmp_path, "repeat000")
    again = read_image(file)
    assert np.allclose(again.affine, affine)
    assert np.count_nonzero(again.voxels > 0.5) == pytest.approx(ball.sum(), rel=0.02)
    assert np.count_nonzero((again.voxels > 0.5) != (ball > 0)) > 100


def test_the_smallest_change_follows_from_the_ratios():
    found = summarise_repeats([{"WT": (10.0, 11.0), "ET": (0.0, 0.0)}, {"WT": (10.0, 10.0 / 1.1), "ET": (0.0, 0.0)}])
    limit = 1.1 ** stats.t.ppf(0.975, 2)
    assert (found["WT"]["pairs"], found["WT"]["lost"]) == (2, 0)
    assert found["WT"]["smallest_increase_percent"] == pytest.approx(100 * (limit - 1), abs=0.1)
    assert found["WT"]["smallest_decrease_percent"] == pytest.approx(100 * (1 / limit - 1), abs=0.1)
    assert (found["ET"]["pairs"], found["ET"]["smallest_increase_percent"]) == (0, None)


def test_a_region_that_vanished_when_turned_has_no_limit():
    (found,) = summarise_repeats([{"ET": pair} for pair in ((10.0, 10.2), (2.0, 0.0), (0.0, 3.0))]).values()
    assert (found["pairs"], found["lost"]) == (1, 2)
    assert found["smallest_increase_percent"] is found["smallest_decrease_percent"] is None


def test_without_repetitions_nothing_is_summarised():
    assert summarise_repeats([]) == {}
