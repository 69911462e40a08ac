"""Scores against several raters next to the raters' own agreement."""

import pandas as pd
import pytest

from bundle.analysis.rater_scores import compare_with_raters
from bundle.reporting.agreement_sentences import score_verdicts
from scripts.scoring.raters import RATER_COLUMNS


def write(folder, *rows: tuple) -> None:
    """Rows of (case, patient, rater, compared, Dice)."""
    table = [[case, patient, "WT", "dice", dice, "", "", rater, other] for case, patient, rater, other, dice in rows]
    pd.DataFrame(table, columns=RATER_COLUMNS).to_csv(folder / "raters.csv", index=False)


def three_raters(case: str, patient: str, model: float, between: float) -> list[tuple]:
    names = ("anna", "ben", "carla")
    pairs = [("anna", "ben"), ("anna", "carla"), ("ben", "carla")]
    return [(case, patient, name, "model", model) for name in names] + [(case, patient, *p, between) for p in pairs]


def test_model_is_compared_with_the_agreement_of_raters(tmp_path):
    write(tmp_path, *three_raters("a", "a", 0.7, 0.8), *three_raters("b", "b", 0.5, 0.6))
    found = compare_with_raters(tmp_path)["WT"]["dice"]
    assert (found["model"], found["raters"], found["images"]) == (pytest.approx(0.6), pytest.approx(0.7), 2)
    assert found["place"] == "below"
    assert score_verdicts({"WT": {"dice": found}}) == [
        "WT: Dice 0.600 against the raters, 0.700 between raters (difference \u22120.100, 2 patients; below the raters'"
        " own range)."
    ]


def test_cases_of_one_patient_count_once(tmp_path):
    write(
        tmp_path,
        *three_raters("a1", "a", 0.2, 0.8),
        *three_raters("a2", "a", 0.4, 0.8),
        *three_raters("b", "b", 0.9, 0.8),
    )
    found = compare_with_raters(tmp_path)["WT"]["dice"]
    assert (found["images"], found["model"]) == (2, pytest.approx(0.6))


def test_patients_of_a_single_rater_cannot_be_compared(tmp_path):
    write(tmp_path, ("a", "a", "anna", "model", 0.7))
    assert score_verdicts(compare_with_raters(tmp_path)) == [
        "WT: no patient has the model's mask and those of two raters, so they cannot be compared."
    ]


def test_one_label_per_case_has_no_such_comparison(tmp_path):
    assert compare_with_raters(tmp_path) is None
    assert score_verdicts(None) == []


def test_failed_cases_count_as_empty_masks(tmp_path):
    write(
        tmp_path,
        *three_raters("a", "a", 0.9, 0.8),
        *[row for row in three_raters("b", "b", 0, 0.8) if row[3] != "model"],
    )
    table = pd.read_csv(tmp_path / "raters.csv", keep_default_na=False)
    failed = [["b", "b", "all", "failed", 1.0, "", "no prediction", name, "model"] for name in ("anna", "ben", "carla")]
    pd.concat([table, pd.DataFrame(failed, columns=RATER_COLUMNS)]).to_csv(tmp_path / "raters.csv", index=False)
    found = compare_with_raters(tmp_path)["WT"]["dice"]
    assert (found["images"], found["model"], found["place"]) == (2, pytest.approx(0.45), "below")
