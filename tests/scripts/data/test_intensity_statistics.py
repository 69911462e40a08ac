"""Tests of `scripts/data/intensity_statistics.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.data import datalist, intensity_statistics, normalization
from scripts.data.intensity_statistics import compute_statistics, sample_voxels
from scripts.data.normalization import METHODS
from scripts.errors import InputError
from tests.made.normalization import normalized, settings_of, started


def measured(images, method: str) -> list[dict]:
    return compute_statistics([sample_voxels(image, 10**6, seed=0) for image in images], method)


def test_statistics_of_a_data_set_by_hand():
    images = [torch.tensor([[0.0, 0.0, 2.0, 4.0]]), torch.tensor([[0.0, 6.0, 8.0, 8.0]])]
    assert measured(images, "zscore_nonzero") == [{"method": "zscore_nonzero", "mean": 5.6, "std": 2.33238}]
    assert measured(images, "zscore") == [{"method": "zscore", "mean": 3.5, "std": 3.27872}]
    assert measured(images, "minmax") == [{"method": "minmax", "low": 0, "high": 8}]
    assert measured(images, "percentile") == [{"method": "percentile", "low": 2.04, "high": 8}]
    assert measured(images, "median_iqr") == [{"method": "median_iqr", "median": 6, "iqr": 4}]
    (levels,) = measured(images, "histogram")
    assert (levels["levels"][0], levels["levels"][32], levels["levels"][-1]) == (2, 6, 8)


@pytest.mark.parametrize("method", [method for method in METHODS if method not in normalization.NO_STATISTICS])
def test_dataset_scope_keeps_brightness_differences_between_cases(head, method):
    statistics = measured([head, 3 * head], method)
    dim, bright = (normalized(image, method, "dataset", statistics) for image in (head, 3 * head))
    if method in normalization.NONZERO_METHODS:
        assert dim[head == 0].unique().tolist() == bright[head == 0].unique().tolist() == [0]
    assert (bright[head != 0] >= dim[head != 0]).all()
    assert bright[head != 0].mean() > dim[head != 0].mean() + 0.2
    together = torch.cat([dim[0], bright[0]])
    together = together[torch.cat([head[0], head[0]]) != 0] if method in normalization.NONZERO_METHODS else together
    if method.startswith("zscore"):
        assert together.mean().item() == pytest.approx(0, abs=1e-3)
        assert together.std(correction=0).item() == pytest.approx(1, abs=1e-3)
    elif method == "median_iqr":
        quartiles = together.quantile(torch.tensor([0.25, 0.5, 0.75]))
        assert (quartiles[1].item(), (quartiles[2] - quartiles[0]).item()) == pytest.approx((0, 1.349), abs=1e-3)
    else:
        assert (together.min().item(), together.max().item()) == pytest.approx((0, 1), abs=1e-5)
    if method == "histogram":
        assert torch.allclose(together.quantile(torch.tensor([0.25, 0.75])), torch.tensor([0.25, 0.75]), atol=0.02)


def test_sampled_voxels_give_the_statistics_of_all(head):
    large = torch.cat([head] * 20, dim=1)
    (few, _), (every, _) = (
        compute_statistics([sample_voxels(large, most, 0)], "zscore_nonzero") for most in (5000, 10**9)
    )
    assert few["mean"] == pytest.approx(every["mean"], rel=0.05)
    assert few["std"] == pytest.approx(every["std"], rel=0.05)
    assert sample_voxels(large, 5000, 0).values.shape == (2, 5000)
    assert np.array_equal(sample_voxels(large, 5000, 0).values, sample_voxels(large, 5000, 0).values)
    assert sample_voxels(large, 10, 0).maximum.tolist() == large.amax((1, 2, 3)).tolist()


def test_statistics_of_other_channels_are_refused(head):
    with pytest.raises(InputError, match="are of 1 channels, but the image has 2"):
        normalized(head, "zscore", "dataset", measured([head[:1]], "zscore"))


def test_channel_empty_in_all_training_cases_is_refused(head):
    head[1] = 0
    with pytest.raises(InputError, match="channel 2 of the training cases is constant"):
        measured([head, head], "percentile")


def test_statistics_come_from_training_cases_and_are_in_run_settings(small_train, cohort):
    config = started(small_train(normalize="percentile", normalize_scope="dataset"))
    before = intensity_statistics.steps_before_normalization(config.get_parsed_content("preprocessing"))
    assert "Normalized" not in [type(step).__name__ for step in before.transforms]
    content = datalist.read_datalist(cohort.datalist)
    training, validation = (
        compute_statistics([sample_voxels(before(entry)["image"], 10**9, 0) for entry in entries], "percentile")
        for entries in (
            datalist.select_cases(content, cohort.dataset_dir, part, 0) for part in ("training", "validation")
        )
    )
    stored = settings_of(config)
    assert (stored["normalize"], stored["normalize_scope"]) == ("percentile", "dataset")
    assert stored["intensity_statistics"] == training  # all voxels, since these cases are small
    assert training != validation


def test_other_scopes_need_no_statistics(small_train):
    assert settings_of(started(small_train()))["intensity_statistics"] is None
    config = small_train(normalize="clahe", normalize_scope="slice", run_dir="unused")
    assert intensity_statistics.measure_statistics(config.get_parsed_content("preprocessing"), [], once=None) is None
