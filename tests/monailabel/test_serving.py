"""A real MONAI Label server gives the masks of the package, and fine-tunes on a corrected label.

    bash tests/monailabel/environment.sh .venv-monailabel && python -m pytest tests/monailabel

MONAILABEL names an environment elsewhere.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.made import ROOT

ENVIRONMENT = Path(os.environ.get("MONAILABEL", ROOT / ".venv-monailabel"))
SET_UP = "bash tests/monailabel/environment.sh .venv-monailabel"
pytestmark = [
    pytest.mark.monailabel,
    pytest.mark.slow(reason="two starts of a server, and a fine-tuning"),
    pytest.mark.skipif(
        not (ENVIRONMENT / "bin" / "python").exists(), reason=f"no MONAI Label at {ENVIRONMENT}: make it by `{SET_UP}`"
    ),
]
MODALITIES = ("t1", "t1ce", "t2", "flair")


def one_thread() -> dict[str, str]:
    """The environment, in which the tests trust their own packages, with one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


class Served(NamedTuple):
    """A server that runs, and what it serves."""

    port: int
    name: str
    package: Path  # as it was exported
    models: Path  # of the server's copy
    patients: Path
    process: subprocess.Popen

    def ask(self, method: str, path: str, fields: dict[str, str] | None = None, files: dict[str, Path] | None = None):
        """What the server answers; `fields` and `files` go as a form, as 3D Slicer sends them."""
        border, parts = uuid.uuid4().hex, []
        for key, value in (fields or {}).items():
            parts.append(f'--{border}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode())
        for key, file in (files or {}).items():
            head = f'--{border}\r\nContent-Disposition: form-data; name="{key}"; filename="{file.name}"\r\n\r\n'
            parts.append(head.encode() + file.read_bytes() + b"\r\n")
        body = b"".join([*parts, f"--{border}--\r\n".encode()]) if parts else None
        return self._send(method, path, body, f"multipart/form-data; boundary={border}")

    def post(self, path: str, content: Any):
        """What the server answers to JSON."""
        return self._send("POST", path, json.dumps(content).encode(), "application/json")

    def infer(self, target: Path, image: str = "", **fields_and_files: Any) -> np.ndarray:
        """The mask of an image of the server, or of an uploaded one; kept as `target`."""
        params = json.dumps({"result_dtype": "uint8", "device": "cpu"})
        path = f"/infer/{self.name}?image={quote(image)}&output=image"
        target.write_bytes(self.ask("POST", path, {"params": params}, **fields_and_files))
        return voxels(target)

    def await_end(self, path: str) -> None:
        """Wait for a background task of the server."""
        while (task := self.ask("GET", path))["status"] in ("SUBMITTED", "RUNNING"):
            time.sleep(1)
        assert task["status"] == "DONE", "\n".join(task["details"])

    def refuse(self, image: str) -> tuple[int, Any]:
        """The status and the content of the response to a scan that is refused."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)) as connection:
            connection.request("POST", f"/infer/{self.name}?image={quote(image)}&output=image")
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def _send(self, method: str, path: str, body: bytes | None, kind: str):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)) as connection:
            connection.request(method, path, body, {"Content-Type": kind} if body else {})
            answer = connection.getresponse()
            content = answer.read()
        assert answer.status == 200, f"{method} {path}: {answer.status} {content[:500]!r}"
        return json.loads(content) if answer.getheader("content-type") == "application/json" else content


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def run(*command: Any, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=cwd, env=one_thread(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def segment(package: Path, scan: Path, out: Path, *options: Any) -> Path:
    """The mask of the package's own `inferring`, run in the package."""
    run("monai.bundle", "run", "inferring", "--config_file", "configs/inference.yaml", "--input", scan.resolve(),
        "--output_dir", out, "--device", "cpu", *options, cwd=package)  # fmt: skip
    (mask,) = out.glob("*.nii.gz")
    return mask


@contextlib.contextmanager
def serve(package: Path, studies: Path, folder: Path) -> Iterator[Served]:
    """`bundle serve`, until Ctrl-C."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bundle", "serve", package, "--studies", studies, "--show", "FLAIR",
               "--port", port, "--monailabel", ENVIRONMENT, "--out", folder / "work"]  # fmt: skip
    told = folder / "told.txt"
    with told.open("w") as stream:
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=one_thread(), stdout=stream, stderr=stream)
    while "Ctrl-C ends it" not in told.read_text():
        assert process.poll() is None, told.read_text()
        time.sleep(0.5)
    models = folder / "work" / "apps" / "monaibundle" / "model" / package.name / "models"
    yield Served(port, package.name, package, models, studies, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)), "the server still listens after Ctrl-C"


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
