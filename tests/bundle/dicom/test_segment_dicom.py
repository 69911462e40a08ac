"""`segment` on DICOM: channels recognised, cases numbered, no patient named, DICOM SEG written."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import stat
import sys
from pathlib import Path
from typing import NamedTuple

import highdicom
import nibabel as nib
import numpy as np
import pytest

from bundle.__main__ import main
from tests.bundle.commands.test_segment import read_answer
from tests.made import Page, at_repository_root
from tests.made.dicom import PATIENT, write_series, write_study

CHANNELS = {"T1": "t1", "T1c": "t1ce", "T2": "t2", "FLAIR": "flair"}


class Ended(NamedTuple):
    code: int
    shown: str
    error: str


def run_main(*words: str) -> Ended:
    """A command in this process: its exit code, and what it printed."""
    shown, error = io.StringIO(), io.StringIO()
    with at_repository_root(), contextlib.redirect_stdout(shown), contextlib.redirect_stderr(error):
        try:
            main([*words])
            code = 0
        except SystemExit as ended:
            code = int(ended.code)
    return Ended(code, " ".join(shown.getvalue().split()), error.getvalue())


def segment(package: Path, scans: Path, out: Path, *options: str) -> Ended:
    return run_main("segment", str(package), str(scans), "--out", str(out), "--device", "cpu", *options)


@pytest.fixture(scope="module")
def images(cohort) -> tuple[dict[str, np.ndarray], np.ndarray]:
    patient = cohort.dataset_dir / "BraTS2021_00002"
    loaded = {name: nib.load(patient / f"{patient.name}_{end}.nii.gz") for name, end in CHANNELS.items()}
    return {name: np.asarray(image.dataobj) for name, image in loaded.items()}, loaded["T1"].affine


def ras_affine(images) -> np.ndarray:
    voxels, affine = images
    return nib.as_closest_canonical(nib.Nifti1Image(voxels["T1"], affine)).affine


@pytest.fixture(scope="module")
def scans(images, tmp_path_factory) -> Path:
    """Three studies: a sound one with a localiser, one without FLAIR, and one that lacks a slice."""
    folder = tmp_path_factory.mktemp("dicom")
    voxels, affine = images
    write_study(folder / "a", voxels, affine, "1.2.3.1")
    for place, turn in enumerate((affine, affine[:, [1, 2, 0, 3]])):
        write_series(folder / "a", voxels["T1"][:, :, :3], turn, 20 + place, "1.2.3.1", SeriesDescription="localizer")
    write_study(folder / "b", {name: voxels[name] for name in ("T1", "T1c", "T2")}, affine, "1.2.3.2", PatientID="b")
    write_study(folder / "c", voxels, affine, "1.2.3.3", PatientID="c")
    next(path for path in sorted((folder / "c").iterdir()) if path.name == "s3-010").unlink()
    return folder


@pytest.fixture(scope="module")
def answered(package, scans, tmp_path_factory) -> tuple[Path, Ended]:
    out = tmp_path_factory.mktemp("answers")
    return out, segment(package, scans, out, "--dicom_seg")


def test_a_study_gets_a_mask_on_its_own_grid(answered, images):
    out, ended = answered
    assert ended.code == 1
    answer, mask = read_answer(out, "case-001"), nib.load(out / "case-001.nii.gz")
    assert np.allclose(nib.as_closest_canonical(mask).affine, ras_affine(images))
    assert answer["regions"]["WT"]["volume_ml"] > 0
    assert answer["checks"][0]["name"] == "series"
    assert "FLAIR is series 4 (32 slices, TR 9000 ms, TE 120 ms, TI 2500 ms" in answer["checks"][0]["sentence"]
    assert "T1c is series 2" in ended.shown


def test_dicom_seg_holds_the_same_mask(answered):
    out, ended = answered
    seg = highdicom.seg.segread(out / "case-001" / "mask.seg.dcm")
    mask = nib.load(out / "case-001.nii.gz")
    assert np.count_nonzero(seg.get_volume(combine_segments=True).array) == np.count_nonzero(mask.dataobj)
    assert seg.PatientID == PATIENT["PatientID"]
    assert "which holds the name, ID and dates of the patient" in ended.shown


def test_refused_studies_say_what_is_missing(answered):
    out, _ = answered
    assert "no series is recognised as FLAIR" in read_answer(out, "case-002")["refusal"]
    assert "slice is missing" in read_answer(out, "case-003")["refusal"]
    assert "Refused: there is no mask." in Page(out / "case-003" / "answer.html").text


def test_no_name_or_id_reaches_a_log_page_or_file(answered):
    out, ended = answered
    texts = [ended.shown, ended.error, *(str(path.relative_to(out)) for path in out.rglob("*"))]
    texts += [path.read_text() for path in out.rglob("*") if path.suffix in (".html", ".json")]
    secrets = ["Muster", "Erika", "4711", "0815", "20260401", "1.2.3.1", "19600101"]
    assert [secret for secret in secrets for text in texts if re.search(re.escape(secret), text, re.IGNORECASE)] == []


def test_a_study_keeps_its_number_when_others_are_added(answered, package, scans, images, tmp_path):
    out = Path(shutil.copytree(answered[0], tmp_path / "out"))
    more = Path(shutil.copytree(scans / "a", tmp_path / "more" / "z"))
    write_study(
        more.parent / "0", {name: np.roll(v, 1, 1) for name, v in images[0].items()}, images[1], "1.2.9", PatientID="n"
    )
    before = (out / "case-001.nii.gz").stat().st_mtime_ns
    ended = segment(package, more.parent, out, "--resume", "--identify", "--dicom_seg")
    assert ended.code == 0
    assert (out / "case-001.nii.gz").stat().st_mtime_ns == before
    assert read_answer(out, "case-004")["verdict"] == "answered"
    table = out / "identities.csv"
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
    assert "case-001,4711-0815,Muster^Erika,20260401" in table.read_text()


def test_the_user_chooses_one_of_two_candidates(package, images, tmp_path):
    write_study(tmp_path / "in", {name: images[0][name] for name in CHANNELS}, images[1])
    write_series(
        tmp_path / "in",
        images[0]["T2"] * 2 + 1,
        images[1],
        9,
        SeriesDescription="t2 again",
        EchoTime=90,
        RepetitionTime=4000,
    )
    ended = segment(package, tmp_path / "in", tmp_path / "out", "--channels", "T2=3")
    assert ended.code == 0
    assert "T2 is series 3 (32 slices, chosen by --channels)" in ended.shown


@pytest.mark.parametrize(
    ("option", "sentence"),
    [("--channels=T1=1", "--channels is for DICOM, which"), ("--dicom_seg", "--dicom_seg is for DICOM, which")],
)
def test_options_for_dicom_are_refused_for_other_files(package, cohort, tmp_path, option, sentence):
    ended = segment(package, cohort.dataset_dir, tmp_path / "out", option)
    assert (ended.code, sentence in ended.error) == (2, True)


def test_missing_readers_end_in_one_sentence(package, scans, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    ended = segment(package, scans, tmp_path / "out")
    assert ended.code == 2
    assert "pip install -r requirements-dicom.txt" in ended.error
