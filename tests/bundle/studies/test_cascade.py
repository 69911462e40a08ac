"""A second stage finds its first stage, and no patient's mask is of a network that was trained on them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from monai.bundle import run

from bundle.commands.evaluate import evaluate
from bundle.commands.export import export
from bundle.studies.cascade import MASKS, find_first_stage, segment_first_stage
from scripts.files import read_mapping, write_json
from tests.bundle.studies.conftest import TRAINED, Studies
from tests.made import at_repository_root, refused

pytestmark = pytest.mark.usefixtures("at_root")


@pytest.fixture(scope="module")
def second(studies: Studies, tmp_path_factory) -> Path:
    """Fold 0 of a second stage on top of cross-validation a."""
    folder = tmp_path_factory.mktemp("second") / "fold0"
    files = ["configs/train.yaml", "configs/tasks/phantom.yaml", "configs/recipes/cascade.yaml"]
    given = {"datalist": str(studies.datalist), "dataset_dir": str(studies.dataset_dir)}
    with at_repository_root():
        stage = {"first_stage": str(studies.folder / "a"), "filters": [4, 8, 8], "run_dir": str(folder)}
        run("training", config_file=files, **given, **TRAINED, **stage)
    return folder


def test_evaluation_runs_the_first_stage_on_unseen_patients(second, studies, tmp_path):
    assert find_first_stage([[second]]) == studies.folder / "a"
    evaluate(second, part="test", out=tmp_path / "test", device="cpu", score_workers="1")
    assert len([*(tmp_path / "test" / MASKS).rglob("*.nii.gz")]) == 1
    evaluate(second, part="validation", out=tmp_path / "validation", device="cpu", score_workers="1")
    assert not (tmp_path / "validation" / MASKS).exists()  # out-of-fold masks, not those of all folds


def test_new_scans_are_segmented_by_all_first_stage_folds(studies, tmp_path):
    given = {"input": str(studies.scan), "device": "cpu"}
    setting = segment_first_stage(studies.folder / "a", given, tmp_path)
    (folder,) = setting["first_stage_masks"]
    assert [file.name for file in Path(folder).glob("*.nii.gz")] == [f"{studies.scan.name}.nii.gz"]


def test_first_stage_patients_in_another_list_are_refused(second, studies, tmp_path):
    content = read_mapping(studies.datalist)
    write_json(tmp_path / "other.json", {**content, "seed": 5})
    options = {"datalist": tmp_path / "other.json", "dataset_dir": studies.dataset_dir, "part": "labelled"}
    message = refused(evaluate, second, out=tmp_path / "out", **options)
    assert "is not the data list of the first stage" in message
    assert not (tmp_path / "out").exists()


def test_a_second_stage_is_not_exported(second, tmp_path):
    copied = shutil.copytree(second, tmp_path / "run")
    assert "is the second stage of a cascade" in refused(export, copied, out=tmp_path / "dist")
