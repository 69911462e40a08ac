"""Quantiles and intervals of few patients and of empty masks."""

import numpy as np
import pytest
from scipy import stats

from bundle.analysis.statistics import describe_spread, mean_interval, median_interval, quantiles, share_interval

INF = float("inf")
RNG = np.random.default_rng(3)
DICES = RNG.beta(6, 2, 40)
EACH = [f"p{k:02d}" for k in range(40)]


def test_mean_interval_equals_scipy_bca_for_one_case_per_patient():
    expected = stats.bootstrap((DICES,), np.mean, method="BCa", n_resamples=9999, rng=np.random.default_rng(0))
    interval = mean_interval(DICES, EACH)
    assert interval == pytest.approx(tuple(expected.confidence_interval), abs=1e-3)


def test_scans_of_the_same_patients_do_not_narrow_the_interval():
    twice = np.repeat(DICES, 3)
    low, high = mean_interval(twice, np.repeat(EACH, 3))
    assert high - low == pytest.approx(np.subtract(*mean_interval(DICES, EACH)[::-1]), rel=0.02)
    naive_low, naive_high = mean_interval(twice, [f"{k}" for k in range(len(twice))])
    assert naive_high - naive_low < 0.7 * (high - low)


def test_patients_with_different_numbers_of_scans_weigh_by_their_scans():
    values, patients = [0.9] * 5 + [0.1, 0.2, 0.8, 0.7, 0.6], ["a"] * 5 + list("bcdef")
    low, high = mean_interval(values, patients)
    assert low < np.mean(values) < high


def test_the_same_table_gives_the_same_interval():
    assert mean_interval(DICES, EACH) == mean_interval(DICES, EACH)
    assert median_interval(DICES, EACH) == median_interval(DICES, EACH)


def test_the_order_of_the_rows_does_not_matter():
    order = RNG.permutation(40)
    assert median_interval(DICES[order], np.array(EACH)[order]) == median_interval(DICES, EACH)


@pytest.mark.parametrize("values", [[0.8] * 12, [1.0] * 12])
def test_equal_values_get_no_interval_instead_of_zero_width(values):
    assert mean_interval(values, EACH[:12]) is None
    assert median_interval(values, EACH[:12]) is None


def test_four_patients_get_no_interval():
    assert mean_interval(DICES[:4], EACH[:4]) is None
    assert mean_interval(DICES[:5], EACH[:5]) is not None


def test_a_mean_of_infinite_distances_has_no_interval():
    assert mean_interval([1, 2, 3, 4, 5, INF], EACH[:6]) is None


def test_median_distance_keeps_its_interval_when_masks_are_empty():
    low, high = median_interval([1, 2, 3, 4, 5, 6, 7, INF, INF, INF, INF], EACH[:11])
    assert low >= 1
    assert high == INF


def test_quantiles_next_to_inf_are_inf_and_never_nan():
    assert quantiles([1, 2, INF, INF], [0.0, 0.25, 0.5, 1.0]) == pytest.approx([1, 1.75, INF, INF])
    assert quantiles([INF, INF, INF], [0.25, 0.5]) == [INF, INF]
    assert quantiles([-3, 0, 4], [0.5]) == [0]


def test_a_spread_counts_infinite_values_and_keeps_its_quantiles():
    found = describe_spread([1, 2, 3, INF])
    assert (found["minimum"], found["q1"], found["median"], found["maximum"]) == pytest.approx((1, 1.75, 2.5, INF))
    assert found["infinite"] == 1


def test_no_values_have_no_quantiles():
    assert np.isnan(quantiles([], [0.5])).all()


def test_a_share_of_nothing_has_no_interval():
    assert share_interval(0, 0) is None
    low, high = share_interval(5, 5)
    assert high == 1
    assert low == pytest.approx(0.5655, abs=1e-3)  # Wilson, 1927
