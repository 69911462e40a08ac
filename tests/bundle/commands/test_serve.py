"""The `serve` command refuses invalid input before it starts anything."""

import shutil
import socket
import sys

import pytest
from PIL import Image

from bundle.commands.serve import serve
from bundle.packaging.monai_label_server import SET_UP
from scripts.errors import InputError
from tests.made import ROOT


@pytest.fixture
def refused(package, patients, tmp_path):
    """The sentence that ends `serve`, before it has made anything of a server."""

    def end(**given) -> str:
        with pytest.raises(InputError) as caught:
            serve(**{"package": str(package), "studies": str(patients), "out": str(tmp_path / "work"), **given})
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "work" / "apps").exists()
        return str(caught.value)

    return end


def test_missing_package_is_refused(refused):
    assert "package dist/x does not exist" in refused(package="dist/x")


def test_incomplete_package_is_refused(refused, package, tmp_path):
    broken = shutil.copytree(package, tmp_path / package.name)
    (broken / "configs" / "train.yaml").unlink()
    assert "lacks configs/train.yaml" in refused(package=str(broken))


def test_missing_or_empty_studies_folder_is_refused(refused, tmp_path):
    assert "nowhere does not exist: give the folder" in refused(studies=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "empty holds no scan" in refused(studies=str(tmp_path / "empty"))


def test_pictures_are_refused(refused, tmp_path):
    (tmp_path / "slices").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "slices" / "a.png")
    assert "a.png is not a NIfTI file: `serve` shows volumes" in refused(studies=str(tmp_path / "slices"))


def test_a_patient_without_all_channels_is_refused(refused, patients):
    (patients / "BraTS2021_00001" / "BraTS2021_00001_t2.nii.gz").unlink()
    assert "case BraTS2021_00001 lacks channel T2" in refused()


def test_channel_unknown_to_the_network_cannot_be_shown(refused):
    assert "--show is DWI: the channels are T1, T1c, T2, FLAIR." in refused(show="DWI")


def test_missing_monai_label_is_reported_with_the_install_command(refused, tmp_path):
    message = refused(monailabel=str(tmp_path))
    assert f"there is no MONAI Label in {tmp_path}" in message
    assert SET_UP in message
    assert (ROOT / SET_UP.split()[1]).is_file()


def test_file_that_is_not_executable_is_not_an_environment(refused, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("not a program")
    assert "there is no MONAI Label in" in refused(monailabel=str(notes))


@pytest.fixture
def monai_label(tmp_path) -> str:
    """An environment that claims to have MONAI Label, for the checks that follow."""
    python = tmp_path / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!{sys.executable}\nprint('0.8.5')\n")
    python.chmod(0o755)
    return str(tmp_path / "environment")


def test_occupied_port_is_refused(refused, monai_label):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"port {port} cannot be used (Address already in use)" in refused(port=port, monailabel=monai_label)


@pytest.mark.parametrize("port", ["0", "70000", "http"])
def test_invalid_port_is_refused(refused, monai_label, port):
    assert f"--port is '{port}': expected" in refused(port=port, monailabel=monai_label)
