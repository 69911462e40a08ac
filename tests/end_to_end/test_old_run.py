"""Runs of an earlier version can be evaluated; what no longer works is refused with the revision of the run.

old_run/ and old_run_slab/ hold the text files of two runs of revision 2d633b9 with RUN_DIR, DATALIST and DATASET_DIR in
place of paths, and the names of the weights in their model.pt.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import pytest
import torch
from monai.bundle import run
from monai.networks.nets import DynUNet

from bundle.commands.export import export
from scripts.errors import InputError, input_error_message
from scripts.scoring.cohort import read_cases

RECORDED = Path(__file__).parent
SHAPES = {  # of the recorded networks: dimensions, input channels, and what stands before the names of the weights
    "old_run": (3, 4, ""),
    "old_run_slab": (2, 12, "network."),
}


@pytest.fixture(params=list(SHAPES))
def old_run(request, cohort, tmp_path, at_root) -> Path:
    """The recorded run with its paths and with weights of its network."""
    folder, recorded = tmp_path / "run", RECORDED / request.param
    folder.mkdir()
    paths = {"RUN_DIR": folder, "DATALIST": cohort.datalist, "DATASET_DIR": cohort.dataset_dir}
    for name in ("config.yaml", "knobs.yaml", "environment.json"):
        text = (recorded / name).read_text(encoding="utf-8")
        for placeholder, path in paths.items():
            text = text.replace(placeholder, str(path))
        (folder / name).write_text(text, encoding="utf-8")
    dimensions, channels, prefix = SHAPES[request.param]
    torch.manual_seed(0)
    network = DynUNet(dimensions, channels, 3, [3] * 3, [1, 2, 2], [2] * 2, filters=[4, 8, 8])
    weights = {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}
    assert list(weights) == (recorded / "model_keys.txt").read_text().split()
    torch.save(weights, folder / "model.pt")
    return folder


def test_an_old_run_is_evaluated(old_run, cohort):
    given = {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir)}
    run(
        "evaluating",
        config_file=["configs/evaluate.yaml", str(old_run / "knobs.yaml")],
        part="labelled",
        device="cpu",
        score_workers=1,
        **given,
    )
    cases = read_cases(old_run / "evaluation" / "cases.csv")
    assert cases["case"].nunique() == 4
    assert {"WT", "TC", "ET"} <= {*cases["region"]}
    assert "failed" not in {*cases["metric"]}


def test_an_old_run_segments(old_run, cohort, tmp_path):
    files = ["configs/inference.yaml", str(old_run / "knobs.yaml")]
    run("inferring", config_file=files, input=str(cohort.dataset_dir), output_dir=str(tmp_path / "out"), device="cpu")
    masks = sorted((tmp_path / "out").glob("*.nii.gz"))
    assert len(masks) == 5
    assert {nib.load(mask).shape for mask in masks} == {(32, 32, 32)}


def test_an_old_run_is_not_resumed_but_names_its_revision(old_run, cohort):
    before = {path.name: path.read_bytes() for path in old_run.iterdir()}
    given = {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir)}
    files = ["configs/train.yaml", "configs/tasks/phantom.yaml"]
    with pytest.raises(RuntimeError) as caught:  # MONAI's, around ours
        run("training", config_file=files, resume=str(old_run), device="cpu", **given)
    assert input_error_message(caught.value) == sentence(old_run, "resume")
    assert {path.name: path.read_bytes() for path in old_run.iterdir()} == before


def test_an_old_run_is_not_exported_but_names_its_revision(old_run, tmp_path):
    with pytest.raises(InputError) as caught:
        export(str(old_run), out=str(tmp_path / "dist"))
    assert str(caught.value) == sentence(old_run, "export")
    assert not (tmp_path / "dist").exists()


def sentence(folder: Path, purpose: str) -> str:
    return (
        f"{folder} was made at revision 2d633b9 by an earlier version whose parts have moved: check out that revision"
        f" to {purpose} it, or start a new run."
    )
