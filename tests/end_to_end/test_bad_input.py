"""Invalid input to the workflows ends in one sentence that names it, and leaves no partial output."""

from __future__ import annotations

import copy
import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import run

from scripts.data.datalist import file_hash
from scripts.errors import input_error_message
from tests.made import ROOT

TRAIN = ["configs/train.yaml", "configs/tasks/phantom.yaml"]
INFER = ["configs/inference.yaml", "configs/tasks/phantom.yaml"]
SMALL = {"patch_size": [16, 16, 16], "filters": [4, 8, 8], "device": "cpu"}
SHORT = {"max_epochs": 1, "steps_per_epoch": 1, "val_interval": 1, "overlap": 0.0}


def refused(run_id: str, files: list[str], **settings: Any) -> str:
    """The one sentence of the error that ends a workflow."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps ours in its own, whatever that is
        run(run_id=run_id, config_file=files, **settings)
    sentence = input_error_message(caught.value)
    assert sentence is not None, f"a traceback would have been shown: {caught.value!r}"
    assert "\n" not in sentence
    return sentence


@pytest.fixture
def scans(cohort: Any, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the patients that a test may break, and its list."""
    patients, datalist = tmp_path / "patients", tmp_path / "datalist.json"
    shutil.copytree(cohort.dataset_dir, patients)
    shutil.copy(cohort.datalist, datalist)
    return patients, datalist


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the small network, as a run would leave them."""
    from monai.networks.nets import DynUNet

    torch.manual_seed(0)
    net = DynUNet(3, 4, 3, [3] * 3, [1, 2, 2], [2, 2], filters=SMALL["filters"])
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(net.state_dict(), path)
    return path


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> None:
    image = nib.load(path)
    array = change(np.asarray(image.dataobj).astype(np.float32))
    nib.save(nib.Nifti1Image(array, image.affine if affine is None else affine), path)


def renewed(datalist: Path, patients: Path) -> None:
    """Recompute the hashes, as if the list had been made from the files as they are now."""
    content = json.loads(datalist.read_text())
    content["hashes"] = {name: file_hash(patients / name) for name in content["hashes"]}
    datalist.write_text(json.dumps(content))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_nan(path: Path) -> None:
    rewrite(path, lambda a: np.where(np.arange(a.size).reshape(a.shape) == 7, np.nan, a))


def not_nifti(path: Path) -> None:
    path.write_bytes(gzip.compress(b"these are not the voxels you are looking for" * 20))


def of_another_shape(path: Path) -> None:
    rewrite(path, lambda a: a[:-1])


def elsewhere(path: Path) -> None:
    moved = nib.load(path).affine.copy()
    moved[0, 3] += 10
    rewrite(path, lambda a: a, moved)


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda path: path.unlink(), "lacks channel T2"),
        (cut_short, "cannot be read as an image"),
        (not_nifti, "cannot be read as an image"),
        (with_nan, "NaN or infinite"),
        (of_another_shape, "has shape"),
        (elsewhere, "another affine"),
    ],
    ids=["missing modality", "truncated gzip", "not a NIfTI", "NaN voxels", "other shape", "other affine"],
)
def test_a_broken_scan_is_named_and_no_mask_is_left(scans, checkpoint, tmp_path, break_it, says):
    patients, _ = scans
    case = sorted(patients.iterdir())[0]
    break_it(case / f"{case.name}_t2.nii.gz")
    out = tmp_path / "masks"
    sentence = refused("inferring", INFER, input=str(case), checkpoint=str(checkpoint), output_dir=str(out), **SMALL)
    assert says in sentence
    assert case.name in sentence
    assert not list(out.rglob("*")) if out.exists() else True


@pytest.mark.usefixtures("at_root")
def test_unusable_scans_are_listed_and_the_others_segmented(scans, checkpoint, tmp_path, capsys):
    patients, _ = scans
    damaged, incomplete, *others = sorted(case.name for case in patients.iterdir())
    cut_short(patients / damaged / f"{damaged}_t2.nii.gz")
    (patients / incomplete / f"{incomplete}_flair.nii.gz").unlink()
    given = {"input": str(patients), "checkpoint": str(checkpoint), "output_dir": str(tmp_path / "out"), **SMALL}
    with pytest.raises(SystemExit) as ended:
        run("inferring", config_file=INFER, **given)
    assert ended.value.code == 1
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {f"{case}.nii.gz" for case in others}
    first, *reasons = capsys.readouterr().err.splitlines()[-3:]
    assert first == "2 of 5 cases could not be segmented:"
    assert [reason.split(":")[0].strip() for reason in reasons] == [damaged, incomplete]
    assert "cannot be read as an image" in reasons[0]
    assert "lacks channel FLAIR" in reasons[1]

    with pytest.raises(SystemExit) as ended:
        run("inferring", config_file=INFER, resume=True, **given)
    assert ended.value.code == 1


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize(
    ("value", "says"), [(3, "holds the label 3"), (0.5, "holds the label 0.5")], ids=["unknown label", "label of 0.5"]
)
def test_a_label_outside_the_scheme_is_refused_by_training(scans, tmp_path, value, says):
    patients, datalist = scans
    case = sorted(patients.iterdir())[0]
    rewrite(case / f"{case.name}_seg.nii.gz", lambda a: np.where(a == 4, value, a))
    renewed(datalist, patients)
    given = {"datalist": str(datalist), "dataset_dir": str(patients), "run_dir": str(tmp_path / "run")}
    sentence = refused("training", TRAIN, **given, **SMALL, **SHORT)
    assert says in sentence
    assert f"{case.name}_seg.nii.gz" in sentence


@pytest.mark.usefixtures("at_root")
def test_label_from_a_float_file_is_rounded(scans, tmp_path):
    patients, datalist = scans
    for case in patients.iterdir():
        if (label := case / f"{case.name}_seg.nii.gz").exists():
            rewrite(label, lambda a: a * np.float32(0.99999997))
    renewed(datalist, patients)
    given = {"datalist": str(datalist), "dataset_dir": str(patients), "run_dir": str(tmp_path / "run")}
    run(run_id="training", config_file=TRAIN, **given, **SMALL, **SHORT)
    assert (tmp_path / "run" / "model.pt").exists()


@pytest.mark.usefixtures("at_root")
def test_empty_volume_and_patch_larger_than_the_volume_train(scans, tmp_path):
    patients, datalist = scans
    empty = sorted(patients.iterdir())[1]
    rewrite(empty / f"{empty.name}_seg.nii.gz", np.zeros_like)
    renewed(datalist, patients)
    given = {"datalist": str(datalist), "dataset_dir": str(patients), "run_dir": str(tmp_path / "run")}
    run(run_id="training", config_file=TRAIN, **given, **{**SMALL, "patch_size": [48, 48, 48]}, **SHORT)
    assert (tmp_path / "run" / "model.pt").exists()


def spoil(datalist: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(datalist.read_text())
    change(content)
    datalist.write_text(json.dumps(content))


def one_patient_in_two_folds(content: dict) -> None:
    content["training"][1]["patient"] = content["training"][0]["patient"]


def a_file_that_is_not_there(content: dict) -> None:
    content["training"][0]["image"][0] = "nowhere/scan_t1.nii.gz"


def the_same_case_twice(content: dict) -> None:
    content["training"].append(copy.deepcopy(content["training"][0]))


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (one_patient_in_two_folds, "is in fold"),
        (a_file_that_is_not_there, "not on disk"),
        (the_same_case_twice, "lists case BraTS2021_00000 twice"),
        (lambda content: content.update(label_scheme="brats_ped"), "label scheme brats_ped"),
        (lambda content: content.update(channels=["T1", "T2"]), "has channels T1, T2"),
        (lambda content: content.pop("hashes"), "has no hashes"),
    ],
)
def test_invalid_data_list_is_refused_before_training(scans, tmp_path, change, says):
    patients, datalist = scans
    spoil(datalist, change)
    given = {"datalist": str(datalist), "dataset_dir": str(patients), "run_dir": str(tmp_path / "run")}
    assert says in refused("training", TRAIN, **given, **SMALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("at_root")
def test_a_file_changed_since_the_list_was_made_is_refused(scans, tmp_path):
    patients, datalist = scans
    scan = next(patients.rglob("*_t1.nii.gz"))
    rewrite(scan, lambda a: a + 1)
    given = {"datalist": str(datalist), "dataset_dir": str(patients), "run_dir": str(tmp_path / "run")}
    sentence = refused("training", TRAIN, **given, **SMALL)
    assert "has changed since the data list was made" in sentence
    assert scan.name in sentence


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epocs": 9}, "did you mean max_epochs"),
        ({"loss::aneal": True}, "DeepSupervisionLoss has no argument 'aneal'"),
        (
            {"patch_size": [16, 18, 16]},
            "each axis has to be a multiple of 4, 4, 4, such as (16, 16, 16) or (16, 20, 16)",
        ),
        ({"device": "cuda:7"}, "CUDA devices"),
        ({"device": "gpu"}, "expected cpu, cuda"),
        ({"fold": 9}, "has no fold 9"),
        ({"cache": "ram"}, "expected memory, disk, none"),
        ({"datalist": None}, "datalist is not given"),
        ({"datalist": "nowhere.json"}, "cannot be read"),
        ({"resume": "runs/none_such"}, "holds no run to resume"),
        ({"region_weights": {"WT": 1}}, "a weight for each of"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_written(cohort, tmp_path, settings, says):
    given = {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir), "run_dir": str(tmp_path / "run")}
    sentence = refused("training", TRAIN, **{**given, **SMALL, **settings})
    assert says in sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("at_root")
def test_requeue_without_a_run_folder_is_refused(cohort):
    given = {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir), "requeue": True}
    assert "each start would begin a new run" in refused("training", TRAIN, **given, **SMALL)


@pytest.mark.usefixtures("at_root")
def test_second_run_never_writes_into_the_first_ones_folder(cohort, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "precious.txt").write_text("a first run's result")
    given = {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir), "run_dir": str(folder)}
    assert "already holds files" in refused("training", TRAIN, **given, **SMALL)
    assert [path.name for path in folder.iterdir()] == ["precious.txt"]


@pytest.mark.usefixtures("at_root")
def test_a_folder_that_cannot_be_written_is_named(cohort, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    given = {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir)}
    sentence = refused("training", TRAIN, **given, run_dir=str(tmp_path / "file" / "run"), **SMALL)
    assert "cannot be written" in sentence


@pytest.mark.usefixtures("at_root")
def test_full_disk_ends_in_a_sentence_without_a_partial_checkpoint(cohort, tmp_path, full_disk):
    folder = tmp_path / "run"
    given = {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir), "run_dir": str(folder)}
    with full_disk(40_000):  # config and log fit, the weights do not
        sentence = refused("training", TRAIN, **given, **SMALL, **SHORT)
    assert "cannot be written" in sentence
    assert not list(folder.glob("*.pt"))
    assert not list(folder.glob(".writing-*"))


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"filters": [8, 16, 16]}, "a checkpoint of another network"),
        ({"checkpoint": "nowhere/model.pt"}, "there is no checkpoint"),
        ({"input": "nowhere"}, "does not exist"),
        ({"input": None}, "input is not given"),
        ({"input": "."}, "holds no scan"),
    ],
)
def test_inference_with_a_wrong_setting_is_refused(cohort, checkpoint, tmp_path, settings, says):
    empty = tmp_path / "empty"
    empty.mkdir()
    if settings.get("input") == ".":
        settings = {"input": str(empty)}
    given = {"input": str(cohort.dataset_dir), "checkpoint": str(checkpoint), "output_dir": str(tmp_path / "out")}
    assert says in refused("inferring", INFER, **{**given, **SMALL, **settings})
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("at_root")
def test_second_inference_overwrites_nothing_and_resume_skips_finished_cases(cohort, checkpoint, tmp_path):
    out = tmp_path / "out"
    given = {"input": str(cohort.dataset_dir), "checkpoint": str(checkpoint), "output_dir": str(out), "overlap": 0.0}
    run(run_id="inferring", config_file=INFER, **given, **SMALL)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    assert len(before) == 5
    assert "already holds masks of 5 of 5 cases" in refused("inferring", INFER, **given, **SMALL)
    sorted(before)[0].unlink()
    run(run_id="inferring", config_file=INFER, resume=True, **given, **SMALL)
    after = {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    assert after.keys() == before.keys()
    assert sum(after[path] == before[path] for path in before) == 4


def test_command_ends_in_one_stderr_sentence_and_exit_code_2(cohort):
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(TRAIN)]
    command += ["--datalist", str(cohort.datalist), "--dataset_dir", "nowhere", "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: nowhere/")
