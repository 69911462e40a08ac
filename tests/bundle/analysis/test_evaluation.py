"""Reading of evaluations, with every case that failed."""

import json

import numpy as np
import pytest

from bundle.analysis.evaluation import read_evaluation
from scripts.errors import InputError
from tests.made import INF, cohort, failed, rows_of, tenths, write


def test_failed_case_counts_as_an_empty_prediction_in_every_region(tmp_path):
    rows = rows_of("a", "WT", 0.9) + rows_of("a", "ET", 0.8) + failed("b", "wrong grid")
    evaluation = read_evaluation(write(tmp_path, rows))
    lost = evaluation.scores[evaluation.scores["case"] == "b"].set_index("region")
    assert list(lost.index) == ["WT", "ET"]
    assert lost["dice"].eq(0).all()
    assert lost["hd95"].eq(INF).all()
    assert lost["volume_truth"].isna().all()
    assert evaluation.failed == {"b": "wrong grid"}


def test_failed_case_lowers_boundary_metrics_only_where_they_were_measured(tmp_path):
    rows = [*rows_of("a", "membrane", 0.9), ["a", "a", "membrane", "rand_f", 0.8, "", ""], *failed("b")]
    assert list(read_evaluation(write(tmp_path / "cells", rows)).scores["rand_f"]) == [0.8, 0.0]
    assert "rand_f" not in read_evaluation(write(tmp_path / "tumour", rows_of("a", "WT", 0.9) + failed("b"))).scores


def test_missing_prediction_differs_from_a_broken_one(tmp_path):
    evaluation = read_evaluation(write(tmp_path, rows_of("a", "WT", 0.9) + failed("b") + failed("c", "wrong grid")))
    assert evaluation.missing == ["b"]
    assert list(evaluation.failed) == ["b", "c"]


def test_regions_keep_table_order_and_cases_are_sorted(tmp_path):
    rows = rows_of("b", "WT", 0.9) + rows_of("b", "ET", 0.7) + rows_of("a", "WT", 0.8) + rows_of("a", "ET", 0.6)
    evaluation = read_evaluation(write(tmp_path, rows))
    assert evaluation.regions == ("WT", "ET")
    assert list(zip(evaluation.scores["case"], evaluation.scores["region"], strict=True)) == [
        ("a", "WT"),
        ("a", "ET"),
        ("b", "WT"),
        ("b", "ET"),
    ]


def test_notes_and_infinite_distances_survive(tmp_path):
    evaluation = read_evaluation(write(tmp_path, rows_of("a", "ET", 0.0, note="missed") + rows_of("b", "ET", 0.8)))
    assert list(evaluation.rows_of("ET")["note"]) == ["missed", ""]
    assert list(np.isinf(evaluation.rows_of("ET")["hd95"])) == [True, False]


def test_a_table_with_dice_alone_can_be_read(tmp_path):
    rows = [row for row in cohort([0.8, 0.9]) if row[3] == "dice"]
    evaluation = read_evaluation(write(tmp_path, rows))
    assert evaluation.has("dice")
    assert not evaluation.has("hd95")


def test_units_come_from_the_table(tmp_path):
    rows = [[*row[:5], {"mm": "pixel", "ml": "pixel"}.get(row[5], ""), row[6]] for row in cohort([0.8, 0.9])]
    evaluation = read_evaluation(write(tmp_path, rows))
    assert (evaluation.length_unit, evaluation.volume_unit) == ("pixel", "pixel")
    assert (evaluation.units["hd95"], evaluation.units["volume_fp"], evaluation.units["dice"]) == ("pixel", "pixel", "")


def test_probabilities_are_read_by_case(tmp_path):
    rows = [*cohort([0.8, 0.9]), ["c00", "c00", "all", "ece", 0.03, "", ""], ["c01", "c01", "all", "ece", 0.05, "", ""]]
    assert list(read_evaluation(write(tmp_path, rows)).calibration["ece"]) == [0.03, 0.05]


def test_names_like_numbers_stay_names(tmp_path):
    assert set(read_evaluation(write(tmp_path, rows_of("007", "1", 0.9))).scores["case"]) == {"007"}


def test_nothing_is_assumed_without_a_record(tmp_path):
    assert read_evaluation(write(tmp_path, cohort([0.8]))).record == {}


def test_a_folder_that_was_never_scored_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no cases\.csv"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize(("text", "said"), [("{half", "is not JSON"), ("[1]", "is not a JSON object")])
def test_a_damaged_record_is_refused(tmp_path, text, said):
    write(tmp_path, cohort([0.8]))
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(InputError, match=said):
        read_evaluation(tmp_path)


def test_a_table_that_lost_its_last_cases_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has 1 cases, but evaluation\.json records 4"):
        read_evaluation(write(tmp_path, cohort([0.8]), cases=4))


def test_lesions_are_read_where_they_are(tmp_path):
    folder = write(tmp_path, cohort([0.8]))
    assert read_evaluation(folder).lesions is None
    (folder / "lesions.csv").write_text(
        "case,patient,region,lesion,volume,unit,detected,dice\n007,007,WT,1,0.5,ml,1,0.7\n"
    )
    lesions = read_evaluation(folder).lesions
    assert list(lesions["case"]) == ["007"]
    assert lesions["volume"].sum() == 0.5


@pytest.mark.parametrize(
    "text", ["case,patient,region\na,a,WT\n", "case,patient,region,volume,detected,dice\na,a,WT,big,1,1\n"]
)
def test_a_damaged_table_of_lesions_is_refused(tmp_path, text):
    folder = write(tmp_path, cohort([0.8]))
    (folder / "lesions.csv").write_text(text)
    with pytest.raises(InputError, match=r"lesions\.csv"):
        read_evaluation(folder)


def test_reliability_curve_is_read_and_empty_bins_stay_empty(tmp_path):
    folder = write(tmp_path, cohort([0.8]))
    assert read_evaluation(folder).reliability is None
    table = read_evaluation(
        tenths(folder, [["007", "007", "WT", 0.3, 0, None, None], ["007", "007", "WT", 0.9, 5, 0.95, 0.8]])
    )
    assert list(table.reliability["case"]) == ["007", "007"]
    assert list(table.reliability["frequency"].isna()) == [True, False]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["a", "a", "WT", 0.9, 5, 95, 0.8], "a value outside 0 to 1"),
        (["a", "a", "WT", 0.25, 5, 0.25, 0.8], "a value outside 0 to 1"),
        (["a", "a", "WT", 1.0, 5, 1.0, 0.8], "a value outside 0 to 1"),
        (["a", "a", "WT", 0.9, 5, 0.95, None], "a value outside 0 to 1"),
        (["a", "a", "WT", 0.1, 5, 0.15, 0.8], "twice"),
        (["a", "a", "WT", "x", 5, 0.15, 0.8], "cannot be read"),
    ],
)
def test_a_damaged_reliability_curve_is_refused(tmp_path, row, said):
    folder = tenths(write(tmp_path, cohort([0.8])), [["a", "a", "WT", 0.1, 5, 0.15, 0.8], row])
    with pytest.raises(InputError, match=said):
        read_evaluation(folder)


def test_slices_of_a_patient_are_read_as_a_volume_too(tmp_path):
    slices = rows_of("a-1", "WT", 0.9, patient="a") + rows_of("a-2", "WT", 0.1, patient="a")
    folder = write(tmp_path / "patients", rows_of("a", "WT", 0.8)) / "cases.csv"
    write(tmp_path, slices)
    folder.rename(tmp_path / "patients.csv")
    evaluation = read_evaluation(tmp_path)
    assert list(evaluation.scores["dice"]) == [0.9, 0.1]
    assert list(evaluation.volumes.scores["dice"]) == [0.8]


def test_volumes_that_all_failed_leave_the_slices_readable(tmp_path):
    write(tmp_path / "patients", failed("a", "slice 2: wrong grid")).joinpath("cases.csv").rename(
        tmp_path / "patients.csv"
    )
    assert read_evaluation(write(tmp_path, rows_of("a-1", "WT", 0.9, patient="a"))).volumes is None


def test_evaluation_is_read_as_it_was_written(tmp_path):
    scored = {"part": "test", "about": {"patients": {"training": ["c00"]}}}
    assert read_evaluation(write(tmp_path, cohort([0.8]), **scored)).record == json.loads(json.dumps(scored))
