"""A real MONAI Label server gives the masks of the package, and fine-tunes on a corrected label.

    bash tests/monailabel/environment.sh .venv-monailabel && python -m pytest tests/monailabel

MONAILABEL names an environment elsewhere.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.made.monai_label import MODALITIES, Served, needs_server, run, segment, serve, voxels

pytestmark = needs_server


@pytest.fixture(scope="module")
def served(package, cohort, tmp_path_factory) -> Iterator[Served]:
    """A server of the cohort."""
    with serve(package, cohort.dataset_dir, tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture(scope="module")
def patient(served) -> Path:
    """The folder of a patient."""
    return served.patients / "BraTS2021_00002"


@pytest.fixture(scope="module")
def own(package, patient, tmp_path_factory) -> Path:
    """The patient's mask by the package alone; with several labels, so that a comparison is meaningful."""
    mask = segment(package, patient, tmp_path_factory.mktemp("own") / "masks")
    assert len(np.unique(voxels(mask))) > 2
    return mask


@pytest.fixture(scope="module")
def four_channels(patient, tmp_path_factory) -> Path:
    """The patient's scans in one file."""
    images = [nib.load(patient / f"{patient.name}_{name}.nii.gz") for name in MODALITIES]
    path = tmp_path_factory.mktemp("four") / "four.nii.gz"
    nib.save(nib.Nifti1Image(np.stack([np.asarray(image.dataobj) for image in images], -1), images[0].affine), path)
    return path


def test_server_lists_segments_by_name_and_value(served):
    info = served.ask("GET", "/info/")
    labels = info["models"][served.name]["labels"]
    assert labels == {"ncr": 1, "ed": 2, "unused_3": 3, "et": 4}  # 3D Slicer takes the n-th for the value n
    assert info["datastore"]["total"] == 5
    assert served.name in info["trainers"]


def test_a_patient_of_the_studies_gets_the_packages_own_mask(served, patient, own, tmp_path):
    """The server knows only the FLAIR image; the others are found next to it."""
    mask = served.infer(tmp_path / "mask.nii.gz", image=patient.name)
    assert np.array_equal(mask, voxels(own))
    assert np.allclose(nib.load(tmp_path / "mask.nii.gz").affine, nib.load(own).affine)


def test_folder_of_separate_modality_files_is_segmented(served, patient, own, tmp_path):
    assert np.array_equal(served.infer(tmp_path / "mask.nii.gz", image=str(patient)), voxels(own))


def test_uploaded_four_channel_file_is_segmented(served, four_channels, own, tmp_path):
    assert np.array_equal(served.infer(tmp_path / "mask.nii.gz", files={"file": four_channels}), voxels(own))


def test_four_channel_file_among_the_studies_is_segmented(served, four_channels, own, tmp_path):
    served.ask("PUT", "/datastore/image?image=four", files={"file": four_channels})
    assert np.array_equal(served.infer(tmp_path / "mask.nii.gz", image="four"), voxels(own))
    served.ask("DELETE", "/datastore/image?id=four")


@pytest.fixture
def copied(patient, tmp_path) -> Path:
    """The folder of a patient, to change."""
    return Path(shutil.copytree(patient, tmp_path / patient.name))


def test_a_refused_scan_gets_422_and_the_sentence(served, patient, copied):
    shutil.copyfile(copied / f"{patient.name}_t1.nii.gz", copied / f"{patient.name}_t1ce.nii.gz")
    status, content = served.refuse(str(copied))
    assert status == 422
    assert "channel T1c is a copy of channel T1" in content["detail"]


def test_a_damaged_scan_gets_422_and_the_sentence(served, patient, copied):
    scan = copied / f"{patient.name}_t2.nii.gz"
    scan.write_bytes(scan.read_bytes()[:500])
    status, content = served.refuse(str(copied))
    assert status == 422
    assert "it is truncated" in content["detail"]


def test_warnings_come_with_the_mask(served, copied):
    rng = np.random.default_rng(0)
    for path in copied.glob("*_[tf]*.nii.gz"):
        image = nib.load(path)
        noisy = np.asarray(image.dataobj) * 10 + rng.integers(1, 50, image.shape)
        nib.save(nib.Nifti1Image(noisy.astype(np.int16), image.affine), path)
    path = f"/infer/{served.name}?image={quote(str(copied))}&output=json"
    content = served.ask("POST", path, {"params": json.dumps({"device": "cpu"})})
    assert "more than the brain" in content["warnings"][0]
    assert "skull" in [check["name"] for check in content["checks"] if check["status"] == "note"]


def test_the_predicted_dice_comes_with_the_mask(served, patient):
    path = f"/infer/{served.name}?image={patient.name}&output=json"
    content = served.ask("POST", path, {"params": json.dumps({"device": "cpu"})})
    assert {*content["predicted_dice"]} == {"WT", "TC", "ET"}
    assert content["predicted_dice"]["WT"]["sentence"].startswith("Not calibrated: the network came without")


def test_all_patients_are_segmented_at_once(served, own, patient):
    params = {"device": "cpu", "multi_gpu": False, "save_label": True, "label_tag": "original"}
    served.post(f"/batch/infer/{served.name}?images=unlabeled", params)
    served.await_end("/batch/infer")
    (labels,) = served.models.parents[3].parent.glob("*/labels/original")
    assert len(list(labels.glob("*.nii.gz"))) == 5
    assert np.array_equal(voxels(labels / f"{patient.name}.nii.gz"), voxels(own))


def test_training_on_a_corrected_label_changes_only_the_next_mask(served, patient, own, tmp_path):
    exported = (served.package / "models" / "model.pt").read_bytes()
    corrected = patient / f"{patient.name}_seg.nii.gz"
    served.ask("PUT", f"/datastore/label?image={patient.name}&tag=final", files={"label": corrected})
    defaults = served.ask("GET", "/info/")["trainers"][served.name]["config"]
    slicer_sends = {key: value[0] if isinstance(value, list) else value for key, value in defaults.items()}
    served.post(f"/train/{served.name}", {**slicer_sends, "max_epochs": 2, "device": "cpu"})
    served.await_end("/train/")

    assert (served.package / "models" / "model.pt").read_bytes() == exported
    assert (served.models / "model_exported.pt").read_bytes() == exported
    tuned = torch.load(served.models / "model.pt", weights_only=True)
    before = torch.load(served.models / "model_exported.pt", weights_only=True)
    assert tuned.keys() == before.keys()
    assert any(not torch.equal(tuned[name], before[name]) for name in tuned)

    mask = served.infer(tmp_path / "mask.nii.gz", image=patient.name)
    again = segment(served.package, patient, tmp_path / "tuned", "--checkpoint", served.models / "model.pt")
    assert np.array_equal(mask, voxels(again))
    assert not np.array_equal(mask, voxels(own))


def test_network_of_classes_gives_the_packages_own_mask(cohort, tmp_path):
    small = ["--device", "cpu", "--patch_size", "[16,16,16]", "--filters", "[4,8,8]", "--learning_rate", "0.01"]
    small += ["--max_epochs", "2", "--steps_per_epoch", "20", "--ema_decay", "0.5", "--out", tmp_path / "run"]
    places = ["--datalist", cohort.datalist, "--dataset_dir", cohort.dataset_dir]
    run("bundle", "train", "phantom", "softmax_dice_ce", *places, *small)
    run("bundle", "export", tmp_path / "run", "--out", tmp_path / "dist")
    (package,) = (path for path in (tmp_path / "dist").iterdir() if path.is_dir())
    patient = cohort.dataset_dir / "BraTS2021_00002"
    own = segment(package, patient, tmp_path / "own")
    assert len(np.unique(voxels(own))) > 1
    with serve(package, cohort.dataset_dir, tmp_path) as server:
        assert np.array_equal(server.infer(tmp_path / "mask.nii.gz", image=patient.name), voxels(own))
