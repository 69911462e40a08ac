"""`segment` answers every scan: pages, measures, refusals in one sentence, and resumption."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest

from bundle.__main__ import main
from tests.made import ROOT, Page, at_repository_root, save_nifti

pytestmark = pytest.mark.usefixtures("at_root")
SCHEMA = json.loads((ROOT / "docs" / "answer.schema.json").read_text(encoding="utf-8"))


def copy_patient(cohort, folder: Path) -> Path:
    """A folder of scans with one sound patient, to which others may be added."""
    shutil.copytree(cohort.dataset_dir / "BraTS2021_00002", folder / "sound")
    for path in list((folder / "sound").iterdir()):
        path.rename(path.with_name(path.name.replace("BraTS2021_00002", "sound")))
    return folder


def add(scans: Path, name: str) -> Path:
    folder = Path(shutil.copytree(scans / "sound", scans / name))
    for path in list(folder.iterdir()):
        path.rename(path.with_name(path.name.replace("sound", name)))
    return folder


@pytest.fixture
def scans(cohort, tmp_path) -> Path:
    return copy_patient(cohort, tmp_path / "scans")


def segment(package: Path, scans: Path, out: Path, *options: str) -> int:
    """The exit code of the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "excepthook", sys.excepthook)
        try:
            main(["segment", str(package), str(scans), "--out", str(out), "--device", "cpu", *options])
        except SystemExit as ended:
            return int(ended.code)
    return 0


def read_answer(out: Path, case: str) -> dict:
    answer = json.loads((out / case / "answer.json").read_text(encoding="utf-8"))
    jsonschema.validate(answer, SCHEMA)
    return answer


@pytest.fixture(scope="module")
def answered(package, cohort, tmp_path_factory) -> tuple[Path, str]:
    """The answers for a sound scan, one with its head, and three that are refused; and what the command printed."""
    scans = copy_patient(cohort, tmp_path_factory.mktemp("scans"))
    cut, copied, head = (add(scans, name) for name in ("cut", "copied", "head"))
    content = (cut / "cut_t2.nii.gz").read_bytes()
    (cut / "cut_t2.nii.gz").write_bytes(content[: len(content) // 2])
    shutil.copyfile(copied / "copied_t1.nii.gz", copied / "copied_t1ce.nii.gz")
    (add(scans, "lacking") / "lacking_flair.nii.gz").unlink()
    rng = np.random.default_rng(0)
    for path in head.glob("*_[tf]*.nii.gz"):
        image = nib.load(path)
        voxels = np.asarray(image.dataobj) * 10 + rng.integers(1, 50, image.shape)
        save_nifti(path, voxels.astype(np.int16), image.affine)
    out, shown = tmp_path_factory.mktemp("out"), io.StringIO()
    with at_repository_root(), contextlib.redirect_stdout(shown):
        assert segment(package, scans, out) == 1
    return out, " ".join(shown.getvalue().split())


def test_a_scan_gets_mask_measures_and_page(answered):
    out, shown = answered
    answer, page = read_answer(out, "sound"), Page(out / "sound" / "answer.html")
    mask = nib.load(out / "sound" / answer["mask"])
    assert answer["verdict"] == "answered"
    assert answer["grid"]["shape"] == list(mask.shape)
    assert "Answered: no check objected." in page.text
    assert f"{answer['regions']['WT']['volume_ml']:.2f} ml" in page.text
    assert len(page.all("canvas")) == 3
    assert not [e for e in page.elements if any("http" in str(v) for v in e[1].values())]  # it needs no network
    assert "terms of the training data: Apache-2.0" in shown


def test_the_viewer_of_a_page_starts_in_a_browser(answered, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    page = (answered[0] / "sound" / "answer.html").as_uri()
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
    done = subprocess.run([*words, "--virtual-time-budget=8000", page], capture_output=True, text=True, check=False)
    assert '<p id="viewer-state" role="status" hidden="">' in done.stdout
    assert re.search(r'<p class="soft" id="place" aria-live="polite">At -?\d', done.stdout)


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("cut", "it is truncated"),
        ("copied", "channel T1c is a copy of channel T1"),
        ("lacking", "case lacking lacks channel FLAIR"),
    ],
)
def test_a_refused_scan_has_its_sentence_and_no_mask(answered, case, sentence):
    out, shown = answered
    answer = read_answer(out, case)
    assert answer["verdict"] == "refused"
    assert sentence in answer["refusal"]
    assert shown.count(answer["refusal"]) == 1
    assert "Refused: there is no mask." in Page(out / case / "answer.html").text
    assert not (out / f"{case}.nii.gz").exists()


def test_a_head_is_warned_of_and_not_shown(answered):
    out, shown = answered
    page, answer = Page(out / "head" / "answer.html"), read_answer(out, "head")
    assert answer["verdict"] == "answered with warnings"
    assert "Answered, with 1 warning" in page.text
    assert answer["warnings"][0] in shown
    assert "The scan is not shown" in page.text
    assert page.all("img") == page.all("canvas") == []


def test_sigterm_finishes_the_case_and_resume_does_the_rest(package, scans, tmp_path):
    for number in range(3):
        add(scans, f"more{number}")
    out = tmp_path / "out"
    words = [sys.executable, "-m", "bundle", "segment", package, scans, "--out", out, "--device", "cpu"]
    process = subprocess.Popen([*map(str, words)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(out.glob("*/answer.json")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert "Stopped by SIGTERM; continue with --resume." in process.communicate()[1]
    assert process.returncode == 143
    finished = list(out.glob("*.nii.gz"))
    before = {path: path.stat().st_mtime_ns for path in finished}
    page = next(out.glob("*/answer.json"))
    page.unlink()  # as after a kill between mask and answer
    assert segment(package, scans, out, "--resume") == 0
    assert {path: path.stat().st_mtime_ns for path in finished} == before
    assert len(list(out.glob("*/answer.json"))) == 4
    assert {check["status"] for check in read_answer(out, page.parent.name)["checks"]} == {"ok", "not checked"}


def test_answers_that_exist_are_not_overwritten_without_resume(package, scans, answered, capsys):
    assert segment(package, scans, answered[0]) == 2
    assert "already holds masks of 1 of 1 cases: choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: None, "does not exist: give a folder of patients"),
        (lambda folder: folder.mkdir(), "holds no scan: expected files like"),
    ],
    ids=["no folder", "empty folder"],
)
def test_wrong_input_ends_in_one_sentence_and_code_2(package, tmp_path, capsys, make, sentence):
    make(tmp_path / "scans")
    assert segment(package, tmp_path / "scans", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error
    assert error.startswith("error: ")
    assert "\n" not in error


def test_a_full_disk_leaves_no_half_answer(package, scans, tmp_path, capsys, full_disk):
    with full_disk(20_000):
        assert segment(package, scans, tmp_path / "out") == 2
    assert "cannot be written (File too large): free space there" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "out" / "sound").iterdir() if not path.name.startswith(".")]


def test_no_folder_can_be_made_ends_in_one_sentence(package, scans, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert segment(package, scans, tmp_path / "file" / "out") == 2
    assert "choose another folder" in capsys.readouterr().err


def test_a_package_of_an_earlier_version_gives_masks_alone(package, scans, tmp_path, monkeypatch, capsys):
    copy = Path(shutil.copytree(package, tmp_path / package.name))
    (copy / "manifest.json").unlink()
    config = copy / "configs" / "inference.yaml"
    config.write_text(config.read_text().replace("answering:", "former_id:"))
    replaced = []
    monkeypatch.setattr(os, "chdir", lambda folder: None)
    monkeypatch.setattr(os, "execve", lambda program, command, environment: replaced.append(command))
    segment(copy, scans, tmp_path / "out", "--trust")
    assert "run" in replaced[0]
    assert "inferring" in replaced[0]
    assert "it gives masks without answers; export it again" in capsys.readouterr().err
