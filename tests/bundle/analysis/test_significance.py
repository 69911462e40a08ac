"""Paired tests and rankings of few patients and of empty masks."""

import numpy as np
import pytest
from scipy import stats

from bundle.analysis.significance import (
    can_reach_significance,
    correct_by_holm,
    detectable_difference,
    paired_test,
    rank_systems,
    subtract_scores,
)

INF = float("inf")
RNG = np.random.default_rng(4)
DICES = RNG.beta(6, 2, 40)


def test_a_known_shift_is_found_and_its_intervals_cover_it():
    other = DICES + RNG.normal(-0.05, 0.03, 40)
    result = paired_test(subtract_scores(DICES, other))
    for low, high in (result.mean_interval, result.median_interval):
        assert low < 0.05 < high
        assert low > 0
    assert result.p < 1e-6


def test_intervals_cover_the_true_difference_at_their_nominal_rate():
    rng = np.random.default_rng(5)
    held = [
        low < 0.02 < high for low, high in (paired_test(rng.normal(0.02, 0.05, 40)).mean_interval for _ in range(100))
    ]
    assert 0.89 <= np.mean(held) <= 0.99


def test_the_p_value_is_scipys_with_pratts_zeros():
    other = np.where(np.arange(40) % 4 == 0, DICES, DICES + RNG.normal(0.01, 0.05, 40))
    expected = stats.wilcoxon(DICES - other, zero_method="pratt").pvalue
    assert paired_test(subtract_scores(DICES, other)).p == pytest.approx(expected)


def test_two_empty_masks_tie_and_one_is_the_largest_difference():
    result = paired_test(subtract_scores([INF, 5.0, 5.0, 4.0, 3.0], [INF, INF, 6.0, 5.0, 4.0]))
    assert (result.higher, result.equal, result.lower) == (0, 1, 4)
    assert (result.mean, result.mean_interval, result.median) == (None, None, -1)
    assert np.isfinite(result.p)


def test_newly_empty_masks_are_an_infinite_difference():
    result = paired_test(subtract_scores([INF] * 6, [1.0, 2, 3, 4, 5, 6]))
    assert result.median == INF
    assert result.p < 0.05


def test_size_of_an_infinite_distance_does_not_affect_the_test():
    far = subtract_scores([INF, 2, 3, 4, 5, 6, 7], [1, 1, 1, 1, 1, 1, 9])
    large = np.where(np.isinf(far), 1e6, far)
    assert paired_test(far).p == paired_test(large).p


def test_the_same_masks_twice_are_no_difference():
    result = paired_test(subtract_scores(DICES, DICES))
    assert (result.p, result.mean, result.mean_interval, result.median_interval) == (1.0, 0.0, None, None)


def test_the_last_bit_of_a_float_is_a_tie():
    assert (np.diff(subtract_scores([0.8, 0.7, 0.3], [0.7, 0.6, 0.2])) == 0).all()


def test_detectable_difference_is_detected_in_four_of_five_studies():
    rng = np.random.default_rng(2)
    least = np.mean([detectable_difference(rng.normal(0, 0.05, 20)) for _ in range(200)])
    shown = [stats.wilcoxon(rng.normal(least, 0.05, 20)).pvalue < 0.05 for _ in range(1000)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.06)


def test_more_tests_require_a_larger_difference():
    assert detectable_difference(DICES - 0.7, tests=9) > detectable_difference(DICES - 0.7) > 0
    assert detectable_difference([0.1, INF, 0.2, 0.1, 0.3, 0.2]) is None


def test_five_patients_can_show_nothing_and_six_just_about():
    assert not can_reach_significance(5)
    assert can_reach_significance(6)
    assert stats.wilcoxon(np.arange(1, 6)).pvalue == 2 / 2**5
    assert not can_reach_significance(6, tests=2)
    assert detectable_difference([0.1, 0.2, 0.3, 0.2, 0.1]) is None


def test_clear_order_is_stable_in_every_draw_unlike_chance():
    clear = rank_systems(np.tile([1.0, 2.0, 3.0], (12, 1)))
    assert clear.mean_ranks == [1, 2, 3]
    assert clear.holds == 1
    assert clear.places == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    turns = np.array([[1.0, 2, 3], [2, 1, 3]] * 6 + [[1, 2, 3]])
    tossed = rank_systems(turns)
    assert 0.4 < tossed.holds < 0.8
    assert tossed.places[2] == [0, 0, 1]
    assert tossed.places[0][0] + tossed.places[0][1] == pytest.approx(1)


def test_equal_systems_share_the_first_place_in_every_draw():
    found = rank_systems(np.full((8, 2), 1.5))
    assert found.holds == 1
    assert found.places == [[1, 0], [1, 0]]


def test_four_patients_give_no_stability_of_an_order():
    assert rank_systems(np.tile([1.0, 2.0], (4, 1))).holds is None


def test_holm_corrects_as_in_his_paper():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 are 0.02, 0.03, 0.06, 0.04, and none may lie below its predecessor
    assert correct_by_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_by_holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert correct_by_holm([0.9, 0.6]) == pytest.approx([1.0, 1.0])
    assert correct_by_holm([]) == []
