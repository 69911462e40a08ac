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
    found = summarise_repeats([{"WT": (10.0, 11.0), "ET": (0.0, 1.0)}, {"WT": (10.0, 10.0 / 1.1), "ET": (0.0, 0.0)}])
    assert found["WT"]["pairs"] == 2
    assert found["WT"]["smallest_change_percent"] == pytest.approx(100 * (1.1 ** stats.t.ppf(0.975, 2) - 1), abs=0.1)
    assert found["ET"] == {"pairs": 0, "smallest_change_percent": None}


def test_without_repetitions_nothing_is_summarised():
    assert summarise_repeats([]) == {}
