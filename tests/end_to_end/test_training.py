"""The files of a training run, and the effect of its settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from ignite.engine import Events
from monai.bundle import run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bundle.commands.report import report
from scripts.scoring.cohort import read_cases
from scripts.scoring.tables import read_table
from tests.made import at_repository_root
from tests.made.gpu import needs_gpu

TRAIN = ["configs/train.yaml", "configs/tasks/phantom.yaml"]
SMALL = {"patch_size": [16, 16, 16], "filters": [4, 8, 8], "device": "cpu", "overlap": 0.0, "picture_interval": 1}
SHORT = {"max_epochs": 2, "steps_per_epoch": 2, "val_interval": 1}


def train_briefly(folder: Path, cohort, **settings) -> Path:
    """Train for two epochs of two steps; gives the run's folder."""
    given = {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir)}
    with at_repository_root():
        run("training", config_file=TRAIN, run_dir=str(folder), **{**given, **SMALL, **SHORT, **settings})
    return folder


@pytest.fixture
def train(cohort, tmp_path):
    return lambda name="run", **settings: train_briefly(tmp_path / name, cohort, **settings)


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory) -> Path:
    """A run with the settings of `train_briefly`, which tests only read."""
    return train_briefly(tmp_path_factory.mktemp("trained") / "run", cohort)


def test_run_records_its_versions_patients_and_config(train, cohort):
    folder = train(seed=5)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__
    assert environment["seed"] == 5
    assert len(environment["datalist"]["sha256"]) == 64
    patients = environment["patients"]
    assert len(patients["training"]) == 3
    assert len(patients["validation"]) == 1
    assert not set(patients["training"]) & set(patients["validation"])
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["patch_size"] == [16, 16, 16]
    assert config["datalist"] == str(cohort.datalist)
    assert "%" not in str(config["network_def"]), "a macro was left unresolved"


def test_history_has_a_row_for_each_epoch(trained):
    history = read_table(trained / "history.csv")
    assert list(history["epoch"]) == [1, 2]
    assert list(history["step"]) == [2, 4]
    scores = (
        read_cases(trained / "validation" / "cases.csv").query("metric == 'dice'").groupby("region")["value"].mean()
    )
    for region in ("WT", "TC", "ET"):
        assert 0 <= history[f"train_dice_{region}"].iloc[-1] <= 1
        assert history[f"val_dice_{region}"].iloc[-1] == pytest.approx(scores[region])
    assert history[["train_loss", "val_loss"]].iloc[-1].between(0.5, 3).all()
    assert (trained / "history.png").is_file()
    lines = [line.split()[2:] for line in (trained / "log.txt").read_text().splitlines()]
    assert [words[:2] for words in lines] == [["no", "component"], ["epoch", "1/2"], ["epoch", "2/2"]]


def test_classes_are_validated_on_the_regions_that_they_form(trained, cohort, tmp_path):
    given = {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir), **SMALL, **SHORT}
    with at_repository_root():
        run(
            "training",
            config_file=[*TRAIN, "configs/recipes/softmax_dice_ce.yaml"],
            run_dir=str(tmp_path / "run"),
            **given,
        )
    own, regions = (
        read_cases(folder / "validation" / "cases.csv").query("metric == 'volume_truth'")
        for folder in (tmp_path / "run", trained)
    )
    assert len(own) == 3
    assert own["value"].tolist() == regions["value"].tolist()
    history = read_table(tmp_path / "run" / "history.csv")
    assert history[["train_loss", "val_loss"]].iloc[-1].between(0.5, 5).all()


@pytest.fixture
def three_validate(cohort, tmp_path) -> dict[str, str]:
    """A list with one training patient and three validation patients."""
    content = json.loads(cohort.datalist.read_text())
    for entry, fold in zip(content["training"], (0, 0, 0, 1), strict=True):
        entry["fold"] = fold
    (tmp_path / "three.json").write_text(json.dumps(content))
    return {"datalist": str(tmp_path / "three.json")}


def test_log_curves_and_table_hold_median_and_low_validation_cases(train, three_validate, capsys):
    folder = train(**three_validate)
    line = next(line for line in capsys.readouterr().out.splitlines() if "epoch 2/2" in line)
    assert "validation Dice (mean, median, under 0.7 of 3)  WT " in line
    events = EventAccumulator(str(folder / "log"))
    events.Reload()
    dice = read_cases(folder / "validation" / "cases.csv").query("metric == 'dice'")
    assert dice["case"].nunique() == 3
    for region, own in dice.groupby("region")["value"]:
        assert f"{region} {own.mean():.3f} {own.median():.3f} {(own < 0.7).sum()}" in line
        for name, number in (("", own.mean()), ("median_", own.median()), ("under_0.7_", (own < 0.7).sum())):
            assert events.Scalars(f"dice_{name}{region}")[-1].value == pytest.approx(number)


def test_validation_report_gives_its_patients_role_and_grid(train, three_validate, capsys):
    folder = train(**three_validate)
    report(str(folder / "validation"))
    report(str(folder / "validation_best"))
    assert "3 of 3 evaluated patients were used to select the checkpoint" in " ".join(capsys.readouterr().out.split())
    for name in ("validation", "validation_best"):
        page = (folder / name / "report.html").read_text()
        assert "on the prepared grid, not the original label files" in page
        assert "3 used to select the checkpoint" in page
    chosen = json.loads((folder / "settings.yaml").read_text().splitlines()[2].partition(": ")[2])
    best = read_cases(folder / "validation_best" / "cases.csv").query("metric == 'dice' and region == 'WT'")["value"]
    # one median comes through text, the other does not: they may differ in the last bit
    assert chosen["dice_median_WT"] == pytest.approx(best.median(), rel=1e-12)


def test_tensorboard_has_curves_and_a_picture_of_a_validation_case(trained):
    events = EventAccumulator(str(trained / "log"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"loss", "val_score", "val_loss", "dice_WT", "dice_TC", "dice_ET", "train_dice_WT"} <= set(tags["scalars"])
    assert len(events.Scalars("loss")) == 4
    assert tags["images"]


def test_batches_prepared_ahead_train_the_same_weights(small_train):
    learned = []
    for ahead in (False, True):
        config = small_train(steps_per_epoch=3, num_workers=0, val_interval=2, overlap=0.0, begin="$@folder.open()")
        torch.manual_seed(0)
        trainer = config.get_parsed_content("train#trainer")
        trainer.data_loader.ahead = ahead
        config.get_parsed_content("begin")
        trainer.run()
        learned.append(trainer.network.state_dict())
        shutil.rmtree(config["run_dir"])
    assert all(torch.equal(weights, learned[1][name]) for name, weights in learned[0].items())


@needs_gpu
def test_no_step_waits_for_the_gpu(small_train):
    config = small_train(device="cuda", steps_per_epoch=12, val_interval=2, overlap=0.0, begin="$@folder.open()")
    for number in range(len(config["train"]["augmentation"]["transforms"])):
        config[f"train::augmentation::transforms::{number}::prob"] = 1.0
    config.parse(True)
    trainer = config.get_parsed_content("train#trainer")
    config.get_parsed_content("begin")
    for step, mode in ((3, "error"), (10, "default")):  # the first steps load kernels, the last of an epoch reads
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=step), torch.cuda.set_sync_debug_mode, mode)
    try:
        trainer.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.state.iteration == 24


@pytest.mark.parametrize("settings", [{"num_workers": 2}, {"cache": "disk"}, {"cache": "none"}], ids=str)
def test_neither_workers_nor_the_cache_change_what_is_learned(trained, train, tmp_path, settings):
    folders = [trained, train("other", **settings, cache_dir=str(tmp_path / "cache"))]
    plain, other = (torch.load(folder / "model.pt", weights_only=True) for folder in folders)
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_accumulated_batches_take_one_step(train):
    folder = train(accumulation_steps=2)
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert state["engine"] == {"epoch": 2, "iteration": 8}
    assert {entry["step"].item() for entry in state["optimizer"]["state"].values()} == {4}


def test_a_run_starts_from_the_weights_of_another(trained, train, capsys):
    second = train("second", init_from=str(trained / "model.pt"), learning_rate=0.0)
    assert "took" in capsys.readouterr().out
    old, new = (torch.load(folder / "model.pt", weights_only=True) for folder in (trained, second))
    assert all(torch.allclose(old[name], new[name], atol=1e-6) for name in old)


def test_scored_run_has_numbers_on_the_grid_of_original_labels(trained, cohort, tmp_path, at_root):
    settings = ["configs/evaluate.yaml", str(trained / "settings.yaml")]
    given = {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir)}
    more = {"device": "cpu", "overlap": 0.0, "score_workers": 1, "output_dir": str(tmp_path / "evaluation")}
    run("evaluating", config_file=settings, **more, **given)
    frame = read_cases(tmp_path / "evaluation" / "cases.csv")
    case = frame["case"].iloc[0]
    label = nib.load(cohort.dataset_dir / case / f"{case}_seg.nii.gz")
    mask = nib.load(tmp_path / "evaluation" / "masks" / f"{case}.nii.gz")
    assert mask.shape == label.shape
    assert np.allclose(mask.affine, label.affine)
    assert mask.get_data_dtype() == np.uint8
    voxel_ml = np.prod(label.header.get_zooms()) / 1000
    truth = frame.query("region == 'WT' and metric == 'volume_truth'")["value"].item()
    assert truth == pytest.approx((np.asarray(label.dataobj) > 0).sum() * voxel_ml)
    told = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["about"]["patients"]
    assert len(told["validation"]) == 1, "the scored patient is a validation patient, and the record does not say so"


def test_mirror_averaging_and_probabilities_are_settings(trained, cohort, tmp_path, at_root):
    files = ["configs/inference.yaml", str(trained / "settings.yaml")]
    given = {"input": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir), "device": "cpu", "overlap": 0.0}
    for name, tta in (("plain", False), ("mirrored", True)):
        run("inferring", config_file=files, output_dir=str(tmp_path / name), save_probabilities=True, tta=tta, **given)
    plain, mirrored = (
        np.asarray(nib.load(next((tmp_path / name / "probabilities").glob("*.nii.gz"))).dataobj)
        for name in ("plain", "mirrored")
    )
    assert plain.shape == (32, 32, 32, 3)
    assert 0 <= plain.min() <= plain.max() <= 1
    assert np.abs(plain - mirrored).max() > 1e-4


def test_patients_of_the_initial_weights_count_as_training_patients(trained, train):
    second = train("second", init_from=str(trained / "model.pt"))  # every patient trained or validated the first
    before, after = (json.loads((run / "environment.json").read_text())["patients"] for run in (trained, second))
    assert after["training"] == sorted(before["training"] + before["validation"])


@pytest.mark.parametrize("setting", ["run_dir", "checkpoint"])
def test_run_or_checkpoint_brings_its_own_minimum_component_volumes(trained, read_config, tmp_path, setting):
    folder = shutil.copytree(trained, tmp_path / "run")
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    settings["min_component_ml"] = {"WT": 0.2, "TC": 0.1, "ET": 0.0}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    given = {setting: str(folder if setting == "run_dir" else folder / "model.pt")}
    workflows = ["evaluate", "inference"] if setting == "checkpoint" else ["evaluate"]
    for workflow in workflows:
        parser = read_config(f"configs/{workflow}.yaml", "configs/tasks/phantom.yaml", **given)
        assert parser.get_parsed_content("min_component_ml") == settings["min_component_ml"]
