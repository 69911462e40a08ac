"""Arrays, images and files are segmented from Python, by the package's own code, on their own grid."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scripts.inference.segmenter import Segmenter
from scripts.inference.worker_process import WorkerProcess
from tests.made import refused

CHANNELS = {"T1": "t1", "T1c": "t1ce", "T2": "t2", "FLAIR": "flair"}


@pytest.fixture(scope="module")
def segment(package):
    with Segmenter(package, device="cpu") as made:
        yield made


@pytest.fixture(scope="module")
def patient(cohort) -> Path:
    return cohort.dataset_dir / "BraTS2021_00002"


@pytest.fixture(scope="module")
def images(patient) -> dict[str, nib.Nifti1Image]:
    return {name: nib.load(patient / f"{patient.name}_{end}.nii.gz") for name, end in CHANNELS.items()}


@pytest.fixture(scope="module")
def answer(segment, images):
    return segment(images)


def test_an_answer_holds_mask_volumes_lesions_and_checks(answer, images):
    assert answer.mask.shape == images["T1"].shape
    assert np.allclose(answer.affine, images["T1"].affine)
    assert {*answer.probabilities} == {*answer.volumes_ml} == {"WT", "TC", "ET"}
    voxel = np.abs(np.linalg.det(answer.affine[:3, :3])) / 1000
    assert answer.volumes_ml["WT"] == pytest.approx(np.count_nonzero(answer.mask) * voxel)
    assert sum(lesion["volume_ml"] for lesion in answer.lesions if lesion["region"] == "WT") == pytest.approx(
        answer.volumes_ml["WT"]
    )
    assert {check["status"] for check in answer.checks} == {"ok", "not checked"}
    assert answer.warnings == []


def test_probabilities_are_those_of_the_mask(answer):
    assert np.array_equal(answer.probabilities["WT"] > 0.5, answer.mask > 0)


def test_a_folder_and_files_give_the_same_mask(segment, answer, patient):
    files = [patient / f"{patient.name}_{end}.nii.gz" for end in CHANNELS.values()]
    assert np.array_equal(segment(patient).mask, answer.mask)
    assert np.array_equal(segment(files).mask, answer.mask)


@pytest.mark.parametrize("codes", ["RAS", "SPL", "AIR"])
def test_arrays_of_any_orientation_return_on_their_own_grid(segment, answer, images, codes):
    affine = images["T1"].affine
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    arrays = {name: nib.apply_orientation(np.asarray(image.dataobj), turn) for name, image in images.items()}
    turned = segment(arrays, affine=affine @ nib.orientations.inv_ornt_aff(turn, images["T1"].shape))
    assert "".join(nib.aff2axcodes(turned.affine)) == codes
    assert np.array_equal(turned.mask, nib.apply_orientation(answer.mask, turn))
    assert turned.volumes_ml == pytest.approx(answer.volumes_ml)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda images: {**images, "T1c": images["T1"]}, "channel T1c is a copy of channel T1"),
        (lambda images: {"T1": images["T1"]}, "images has the channels T1: expected T1, T1c, T2, FLAIR."),
        (lambda images: list(images.values())[:3], "3 images were given: expected T1, T1c, T2, FLAIR"),
        (lambda images: {**images, "T2": np.asarray(images["T2"].dataobj)}, "give affine, 4 x 4"),
        (lambda images: {**images, "T2": "/nowhere/t2.nii"}, "/nowhere/t2.nii does not exist"),
        (lambda images: "/nowhere", "/nowhere does not exist"),
    ],
    ids=["copy", "missing channel", "three images", "no affine", "no file", "no folder"],
)
def test_wrong_input_is_refused_and_the_next_scan_answered(segment, answer, images, change, sentence):
    assert sentence in refused(segment, change(images))
    assert np.array_equal(segment(images).mask, answer.mask)


def test_a_package_runs_by_its_own_code(package, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    copy = Path(shutil.copytree(package, tmp_path / package.name))
    (copy / "manifest.json").unlink()
    with (copy / "scripts" / "inference" / "worker.py").open("a") as own:
        own.write(f"\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    assert "add --trust" in refused(Segmenter, copy, device="cpu")
    assert not (tmp_path / "ran").exists()
    Segmenter(copy, trust=True, device="cpu").close()
    assert (tmp_path / "ran").exists()
    assert not list(copy.rglob("__pycache__"))


def test_wrong_settings_and_folders_are_named(package, tmp_path):
    assert "there is no setting 'overlapp'" in refused(Segmenter, package, overlapp=0.5)
    assert "is neither a run nor a package" in refused(Segmenter, tmp_path)


def test_a_killed_process_is_named(package):
    worker = WorkerProcess([package], {"device": "cpu"})
    worker.process.kill()
    assert "ended by signal 9" in refused(list, worker.ask({"cases": []}))
    worker.close()
