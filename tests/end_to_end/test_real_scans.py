"""Real scans go through the same commands, and training on them improves the score of a held-out patient."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from monai.bundle import run

from bundle.commands.prepare import prepare
from scripts.scoring.cohort import read_cases

SHORT = {"max_epochs": 1, "val_interval": 1, "overlap": 0.0, "device": "cpu", "filters": [8, 16, 32], "ema_decay": 0.98}


def median_dice(folder: Path, region: str) -> float:
    frame = read_cases(folder / "cases.csv")
    return float(frame.query("metric == 'dice' and region == @region")["value"].median())


def dice_before_and_after(
    datalist: Path, source: Path, task: str, tmp_path: Path, region: str, steps: int, **settings: object
) -> tuple[float, float]:
    """Median Dice on the held-out patient: of the untrained network, and after so many steps of training."""
    given = {"datalist": str(datalist), "dataset_dir": str(source)}
    training = ["configs/train.yaml", f"configs/tasks/{task}.yaml"]
    scores = []
    for name, count, rate in (("random", 1, 0.0), ("trained", steps, 3.0e-3)):
        amount = {"steps_per_epoch": count, "learning_rate": rate}
        run("training", config_file=training, run_dir=str(tmp_path / name), **given, **SHORT, **amount, **settings)
        evaluate = ["configs/evaluate.yaml", str(tmp_path / name / "settings.yaml")]
        run("evaluating", config_file=evaluate, device="cpu", overlap=0.0, score_workers=1, **given)
        scores.append(median_dice(tmp_path / name / "evaluation", region))
    return scores[0], scores[1]


@pytest.mark.slow(reason="prepares real volumes, trains for 60 steps, segments twice")
@pytest.mark.usefixtures("at_root")
def test_glioma_training_beats_the_untrained_network_on_a_new_patient(shared_data, tmp_path):
    source, datalist = shared_data("brats2015"), tmp_path / "datalist.json"
    prepare(str(source), out=str(datalist), task="brats2015", folds=4, test=0.2, picture=False)
    more = {"steps": 60, "spacing": [4.0, 4.0, 4.0], "patch_size": [32, 32, 32]}
    before, after = dice_before_and_after(datalist, source, "brats2015", tmp_path, "WT", **more)
    assert after > before + 0.2, f"untrained {before:.2f}, trained {after:.2f}"


@pytest.mark.slow(reason="prepares real volumes, trains for 150 steps, segments twice")
@pytest.mark.usefixtures("at_root")
def test_lesions_of_another_disease_are_learned_with_a_short_task(shared_data, tmp_path):
    source, datalist = shared_data("open-ms"), tmp_path / "datalist.json"
    prepare(str(source), out=str(datalist), task="open_ms", folds=2, picture=False)
    # the validation patient is scored; a single epoch leaves nothing to select. Its 1.3 ml of lesions are a
    # thousandth of the brain: outlining everything scores 0.002, and one patient shows little more than where to look
    more = {"spacing": [3.0, 3.0, 3.0], "patch_size": [32, 32, 32], "fold": fold_of(datalist, "patient07")}
    before, after = dice_before_and_after(datalist, source, "open_ms", tmp_path, "lesion", steps=150, **more)
    assert after > 5 * before, f"untrained {before:.4f}, trained {after:.4f}"


def fold_of(datalist: Path, patient: str) -> int:
    return next(e["fold"] for e in json.loads(datalist.read_text())["training"] if e["patient"] == patient)
