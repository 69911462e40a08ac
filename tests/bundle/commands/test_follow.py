"""`follow` compares the time points of one patient: page, numbers, table, resumption, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

from tests.bundle.dicom.test_segment_dicom import Ended, run_main
from tests.made import ROOT, Page
from tests.made.dicom import PATIENT, write_study
from tests.made.over_time import make_visit, write_visit

SCHEMA = json.loads((ROOT / "docs" / "follow.schema.json").read_text(encoding="utf-8"))
SIZE = 32


def follow(package: Path, patient: Path, out: Path, *options: str) -> Ended:
    return run_main("follow", str(package), str(patient), "--out", str(out), *options)


def read_record(out: Path) -> dict:
    record = json.loads((out / "follow.json").read_text(encoding="utf-8"))
    jsonschema.validate(record, SCHEMA)
    return record


@pytest.fixture(scope="module")
def patient(tmp_path_factory) -> Path:
    """Two sound time points, and between them one that lacks a channel."""
    folder = tmp_path_factory.mktemp("patient")
    write_visit(folder / "2019-03-21", make_visit(0, size=SIZE), label=True)
    write_visit(folder / "20190325_MR", make_visit(0, size=SIZE))
    write_visit(folder / "2019-04-20", make_visit(0, growth=1, move=1, size=SIZE))
    (folder / "20190325_MR" / "scan_t2.nii.gz").unlink()
    (folder / "letters").mkdir()
    return folder


@pytest.fixture(scope="module")
def followed(package, patient, tmp_path_factory) -> tuple[Path, Ended]:
    out = tmp_path_factory.mktemp("followed")
    return out, follow(package, patient, out, "--device", "cpu", "--operation", "2019-04-01")


def test_sound_time_points_are_compared_and_others_listed(followed):
    out, ended = followed
    assert ended.code == 1
    record = read_record(out)
    assert [point["day"] for point in record["time_points"]] == [0, 4, 30]
    assert [point["compared"] for point in record["time_points"]] == [True, False, True]
    assert record["time_points"][2]["registration"]["moved_mm"] > 5
    assert [point["state"] for point in record["time_points"]] == ["pre-operative"] * 2 + ["post-operative"]
    assert "Day 4 is not compared: case scan lacks channel T2" in " ".join(ended.shown.split())
    assert "without a scan, and left out: letters" in ended.shown


def test_no_date_is_written(followed):
    out, ended = followed
    text = [path.read_text() for path in out.rglob("*") if path.suffix in (".json", ".html", ".csv")]
    assert not [one for one in [*text, ended.shown] if "2019-0" in one or "20190" in one]


def test_the_page_says_that_it_is_no_diagnosis(followed):
    page = Page(followed[0] / "follow.html")
    assert "This is not a diagnosis and no response category" in page.text
    assert "There was an operation between day 0 and day 30" in page.text
    assert len(page.all("svg")) == 2
    assert page.all("img")
    assert {"day000/answer.html", "day004/answer.html", "day030/answer.html"} == {e["href"] for e in page.all("a")}
    assert not [e for e in page.elements if any("http" in str(v) for v in e[1].values())]  # it needs no network


def test_the_table_has_a_row_for_each_region_and_lesion(followed):
    out, _ = followed
    rows, record = pd.read_csv(out / "follow.csv"), read_record(out)
    whole = rows[rows["lesion"] == "all"]
    assert [*whole["day"].unique()] == [0, 30]
    assert len(rows) == len(whole) + 2 * len(record["lesions"])
    assert whole["volume_ml"].iloc[0] == pytest.approx(record["time_points"][0]["regions"]["WT"]["volume_ml"])


def test_a_finished_follow_up_is_continued(package, patient, followed):
    out, _ = followed
    masks = sorted(out.glob("day*.nii.gz"))
    before = [path.stat().st_mtime_ns for path in masks]
    assert "already holds masks of 2 time points" in follow(package, patient, out).error
    (out / "follow.json").unlink()
    assert follow(package, patient, out, "--device", "cpu", "--resume", "--repeat").code == 1
    assert [path.stat().st_mtime_ns for path in masks] == before
    record = read_record(out)
    assert record["operations"] is None
    assert record["repeats"]["WT"]["pairs"] <= 2
    assert {path.name for path in out.glob("repeat*.nii.gz")} == {"repeat000.nii.gz", "repeat030.nii.gz"}


def test_another_patient_is_not_written_into_the_same_folder(package, followed, tmp_path):
    for name in ("2019-03-21", "2019-05-01"):
        write_visit(tmp_path / name, make_visit(1, size=SIZE))
    ended = follow(package, tmp_path, followed[0], "--resume")
    assert "holds day030, which is not a time point of this patient" in ended.error


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--operation", "2019-04-20"], "both on day 30: was the scan before it, or after?"),
        (["--operation", "20/04/2019"], "--operation is '20/04/2019', whose day and month may be exchanged"),
        (["--baseline", "3"], "--baseline is day 3, which is no time point: expected one of 0, 4, 30"),
        (["--channels", "T1=4"], "--channels is for DICOM"),
        (["--brain", "hd-bet"], "--brain is for raw scans"),
        (["--dates", "none.csv"], "--dates none.csv cannot be read"),
    ],
)
def test_wrong_options_end_in_one_sentence(package, patient, tmp_path, options, sentence):
    ended = follow(package, patient, tmp_path / "out", *options)
    assert ended.code == 2
    assert sentence in ended.error
    assert ended.error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_inside_the_patient_is_refused(package, patient):
    assert "is in the folder of the patient" in follow(package, patient, patient / "out").error


def test_a_missing_package_is_refused(patient, tmp_path):
    assert follow(tmp_path / "none", patient, tmp_path / "out").code == 2


def test_studies_in_dicom_are_time_points(package, tmp_path):
    for number, date in enumerate(("20240301", "20240105")):
        visit = make_visit(0, move=number, size=SIZE)
        tags = {"StudyDate": date, "frame": f"1.2.3.{number}"}
        write_study(tmp_path / "dicom" / f"s{number}", visit.channels, visit.affine, f"1.2.{number}", **tags)
    out = tmp_path / "out"
    assert follow(package, tmp_path / "dicom", out, "--device", "cpu").code == 0
    record = read_record(out)
    assert [point["day"] for point in record["time_points"]] == [0, 56]
    written = [path.read_text() for path in out.rglob("*") if path.suffix in (".json", ".html", ".csv")]
    assert not [one for one in written if PATIENT["PatientID"] in one or "20240" in one]
