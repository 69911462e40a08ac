"""A real MONAI Label server has a public promptable model next to the automatic model of a package."""

import subprocess

import nibabel as nib
import numpy as np
import pytest

from tests.made.monai_label import ENVIRONMENT, Served, needs_server, serve
from tests.made.promptable import WRITERS, require

PATIENT = "BraTS2021_00001"


def has_transformers() -> bool:
    """Whether the environment of the server has the package of SAM 2 and MedSAM."""
    python = ENVIRONMENT / "bin" / "python"
    return python.exists() and not subprocess.run([python, "-c", "import transformers"], capture_output=True).returncode


pytestmark = [
    *needs_server,
    pytest.mark.skipif(not has_transformers(), reason=f"no transformers in {ENVIRONMENT} (docs/prompt.md)"),
]


@pytest.fixture(scope="module")
def served(package, cohort, tmp_path_factory):
    """A server of the cohort, with MedSAM of small random weights on FLAIR."""
    require("medsam")
    folder = tmp_path_factory.mktemp("served")
    weights = WRITERS["medsam"](folder / "weights")
    with serve(package, cohort.dataset_dir, folder, "--with", "medsam", "--channel", "FLAIR", "--weights", weights) as (
        server
    ):
        assert "terms: MedSAM" in (folder / "told.txt").read_text()
        yield server


def prompted(served: Served) -> Served:
    """The server, whose clicks go to the promptable model."""
    return served._replace(name=f"{served.name}_medsam")


def test_the_promptable_model_is_next_to_the_automatic_one(served):
    info = served.ask("GET", "/info/")
    assert [*info["models"]] == [served.name, f"{served.name}_medsam_deepgrow"]
    assert info["models"][f"{served.name}_medsam_deepgrow"]["labels"] == {"wt": 1, "tc": 2, "et": 3}


def test_clicks_are_answered_on_the_grid_of_the_file(served):
    file = nib.load(served.patients / PATIENT / f"{PATIENT}_flair.nii.gz")
    inside, outside = (16, 16, 16), (10, 20, 12)
    first, told = prompted(served).click(PATIENT, "tc", foreground=[inside])
    assert np.allclose(first.affine, file.affine, atol=1e-4)
    assert first.shape == file.shape
    assert np.asarray(first.dataobj)[inside] == 1
    assert not told["kept"]
    assert told["windows"] > 0
    second, told = prompted(served).click(PATIENT, "tc", foreground=[inside], background=[outside])
    assert told["kept"]
    assert np.asarray(second.dataobj)[outside] == 0


def test_wrong_clicks_get_422_and_a_sentence(served):
    for sentence, clicks in {
        "lies outside the scan": {"foreground": [[40, 16, 16]]},
        "all clicks on TC are background": {"background": [[16, 16, 16]]},
    }.items():
        status, content = served.refuse(PATIENT, f"{served.name}_medsam_deepgrow", label="tc", device="cpu", **clicks)
        assert status == 422
        assert sentence in content["detail"]
