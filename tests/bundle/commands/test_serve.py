"""Does `serve` refuse what cannot be served, before it starts anything, and leave package and scans as they are?"""

import importlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from bundle.commands import serve as module
from bundle.commands.serve import serve
from scripts.errors import InputError
from tests.made import ROOT


@pytest.fixture
def patients(cohort, tmp_path) -> Path:
    """Two patients, which a test may break."""
    for name in ("BraTS2021_00000", "BraTS2021_00001"):
        shutil.copytree(cohort.dataset_dir / name, tmp_path / "patients" / name)
    return tmp_path / "patients"


@pytest.fixture
def refused(package, patients, tmp_path):
    """The sentence in which `serve` ends; nothing of a server may have been made."""

    def end(**given) -> str:
        with pytest.raises(InputError) as caught:
            serve(**{"package": str(package), "studies": str(patients), "work": str(tmp_path / "work"), **given})
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "work" / "apps").exists()
        return str(caught.value)

    return end


def test_a_package_that_is_not_there_is_refused(refused):
    assert "package dist/x does not exist" in refused(package="dist/x")


def test_a_package_that_is_not_whole_is_refused(refused, package, tmp_path):
    broken = shutil.copytree(package, tmp_path / package.name)
    (broken / "configs" / "train.yaml").unlink()
    assert "lacks configs/train.yaml" in refused(package=str(broken))


def test_studies_that_are_not_there_or_hold_no_scan_are_refused(refused, tmp_path):
    assert "nowhere does not exist: give the folder" in refused(studies=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "empty holds no scan" in refused(studies=str(tmp_path / "empty"))


def test_studies_that_this_user_may_not_read_are_refused(patients):
    importlib.import_module(
        "scripts.inference.sliding_window"
    )  # `serve` imports it late, which the other user below may not
    patients.chmod(0)
    root = os.geteuid() == 0  # who may read everything
    try:
        if root:
            os.seteuid(65534)
        with pytest.raises(InputError, match="cannot be read"):
            module._scans(patients, {"channels": ["T1"], "channel_files": {}}, None)
    finally:
        if root:
            os.seteuid(0)
        patients.chmod(0o755)


def test_pictures_are_refused(refused, tmp_path):
    (tmp_path / "slices").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "slices" / "a.png")
    assert "a.png is a picture: `serve` is for volumes" in refused(studies=str(tmp_path / "slices"))


def test_a_patient_without_all_channels_is_refused(refused, patients):
    (patients / "BraTS2021_00001" / "BraTS2021_00001_t2.nii.gz").unlink()
    assert "case BraTS2021_00001 lacks channel T2" in refused()


def test_a_channel_that_the_network_does_not_see_cannot_be_shown(refused):
    assert "--show is DWI: the channels are T1, T1c, T2, FLAIR." in refused(show="DWI")


def test_where_monai_label_is_missing_the_command_that_installs_it_is_told(refused, tmp_path):
    message = refused(monailabel=str(tmp_path))
    assert f"there is no MONAI Label in {tmp_path}" in message
    assert module.SET_UP in message
    assert (ROOT / module.SET_UP.split()[1]).is_file()


def test_a_file_that_is_no_program_is_no_environment(refused, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("not a program")
    assert "there is no MONAI Label in" in refused(monailabel=str(notes))


@pytest.fixture
def monai_label(tmp_path) -> str:
    """An environment that says it has MONAI Label, for what is checked after that."""
    python = tmp_path / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!{sys.executable}\nprint('0.8.5')\n")
    python.chmod(0o755)
    return str(tmp_path / "environment")


def test_a_port_that_another_program_has_is_refused(refused, monai_label):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"port {port} cannot be taken (Address already in use)" in refused(port=port, monailabel=monai_label)


@pytest.mark.parametrize("port", [0, 70000, "http", True])
def test_a_port_that_is_none_is_refused(refused, monai_label, port):
    assert f"--port is {port}: give a whole number" in refused(port=port, monailabel=monai_label)


def test_each_scan_is_linked_and_the_folder_of_the_scans_stays_as_it_was(patients, tmp_path):
    before = sorted(patients.rglob("*"))
    patterns = {name: [f"{{case}}/{{case}}_{name.lower()}.nii*"] for name in ("T1", "FLAIR")}
    knobs = {"channels": list(patterns), "channel_files": patterns}
    scans = module._scans(patients, knobs, "FLAIR")
    linked = module._link(scans, patients, tmp_path / "work")
    assert {path.name: path.resolve().name for path in linked.iterdir()} == {
        "BraTS2021_00000.nii.gz": "BraTS2021_00000_flair.nii.gz",
        "BraTS2021_00001.nii.gz": "BraTS2021_00001_flair.nii.gz",
    }
    assert sorted(patients.rglob("*")) == before


def test_a_scan_that_is_gone_is_no_longer_linked_but_its_label_stays(patients, tmp_path):
    linked = module._link({"A": patients / "A.nii.gz", "B": patients / "B.nii.gz"}, patients, tmp_path / "work")
    (linked / "labels").mkdir()
    module._link({"B": patients / "B.nii.gz"}, patients, tmp_path / "work")
    assert sorted(path.name for path in linked.iterdir()) == ["B.nii.gz", "labels"]


def test_fine_tuned_weights_are_kept_and_another_package_of_that_name_is_refused(package, tmp_path):
    app = tmp_path / "work" / "apps" / "monaibundle"
    app.mkdir(parents=True)  # as MONAI Label would make it
    _, copy = module._app(Path(sys.executable), tmp_path / "work", package)
    (copy / "models" / "model.pt").write_bytes(b"tuned")
    assert module._app(Path(sys.executable), tmp_path / "work", package)[1] == copy
    assert (copy / "models" / "model.pt").read_bytes() == b"tuned"
    assert (package / "models" / "model.pt").read_bytes() != b"tuned"
    other = shutil.copytree(package, tmp_path / package.name)
    (other / "LICENSE").write_text("another")
    with pytest.raises(InputError, match="serves another package of the name"):
        module._app(Path(sys.executable), tmp_path / "work", other)


def test_a_server_that_ends_at_once_is_shown_by_the_end_of_its_log(tmp_path):
    log = tmp_path / "server.log"
    log.write_text("first\nImportError: no module named pydicom_seg\n")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.raises(InputError, match="no module named pydicom_seg"):
        module._wait(ended, 9, "x", log)
