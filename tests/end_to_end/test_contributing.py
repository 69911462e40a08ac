"""The examples of CONTRIBUTING.md run as they are printed, from files of the user's own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from bundle.commands.evaluate import evaluate
from bundle.commands.prepare import prepare
from bundle.commands.report import report
from bundle.commands.train import train
from scripts.files import read_mapping
from tests.made import ROOT

BLOCK = re.compile(r"```(?:yaml|python)\n# (my_\w+\.\w+)\n(.+?)```", re.DOTALL)
TINY = {"max_epochs": "2", "steps_per_epoch": "2", "patch_size": "[16,16,16]", "filters": "[4,8,8]"}


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """The folder with a file for each example."""
    for name, text in BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_metrics", None)


@pytest.mark.usefixtures("at_root")
def test_metric_transform_and_schedule_of_ones_own_train_and_report(examples, cohort, capsys):
    recipes = [str(examples / name) for name in ("my_transform.yaml", "my_schedule.yaml", "my_loss.yaml")]
    run = examples / "run"
    given = {**TINY, "added_metrics": "['my_metrics.volumetric_similarity']", "amp": "False", "device": "cpu"}
    train("phantom", *recipes, datalist=cohort.datalist, dataset_dir=cohort.dataset_dir, out=run, **given)
    assert "volumetric_similarity (mean)  WT 0." in capsys.readouterr().out
    evaluate(run, device="cpu", score_workers="1")
    rows = pd.read_csv(run / "evaluation" / "cases.csv")
    own = rows[rows["metric"] == "volumetric_similarity"]
    assert list(own["region"]) == ["WT", "TC", "ET"]
    assert own["value"].between(0, 1).all()
    definitions = read_mapping(run / "evaluation" / "evaluation.json")["definitions"]["metrics"]
    assert definitions["volumetric_similarity"].startswith("1 - |FN - FP|")
    report(run / "evaluation")
    assert "volumetric similarity" in (run / "evaluation" / "report.html").read_text(encoding="utf-8")


def test_layout_of_ones_own_is_prepared(examples, cohort):
    bids = examples / "bids"
    suffixes = {"t1ce": "ce-gd_T1w", "flair": "FLAIR", "seg": "dseg"}
    for folder in sorted(path for path in Path(cohort.dataset_dir).iterdir() if list(path.glob("*_seg.nii.gz"))):
        for theirs, bids_suffix in suffixes.items():
            target = bids / folder.name / "anat" / f"{folder.name}_{bids_suffix}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(next(folder.glob(f"*_{theirs}.nii.gz")).read_bytes())
    out = examples / "bids.json"
    prepare(str(bids), task=str(examples / "my_layout.yaml"), out=str(out), folds=2, picture=False, workers=1)
    content = read_mapping(out)
    assert content["channels"] == ["T1c", "FLAIR"]
    assert len(content["training"]) == 4
