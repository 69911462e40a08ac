"""The commands that start a workflow give MONAI the same as the long form that they print."""

import json
import os
import shlex
import subprocess
import sys

import fire
import numpy as np
import pytest

from bundle.__main__ import main
from bundle.commands.workflows import list_configs, long_form, parse_settings, training_files
from scripts.data.images import read_image
from scripts.errors import InputError
from tests.made import ROOT

pytestmark = pytest.mark.usefixtures("at_root")


@pytest.fixture
def run_folder(package):
    """The folder of the run that the package was made of."""
    return package.parents[1] / "run"


@pytest.fixture
def calm(monkeypatch):
    """The workflows' excepthook is removed afterwards."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def test_files_are_train_task_and_recipes_in_order():
    files = ["configs/train.yaml", "configs/tasks/brats.yaml", "configs/recipes/focal_tversky.yaml"]
    assert training_files("brats", ["focal_tversky"]) == files
    assert training_files("configs/tasks/brats.yaml", ["configs/recipes/focal_tversky.yaml"]) == files


def test_several_processes_add_their_own_config(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    files = training_files("brats", ["small_gpu"])
    assert files[:2] == ["configs/train.yaml", "configs/multi_gpu_train.yaml"]
    assert files[-1] == "configs/recipes/small_gpu.yaml"


@pytest.mark.parametrize(
    ("task", "recipes", "sentence"),
    [
        ("brat", [], r"there is no task 'brat' \(did you mean brats"),
        ("focal_tversky", ["brats"], "there is no recipe 'brats'; it is a task: give the task first"),
        ("focal_tversky", [], "there is no task 'focal_tversky'; it is a recipe"),
        ("brats", ["mine.yaml"], "the recipe mine.yaml does not exist"),
        ("brats", ["bce_dice", "dice_focal"], "recipes bce_dice and dice_focal both set region_loss"),
    ],
)
def test_wrong_task_or_recipe_is_named(task, recipes, sentence):
    with pytest.raises(InputError, match=sentence):
        training_files(task, recipes)


def test_the_long_form_refuses_recipes_with_one_section(cohort):
    recipes = [f"configs/recipes/{name}.yaml" for name in ("bce_dice", "dice_focal")]
    files = "[" + ",".join(f"'{name}'" for name in ["configs/train.yaml", "configs/tasks/phantom.yaml", *recipes]) + "]"
    words = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "check",
        "--config_file",
        files,
        "--datalist",
        cohort.datalist,
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: recipes bce_dice and dice_focal both set region_loss" in done.stderr


@pytest.mark.parametrize(
    "text",
    ["2024_01_15", "[96, 96, 96]", "1e3", "a,b", "3e-4", "true", "null", "runs/it's mine", "{WT: 1.0}", "-1", "WT"],
)
def test_the_long_form_gives_fire_the_same_value(text):
    settings = parse_settings({"value": text})
    words = shlex.split(long_form("training", ["a.yaml"], settings))
    found = {}
    fire.Fire(lambda *_, **options: found.update(options), command=words[4:], serialize=lambda _: None)
    assert found["config_file"] == ["a.yaml"]
    assert found["value"] == settings["value"]
    assert type(found["value"]) is type(settings["value"])


def test_names_stay_names_and_yaml_constants_are_understood():
    parsed = parse_settings({"a": "2024_01_15", "b": "1_000.5", "c": "false", "d": "null", "e": "[1,2]"})
    assert parsed == {"a": "2024_01_15", "b": "1_000.5", "c": False, "d": "$None", "e": [1, 2]}


def test_help_lists_every_task_and_recipe_with_its_first_line(capsys):
    main(["train", "--help"])
    shown = capsys.readouterr().out
    assert list_configs() in shown
    for path in [*(ROOT / "configs" / "tasks").glob("*.yaml"), *(ROOT / "configs" / "recipes").glob("*.yaml")]:
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        assert f"    {path.stem} " in shown
        assert first in shown


@pytest.mark.usefixtures("calm")
def test_evaluate_finds_the_data_list_of_its_run(run_folder, tmp_path, capsys):
    main(["evaluate", str(run_folder), "--out", str(tmp_path / "e"), "--score_workers", "1", "--json"])
    shown = capsys.readouterr()
    numbers = json.loads(shown.out)
    (rows,) = numbers.values()
    assert [row["region"] for row in rows] == ["WT", "TC", "ET"]
    assert all(row["n"] == 1 for row in rows)
    assert "python -m monai.bundle run evaluating --config_file" in shown.err
    assert (tmp_path / "e" / "cases.csv").is_file()


@pytest.mark.usefixtures("calm")
def test_a_run_and_its_package_segment_alike(run_folder, package, cohort, tmp_path):
    scan = next(path for path in sorted(cohort.dataset_dir.iterdir()) if path.is_dir())
    main(["segment", str(run_folder), str(scan), "--output_dir", str(tmp_path / "run"), "--device", "cpu"])
    words = [sys.executable, "-m", "bundle", "segment", package, scan, "--out", tmp_path / "package", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    by_run, by_package = (read_image(tmp_path / kind / f"{scan.name}.nii.gz").voxels for kind in ("run", "package"))
    np.testing.assert_array_equal(by_run, by_package)


@pytest.mark.usefixtures("calm")
def test_check_without_a_data_list_builds_network_and_loss(capsys):
    small = ["--filters", "[4,8,8]", "--patch_size", "[16,16,16]", "--device", "cpu"]
    main(["check", "phantom", "focal_tversky", *small])
    assert "DynUNet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "phantom"], "train needs --datalist"),
        (["evaluate", "nowhere"], "nowhere is not a run: expected nowhere/settings.yaml"),
        (["segment", "nowhere", "scan.nii.gz", "--out", "x"], "nowhere is not a run, and not a package"),
        (["train", "phantom", "--datalist", "l.json", "--out", "a", "--resume", "b"], "both given"),
        (["check", "phantom", "--optimzer::lr", "0.1"], "there is no section 'optimzer' (did you mean optimizer?)"),
    ],
)
def test_a_wrong_call_ends_in_one_sentence(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert sentence in said
    assert "\n" not in said
