"""Metrics of the user's own are scored like the others, or refused by name."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from scripts.errors import InputError
from scripts.scoring.added_metrics import find_metrics, hash_metrics

MODULE = """
from scripts.scoring.added_metrics import define_metric

@define_metric("1 - |FN - FP| / (2 TP + FP + FN), in voxels", absent=1, one_empty=0)
def volumetric_similarity(truth, prediction, spacing):
    return 1 - abs(int(truth.sum()) - int(prediction.sum())) / (truth.sum() + prediction.sum())

@define_metric("text", absent=1, one_empty=0)
def words(truth, prediction, spacing):
    return "good"

@define_metric("another Dice", absent=1, one_empty=0)
def dice(truth, prediction, spacing):
    return 1

def unmarked(truth, prediction, spacing):
    return 1
"""
SQUARE = np.pad(np.ones((2, 2), bool), 1)
EMPTY = np.zeros_like(SQUARE)


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "own_metrics.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "own_metrics.py"
    sys.modules.pop("own_metrics", None)


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [(SQUARE, SQUARE[::-1], 1), (SQUARE, SQUARE & np.eye(4, dtype=bool), 2 / 3), (EMPTY, EMPTY, 1), (SQUARE, EMPTY, 0)],
)
def test_a_metric_is_computed_or_decided_for_empty_masks(truth, prediction, expected):
    (metric,) = find_metrics(["own_metrics.volumetric_similarity"])
    assert metric.name == "volumetric_similarity"
    assert metric.measure(truth, prediction, (1.0, 1.0)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("own_metrics.nothing", "metric own_metrics.nothing cannot be imported"),
        ("no_module.dice", "metric no_module.dice cannot be imported"),
        ("dice", "metric dice cannot be imported .* expected module.function"),
        ("own_metrics.unmarked", "is not marked: put @define_metric"),
        ("own_metrics.dice", "there is a metric 'dice' already"),
    ],
)
def test_a_metric_that_cannot_be_used_is_refused(name, expected):
    with pytest.raises(InputError, match=expected):
        find_metrics([name])


def test_a_metric_that_returns_no_number_is_refused():
    (metric,) = find_metrics(["own_metrics.words"])
    with pytest.raises(InputError, match="metric words returned 'good': expected a number"):
        metric.measure(SQUARE, SQUARE, (1.0, 1.0))


def test_a_changed_definition_has_another_hash(module):
    before = hash_metrics(["own_metrics.words"])
    module.write_text(MODULE.replace("good", "better"))
    assert hash_metrics(["own_metrics.words"]) != before
