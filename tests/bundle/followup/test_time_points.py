"""Time points of a folder: their order, their days, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundle.followup.days import hide_dates
from bundle.followup.time_points import find_time_points
from tests.made import refused
from tests.made.dicom import write_study


def make_folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "scan_t1.nii.gz").write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("names", "days"),
    [
        (["2019-03-21", "2019-04-20"], [0, 30]),
        (["P1_20200101_MR", "P1_20190101_MR"], [0, 365]),
        (["2019.03.21", "2019_03_22"], [0, 1]),
        (["day-010", "day110"], [0, 100]),
        (["week-000", "week-004"], [0, 28]),
    ],
)
def test_days_count_from_the_first_date(tmp_path, names, days):
    timeline = find_time_points(make_folders(tmp_path, *names))
    assert [point.day for point in timeline.points] == days
    assert timeline.points[0].case == "day000"


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["03-04-2019", "2019-05-01"], "03-04-2019 in its name, whose day and month may be exchanged"),
        (["2019-13-01", "2019-05-01"], "not a date in the order year, month, day"),
        (["2099-01-01", "2019-05-01"], "which is in the future"),
        (["2019-03-21a", "2019-03-21b"], "have the same date"),
        (["first", "2019-03-21"], "has no date in its name: name it 2019-03-21"),
        (["2019-03-21_to_2019-04-01", "2019-05-01"], "more than one date"),
        (["day-3", "2019-03-21"], "a date where others have the number of a day"),
        (["day-7", "day0", "day30"], "day-7 may be days before or after"),
        (["2019-03-21"], "holds 1 time point (2019-03-21): a follow-up needs two or more"),
        ([], "holds no time point"),
    ],
)
def test_dates_that_may_be_misread_are_refused(tmp_path, names, sentence):
    assert sentence in refused(find_time_points, make_folders(tmp_path, *names))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dates.csv", "folder,date\nbefore,2019-03-21\nafter,20190421\n"),
        ("days.csv", "Folder, Day\nbefore, 4\nafter, 35\n"),
        ("dates.json", '{"before": "2019-03-21", "after": "2019-04-21"}'),
    ],
)
def test_a_file_gives_the_dates_of_folders(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    timeline = find_time_points(make_folders(tmp_path / "patient", "before", "after"), tmp_path / name)
    assert [(point.folder.name, point.day) for point in timeline.points] == [("before", 0), ("after", 31)]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.csv", "folder,date\nbefore,2019-03-21\n", "does not list folder after"),
        ("a.csv", "folder,date\nbefore,21.03.2019\n", "may be exchanged: expected a date as 2019-03-21"),
        ("a.csv", "folder,date\nbefore,1\nafter,2\nother,3\n", "lists other, which is not a folder"),
        ("a.csv", "name,when\nbefore,1\n", "expected a table with the columns folder,date"),
        ("a.csv", "folder,date\nbefore,1\nbefore,2\n", "has folder before twice"),
        ("a.json", "[1]", "holds a list"),
        ("a.json", "{", "is not JSON"),
        ("a.csv", "folder,date\n", "lists no folder"),
    ],
)
def test_a_wrong_file_of_dates_is_refused(tmp_path, name, text, sentence):
    (tmp_path / name).write_text(text)
    folder = make_folders(tmp_path / "patient", "before", "after")
    assert sentence in refused(find_time_points, folder, tmp_path / name)


def test_scans_outside_of_folders_are_refused(tmp_path):
    folder = make_folders(tmp_path, "2019-03-21", "2019-04-21")
    (folder / "loose.nii.gz").write_bytes(b"")
    assert "holds scans outside of its folders, such as loose.nii.gz" in refused(find_time_points, folder)


def test_folders_without_a_scan_are_left_out(tmp_path):
    folder = make_folders(tmp_path, "2019-03-21", "2019-04-21")
    (folder / "letters").mkdir()
    assert find_time_points(folder).left_out == ["letters"]


def test_a_missing_folder_is_refused(tmp_path):
    assert "does not exist: give the folder of a patient" in refused(find_time_points, tmp_path / "missing")


@pytest.mark.parametrize(
    ("folder", "sentence", "hidden"),
    [
        ("/p/2019-03-21", "/p/2019-03-21/x_t1.nii is cut (20190321).", "day000/x_t1.nii is cut ((date))."),
        ("/p/T1", "case T1 lacks channel T1: found T1_t2.nii.", "case day000 lacks channel T1: found day000_t2.nii."),
    ],
)
def test_sentences_hide_folders_and_dates(folder, sentence, hidden):
    assert hide_dates(sentence, Path(folder), "day000") == hidden


@pytest.mark.parametrize(
    ("names", "text", "day"),
    [
        (["day-100", "day-130"], "115", 15),  # a day of the names
        (["2019-03-21", "2019-04-20"], "15", 15),  # since the first
        (["2019-03-21", "2019-04-20"], "2019-04-01", 11),
    ],
)
def test_an_operation_is_a_day_of_the_names(tmp_path, names, text, day):
    assert find_time_points(make_folders(tmp_path, *names)).find_day(text, "--operation") == day


def test_dicom_of_another_date_than_the_folder_is_refused(tmp_path):
    voxels = {"T1": np.random.default_rng(0).integers(1, 99, (8, 8, 12)).astype(np.int16)}
    for number, name in enumerate(("2019-03-21", "2019-09-20")):
        write_study(tmp_path / name, voxels, np.eye(4), f"1.2.{number}", StudyDate=f"20190{number + 7}01")
    assert "is named by 2019-03-21, and its DICOM says 2019-07-01" in refused(find_time_points, tmp_path)
