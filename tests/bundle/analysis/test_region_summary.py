"""Summaries of a region count every case, failed ones too."""

from pathlib import Path

import numpy as np
import pytest

from bundle.analysis.evaluation import read_evaluation
from bundle.analysis.region_summary import summarise_regions
from bundle.analysis.strict_json import to_strict_json
from tests.made import cohort, failed, rows_of, write

TEN = [0.1, 0.45, 0.55, 0.62, 0.69, 0.75, 0.8, 0.85, 0.9, 0.95]


def regions_of(folder: Path, rows: list) -> dict:
    return to_strict_json(summarise_regions(read_evaluation(write(folder, rows))))


def test_failed_cases_pull_the_mean_down(tmp_path):
    dice = regions_of(tmp_path, [*cohort([0.8, 0.8, 0.8]), *failed("lost")])["WT"]["metrics"]["dice"]
    assert dice["cases"] == 4
    assert dice["mean"] == pytest.approx(0.6)
    assert dice["minimum"] == 0


def test_counts_are_of_cases_below_the_limits(tmp_path):
    rows = [*cohort(TEN), *rows_of("m", "WT", 0.0, note="missed"), *failed("lost")]
    region = regions_of(tmp_path, rows)["WT"]
    assert region["dice_below_0.5"] == 4
    assert region["dice_below_0.7"] == 7
    assert region["dice_zero"] == 2
    assert (region["missed"], region["failed"]) == (1, 1)


def test_missed_hallucinated_and_failed_regions_are_told_apart(tmp_path):
    rows = rows_of("a", "ET", 0, note="missed") + rows_of("b", "ET", 0, 0.0, note="hallucinated")
    rows += rows_of("c", "ET", 1, 0.0, note="absent") + rows_of("d", "ET", 0.6) + failed("e")
    region = regions_of(tmp_path, rows)["ET"]
    assert [region[n] for n in ("missed", "hallucinated", "absent", "failed")] == [1, 1, 1, 1]
    assert region["dice_without_absent"]["mean"] == pytest.approx(0.15)
    assert region["dice_without_absent"]["cases"] == 4


def test_missed_tumours_stay_in_the_distances(tmp_path):
    rows = cohort([0.9] * 4) + [r for k in range(3) for r in rows_of(f"m{k}", "WT", 0, note="missed")]
    hd95 = regions_of(tmp_path, rows)["WT"]["metrics"]["hd95"]
    assert hd95["infinite"] == 3
    assert hd95["mean"] is None
    assert hd95["median"] == pytest.approx(1.0)
    assert hd95["q3"] == "inf"


def test_volume_thirds_use_true_volumes_and_skip_absent_regions(tmp_path):
    truths = [5.0, 400.0, 10.0, 300.0, 20.0, 200.0]
    rows = cohort([0.3, 0.9, 0.4, 0.95, 0.7, 0.8], truths=truths) + rows_of("none", "WT", 1, 0.0, note="absent")
    thirds = regions_of(tmp_path, rows)["WT"]["thirds"]
    assert [(t["smallest"], t["largest"]) for t in thirds] == [(5, 10), (20, 200), (300, 400)]
    assert [t["dice_median"] for t in thirds] == pytest.approx([0.35, 0.75, 0.925])
    assert sum(t["cases"] for t in thirds) == 6


def test_the_volume_error_keeps_its_sign(tmp_path):
    rows = [r for k, e in enumerate([-4.0, -2.0, 0.0, 2.0]) for r in rows_of(f"c{k}", "WT", 0.8, volume_error=e)]
    agreement = regions_of(tmp_path, rows)["WT"]["agreement"]
    assert agreement["bias"] == -1
    spread = 1.96 * np.std([-4, -2, 0, 2], ddof=1)
    assert (agreement["low"], agreement["high"]) == pytest.approx((-1 - spread, -1 + spread))
    assert (agreement["too_small"], agreement["too_large"]) == (2, 1)


def test_lesions_are_counted_before_they_are_divided(tmp_path):
    rows = rows_of("a", "WT", 0.9, lesions_tp=9, lesions_fp=0, lesions_fn=1)
    rows += rows_of("b", "WT", 0.5, lesions_tp=0, lesions_fp=2, lesions_fn=1)
    lesions = regions_of(tmp_path, rows)["WT"]["lesions"]
    assert (lesions["found"], lesions["missed"], lesions["false"]) == (9, 2, 2)
    assert lesions["f1"] == pytest.approx(18 / 22)
