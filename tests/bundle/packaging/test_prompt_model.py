"""The folder of a promptable model is written once its weights have been loaded by the package's own code."""

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from bundle.packaging.prompt_model import write_prompt_model
from scripts.errors import InputError
from scripts.files import read_mapping
from tests.made.promptable import WRITERS, require


@pytest.fixture
def write(package, tmp_path):
    """A function that writes the model next to a copy of a package."""
    model = shutil.copytree(package, tmp_path / "tumour_segmentation-1.0.0")
    settings = read_mapping(model / "configs" / "inference.yaml")

    def write_model(name="medsam", channel="FLAIR", weights=None, python=Path(sys.executable)):
        return write_prompt_model(model, python, settings, name, channel, weights)

    return write_model


def test_the_model_sees_one_channel_with_weights_that_are_there(write, tmp_path, capsys):
    licence = require("medsam").licence
    weights = WRITERS["medsam"](tmp_path / "weights")
    capsys.readouterr()
    name = write(weights=weights)
    assert name == "tumour_segmentation-1.0.0_medsam_deepgrow"
    config = json.loads((tmp_path / name / "configs" / "inference.json").read_text())
    session = config["clicks"]["make_session"]
    assert (session["name"], session["channel"], session["weights"]) == ("medsam", "FLAIR", str(weights))
    assert capsys.readouterr().out == f"terms: {licence}\n"


def test_weights_of_another_model_are_refused_before_the_start(write, tmp_path):
    require("medsam")
    weights = WRITERS["sam2"](tmp_path / "weights")
    with pytest.raises(InputError, match="are of SAM 2: expected SAM or MedSAM"):
        write(weights=weights)
    assert not [*tmp_path.glob("*_deepgrow")]


def test_a_package_that_is_missing_for_the_server_is_named(write):
    if find_spec("transformers") is not None:
        pytest.skip("transformers is installed")
    with pytest.raises(InputError, match=r"medsam needs a package that is not installed .*pip install transformers"):
        write()


@pytest.mark.parametrize("channel", [None, "T9"])
def test_another_channel_is_refused(write, channel):
    with pytest.raises(InputError, match=f"--channel is {channel}: expected the one that medsam sees, of T1, T1c"):
        write(channel=channel)


def test_a_package_from_before_is_refused(write, tmp_path):
    (serving,) = tmp_path.glob("*/scripts/inference/promptable/serving.py")
    serving.unlink()
    with pytest.raises(InputError, match="export it again"):
        write()
