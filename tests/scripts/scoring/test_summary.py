"""Every printed figure says what it counts."""

import pandas as pd
import pytest
from rich.console import Console

from scripts.scoring.cohort import COLUMNS
from scripts.scoring.summary import print_score_tables, rows_by_level, tabulate_regions


def rows(case, patient, dice, note="", metric="dice", region="tumour") -> list:
    return [case, patient, region, metric, dice, "", note]


@pytest.fixture
def slices() -> pd.DataFrame:
    """Two patients; three of five slices are empty, one of them predicted so."""
    dices = [("a_1", "a", 0.6, ""), ("a_2", "a", 1, "absent"), ("a_3", "a", 0, "hallucinated")]
    dices += [("b_1", "b", 1, "absent"), ("b_2", "b", 0.8, "")]
    return pd.DataFrame([rows(*dice) for dice in dices], columns=COLUMNS)


@pytest.fixture
def patients() -> pd.DataFrame:
    return pd.DataFrame([rows("a", "a", 0.5), rows("b", "b", 0.75)], columns=COLUMNS)


def test_figures_count_slices_with_and_without_empty_ones_and_patients(slices, patients):
    found = {title: tabulate_regions(frame).loc["tumour"] for title, frame in rows_by_level(slices, patients).items()}
    with_empty, without, by_patient = found
    assert with_empty == "by slice (5 of 2 patients); empty and predicted empty is scored as 1"
    assert without == "by slice, without those that are empty and predicted empty"
    assert by_patient == "by patient (2): all slices as one volume"
    assert [row["n"] for row in found.values()] == [5, 3, 2]
    means = [row["mean"] for row in found.values()]
    assert means == pytest.approx([3.4 / 5, 1.4 / 3, 0.625])  # a hallucination counts in each
    tail = found[by_patient]
    assert (tail["median"], tail["q1"], tail["q3"], tail["minimum"], tail["low"]) == (0.625, 0.5625, 0.6875, 0.5, 1)


def test_volumes_have_one_figure(slices):
    assert list(rows_by_level(slices)) == ["5 cases of 2 patients"]


def printed(capsys, *frames) -> str:
    print_score_tables(frames[0], Console(width=120), *frames[1:])
    return capsys.readouterr().out


def test_all_three_figures_are_printed_without_unmeasured_distances(slices, patients, capsys):
    said = printed(capsys, slices, patients)
    lines = [line.split() for line in said.splitlines() if "tumour" in line]
    assert [line[1:3] for line in lines] == [["5", "0.680"], ["3", "0.467"], ["2", "0.625"]]
    assert "by patient (2): all slices as one volume" in said
    assert "HD95" not in said


def test_failed_slice_and_failed_patient_count_as_0_by_name(slices, patients, capsys):
    lost = pd.DataFrame([rows("b_3", "b", 1, "no prediction", "failed", "all")], columns=COLUMNS)
    slices = pd.concat([slices, lost])
    patients.loc[1] = rows("b", "b", 1, "slice b_3: no prediction", "failed", "all")
    assert tabulate_regions(patients).loc["tumour", "minimum"] == 0
    assert tabulate_regions(slices).loc["tumour", "n"] == 6
    said = printed(capsys, slices, patients)
    assert "1 case failed (scored as Dice 0" in said
    assert "1 patient failed (scored as Dice 0" in said
    assert "b: slice b_3: no prediction" in said


def test_scores_of_outlines_are_printed_with_failed_cases_as_0(capsys):
    frame = pd.DataFrame(
        [
            rows("a_1", "a", 0.9, region="membrane"),
            rows("a_1", "a", 0.98, metric="rand_f", region="membrane"),
            rows("a_2", "a", 1, "no prediction", "failed", "all"),
        ],
        columns=COLUMNS,
    )
    said = printed(capsys, frame)
    line = next(line for line in said.splitlines() if "rand_f" in line)
    assert "0.490" in line  # the mean of 0.98 and 0
    assert "cells kept apart" in said
