"""Scores of cell boundaries, compared with values calculated by hand."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.metrics import adapted_rand_error

from scripts.scoring.cell_boundaries import enclosed_segments, measure_cells, segment_metrics, thin_boundary
from scripts.scoring.metrics import BOUNDARY_METRICS


def numbers(*runs) -> np.ndarray:
    """A row of pixels, each run (number, length)."""
    return np.concatenate([np.full(length, number) for number, length in runs])


def grid(size=41, step=10) -> np.ndarray:
    """Membranes of one pixel around square cells."""
    mask = np.zeros((size, size), dtype=bool)
    mask[::step] = mask[:, ::step] = True
    return mask


def test_two_cells_run_together_score_as_worked_by_hand():
    found = segment_metrics(numbers((1, 4), (2, 4)), numbers((1, 8)))
    assert found["rand_split"] == 1
    assert found["rand_merge"] == pytest.approx(12 / 28)  # of C(8, 2) pairs predicted as one, 2 C(4, 2) are
    assert found["rand_f"] == pytest.approx(12 / 20)
    assert (found["information_split"], found["information_merge"], found["information_f"]) == (1, 0, 0)


def test_a_cell_cut_in_two_scores_as_worked_by_hand():
    found = segment_metrics(numbers((1, 4), (2, 4)), numbers((1, 4), (2, 2), (3, 2)))
    assert found["rand_merge"] == 1
    assert found["rand_split"] == pytest.approx(8 / 12)
    assert found["rand_f"] == pytest.approx(8 / 10)
    # the truth holds 1 bit, the prediction 1.5, and they share 1
    assert found["information_split"] == pytest.approx(1 / 1.5)
    assert found["information_merge"] == pytest.approx(1)
    assert found["information_f"] == pytest.approx(2 / 2.5)


def test_each_predicted_line_pixel_inside_a_cell_is_a_segment():
    found = segment_metrics(numbers((1, 6)), numbers((1, 2), (0, 2), (2, 2)))
    assert found["rand_split"] == pytest.approx(2 / 15)  # two pairs of C(6, 2); the pixels of the line make none
    assert found["rand_merge"] == 1


def test_predictions_on_the_true_membrane_do_not_count():
    truth = numbers((1, 4), (0, 3), (2, 4))
    expected = segment_metrics(truth, numbers((1, 4), (0, 3), (2, 4)))
    assert expected == dict.fromkeys(BOUNDARY_METRICS, 1.0)
    for line in ((1, 3), (2, 3), (7, 3)):
        assert segment_metrics(truth, numbers((1, 4), line, (2, 4))) == expected


def by_counting(truth, prediction) -> dict:
    """The definitions, pair by pair and pixel by pixel."""
    inside = [
        (int(t), int(p) or f"line {k}") for k, (t, p) in enumerate(zip(truth.flat, prediction.flat, strict=True)) if t
    ]
    together = Counter()
    for (t, p), (u, q) in itertools.combinations(inside, 2):
        together["truth"] += t == u
        together["prediction"] += p == q
        together["both"] += t == u and p == q

    def bits(labels) -> float:
        return -sum(n / len(inside) * math.log2(n / len(inside)) for n in Counter(labels).values())

    of_truth, of_prediction = bits(t for t, _ in inside), bits(p for _, p in inside)
    shared = of_truth + of_prediction - bits(inside)
    return {
        "rand_f": 2 * together["both"] / (together["truth"] + together["prediction"]),
        "rand_split": together["both"] / together["truth"],
        "rand_merge": together["both"] / together["prediction"],
        "information_f": 2 * shared / (of_truth + of_prediction),
        "information_split": shared / of_prediction,
        "information_merge": shared / of_truth,
    }


@pytest.mark.parametrize("seed", range(3))
def test_the_scores_are_those_of_counting_every_pair_of_pixels(seed):
    rng = np.random.default_rng(seed)
    truth, prediction = rng.integers(0, 4, (7, 9)), rng.integers(0, 5, (7, 9))
    assert segment_metrics(truth, prediction) == pytest.approx(by_counting(truth, prediction))


def test_numbering_of_segments_has_no_effect():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 6, (30, 30)), rng.integers(0, 8, (30, 30))
    expected = segment_metrics(truth, prediction)
    for _ in range(3):
        renamed = [np.concatenate([[0], 1 + rng.permutation(most)])[a] for a, most in ((truth, 5), (prediction, 7))]
        assert segment_metrics(*renamed) == pytest.approx(expected)


def test_the_rand_score_is_that_of_scikit_image():
    rng = np.random.default_rng(1)
    truth, prediction = rng.integers(0, 5, (20, 20)), rng.integers(1, 5, (20, 20))
    assert segment_metrics(truth, prediction)["rand_f"] == pytest.approx(1 - adapted_rand_error(truth, prediction)[0])


def test_cells_that_touch_at_a_corner_are_two():
    boundary = np.array([[False, True], [True, False]])
    assert enclosed_segments(boundary).max() == 2


def test_thick_membrane_is_correct_but_a_hole_is_an_error():
    truth = grid()
    assert measure_cells(truth, truth) == pytest.approx(dict.fromkeys(BOUNDARY_METRICS, 1.0))
    thick = ndimage.binary_dilation(truth, np.ones((3, 3)))
    assert min(measure_cells(truth, thick).values()) > 0.97
    assert segment_metrics(enclosed_segments(truth), enclosed_segments(thick))["rand_f"] < 0.75  # without thinning
    hole = truth.copy()
    hole[10, 5] = hole[20, 15] = False
    found = measure_cells(truth, hole)
    assert (found["rand_split"], found["information_split"]) == pytest.approx((1, 1))
    assert found["rand_merge"] < 0.9
    assert found["information_merge"] < 0.95


def test_thinning_leaves_a_line_of_one_pixel_and_every_segment():
    thick = ndimage.binary_dilation(grid(), np.ones((5, 5)))
    line = thin_boundary(thick)
    assert set(np.unique(line)) == set(range(17))  # 16 cells
    between = line[2:39, 15]
    assert [len(list(run)) for value, run in itertools.groupby(between) if value == 0] == [1, 1, 1]


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        (np.zeros((5, 5), bool), np.zeros((5, 5), bool), 1.0),  # one cell, and found as one
        (np.ones((5, 5), bool), np.zeros((5, 5), bool), 1.0),  # no pixel of a cell to be scored on
        (np.zeros((5, 5), bool), np.ones((5, 5), bool), 0.0),  # nothing but membrane where one cell is
    ],
)
def test_image_without_cells_or_membranes_has_a_score(truth, prediction, expected):
    found = measure_cells(truth, prediction)
    assert set(found) == set(BOUNDARY_METRICS)
    assert found["rand_f"] == expected
    assert not any(math.isnan(value) for value in found.values())


def with_itself(truth, prediction) -> float:
    """The Rand score as the challenge has it: the two pixels of a pair are drawn with replacement."""
    true, predicted = truth[truth > 0], prediction[truth > 0]
    line = np.count_nonzero(predicted == 0)  # each pixel a segment of its own
    both = np.histogram2d(true, predicted, bins=[np.arange(most + 2) for most in (true.max(), predicted.max())])[0]
    together = (both[:, 1:] ** 2).sum() + line
    return 2 * together / ((both.sum(axis=1) ** 2).sum() + (both[:, 1:].sum(axis=0) ** 2).sum() + line)


def test_gaps_matter_more_than_thickness_on_real_sections(shared_data):
    folder = shared_data("isbi2012") / "train" / "label"
    for number in (24, 29):
        truth = np.asarray(Image.open(folder / f"{number}.png")) == 0
        thick = ndimage.binary_dilation(truth)
        gaps = truth & ~ndimage.binary_dilation(np.random.default_rng(number).random(truth.shape) < 5e-4, iterations=4)
        assert measure_cells(truth, truth)["rand_f"] == pytest.approx(1)
        assert measure_cells(truth, thick)["rand_f"] > 0.99
        assert segment_metrics(enclosed_segments(truth), enclosed_segments(thick))["rand_f"] < 0.97
        found = measure_cells(truth, gaps)
        assert found["rand_f"] == pytest.approx(with_itself(enclosed_segments(truth), thin_boundary(gaps)), abs=1e-4)
        assert found["rand_split"] > 0.99
        assert found["rand_merge"] < 0.97
        assert found["information_merge"] < 0.99
