"""The `prompt` command writes a mask on the scan's grid, and refuses what is wrong in a sentence."""

from importlib.util import find_spec

import nibabel as nib
import numpy as np
import pytest

from bundle.__main__ import run_command
from scripts.errors import InputError
from tests.made import save_nifti
from tests.made.clicks import SHAPE, towards
from tests.made.promptable import WRITERS, require


@pytest.fixture
def scan(tmp_path):
    voxels = np.random.default_rng(0).random((*SHAPE, 2)).astype(np.float32) + 1
    return save_nifti(tmp_path / "scan.nii.gz", voxels, towards("SLP"))


@pytest.mark.parametrize("name", WRITERS)
def test_the_mask_is_on_the_grid_of_the_scan(scan, tmp_path, capsys, name):
    licence = require(name).licence
    weights = WRITERS[name](tmp_path / "weights")
    capsys.readouterr()
    run_command(
        "prompt", str(scan), "--with", name, "--channel", "1", "--points", "10,8,6", "--background", "[[4, 9, 9]]",
        "--box", "5,4,4,12,11,8", "--weights", str(weights), "--out", str(tmp_path / "mask.nii.gz"),
    )  # fmt: skip
    mask, image = nib.load(tmp_path / "mask.nii.gz"), nib.load(scan)
    values = np.asarray(mask.dataobj)
    assert values.shape == SHAPE
    assert np.array_equal(mask.affine, image.affine)
    assert values[10, 8, 6] == 1
    assert values[4, 9, 9] == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"terms: {licence}\n")
    assert f"{values.sum()} voxels" in printed


POINTS = ["--points", "10,8,6"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--with", "sam2"], "nothing says what to segment"),
        (["--with", "sam2", "--points", "a"], r"--points is 'a': expected indices of voxels"),
        (["--with", "sam3", *POINTS], "--with is 'sam3': expected 'nninteractive', 'sam2' or 'medsam'"),
        (POINTS, "prompt needs --with"),
        (["--with", "sam2", *POINTS, "--out", "mask.txt"], "expected a file that ends in .nii or .nii.gz"),
    ],
)
def test_wrong_options_are_refused(scan, tmp_path, options, words):
    out = [] if "--out" in options else ["--out", str(tmp_path / "mask.nii.gz")]
    with pytest.raises(InputError, match=words):
        run_command("prompt", str(scan), *options, *out)
    assert not (tmp_path / "mask.nii.gz").exists()


def test_a_mask_that_is_there_is_kept(scan, tmp_path):
    (tmp_path / "mask.nii.gz").write_bytes(b"kept")
    with pytest.raises(InputError, match="is there already"):
        run_command("prompt", str(scan), "--with", "sam2", *POINTS, "--out", str(tmp_path / "mask.nii.gz"))
    with pytest.raises(InputError, match="is the scan itself"):
        run_command("prompt", str(scan), "--with", "sam2", *POINTS, "--out", str(scan), "--overwrite")


@pytest.mark.parametrize(("name", "module"), [("sam2", "transformers"), ("nninteractive", "nnInteractive")])
def test_a_missing_package_is_named_with_its_installation(scan, tmp_path, name, module):
    if find_spec(module) is not None:
        pytest.skip(f"{module} is installed")
    with pytest.raises(InputError, match=rf"{name} needs a package that is not installed \({module}.*pip install"):
        run_command("prompt", str(scan), "--with", name, *POINTS, "--out", str(tmp_path / "mask.nii.gz"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--channel", "0", "--points", "10,8,14"], "lies outside the scan, which has 20 x 18 x 14 voxels"),
        (["--channel", "0", "--box", "0,0,0,20,1,1"], "reaches outside the scan"),
        (["--channel", "2", *POINTS], "--channel is 2: expected a number from 0 to 1"),
        (POINTS, "no --channel is given"),
    ],
)
def test_wrong_prompts_are_refused_before_weights_are_loaded(scan, tmp_path, capsys, options, words):
    require("sam2")
    with pytest.raises(InputError, match=words):
        run_command("prompt", str(scan), "--with", "sam2", *options, "--out", str(tmp_path / "mask.nii.gz"))
    assert "terms" not in capsys.readouterr().out
