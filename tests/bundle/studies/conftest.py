"""Cross-validations of two configurations, as `python -m bundle crossval` leaves them, trained for seconds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from monai.bundle import run

from bundle.commands.evaluate import evaluate
from bundle.commands.phantom import phantom
from bundle.commands.prepare import prepare
from scripts.data.datalist import datalist_hash, read_datalist
from scripts.files import write_json
from tests.made import at_repository_root

TRAINED = {"patch_size": [16, 16, 16], "device": "cpu", "max_epochs": 1, "steps_per_epoch": 6, "val_interval": 1}
TRAINED |= {"learning_rate": 0.01, "ema_decay": 0.5, "overlap": 0.0}


class Studies(NamedTuple):
    """Six patients in two folds and a seventh for the test, one scan without a label, and cross-validations."""

    folder: Path  # with a, b and c: regions, another network, classes
    datalist: Path
    dataset_dir: Path

    @property
    def scan(self) -> Path:
        (unlabelled,) = (p for p in sorted(self.dataset_dir.iterdir()) if p.is_dir() and not list(p.glob("*_seg*")))
        return unlabelled


def cross_validate(studies: Studies, name: str, recipes: list[str], **settings) -> Path:
    out = studies.folder / name
    given = {"datalist": str(studies.datalist), "dataset_dir": str(studies.dataset_dir)}
    files = ["configs/train.yaml", "configs/tasks/phantom.yaml", *(f"configs/recipes/{one}.yaml" for one in recipes)]
    tables = []
    for fold in (0, 1):
        run("training", config_file=files, run_dir=str(out / f"fold{fold}"), fold=fold, **given, **TRAINED, **settings)
        scored = out / f"fold{fold}" / "validation_cases"
        evaluate(out / f"fold{fold}", part="validation", out=scored, overlap="0.0", device="cpu", score_workers="1")
        shutil.copytree(scored / "masks", out / "masks", dirs_exist_ok=True)
        tables.append(pd.read_csv(scored / "cases.csv", dtype=str, keep_default_na=False))
    pd.concat(tables).to_csv(out / "cases.csv", index=False)
    sha256 = datalist_hash(read_datalist(studies.datalist))
    record = {"task": "phantom", "recipes": recipes, "settings": {"overlap": "0.0"}, "folds": [0, 1], **given}
    write_json(out / "crossval.json", {**record, "sha256": sha256})
    return out


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    folder = tmp_path_factory.mktemp("studies")
    made = Studies(folder, folder / "datalist.json", folder / "patients")
    phantom(made.dataset_dir, cases=7, size=32, spacing=6.0, unlabelled=1)
    prepare(made.dataset_dir, out=made.datalist, folds=2, test=0.15, allow_unlabelled=True, picture=False, workers=1)
    with at_repository_root():
        cross_validate(made, "a", [], filters=[4, 8, 8])
        cross_validate(made, "b", [], filters=[4, 6, 8])
        cross_validate(made, "c", ["softmax_dice_ce"], filters=[4, 8, 8])
    return made
