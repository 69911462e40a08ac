"""Exported packages work alone and equal the repository; invalid ones are refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow, run, verify_metadata, verify_net_in_out

from bundle.commands.export import export
from bundle.commands.publish import publish
from bundle.commands.report import report
from bundle.packaging import archive, metadata, package_check, parity
from scripts.data.datalist import file_hash
from scripts.errors import InputError
from scripts.inference import package_manifest as manifest
from tests.made import ROOT, at_repository_root

# sizes as of a real training, since TorchScript, ONNX and the package must cope with them
SETTINGS = {"patch_size": [16, 16, 16], "filters": [4, 8, 8], "device": "cpu", "overlap": 0.0}
SHORT = {"max_epochs": 2, "steps_per_epoch": 2, "val_interval": 1}
FORMATS = "ts,pt2,onnx"


class Released(NamedTuple):
    """A run, its evaluation, the package made of both, and the training data."""

    run: Path
    evaluation: Path
    package: Path
    given: dict[str, str]


@pytest.fixture(scope="module")
def released(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    given = {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir)}
    with at_repository_root():
        task = ["configs/train.yaml", "configs/tasks/phantom.yaml"]
        run("training", config_file=task, run_dir=str(folder / "run"), **given, **SETTINGS, **SHORT)
        settings = str(folder / "run" / "settings.yaml")
        scored = {"part": "validation", "device": "cpu", "output_dir": str(folder / "evaluation"), "score_workers": 1}
        run("evaluating", config_file=["configs/evaluate.yaml", settings], **given, **scored)
        report(str(folder / "evaluation"))
        evaluation = str(folder / "evaluation")
        export(str(folder / "run"), out=str(folder / "dist"), evaluation=evaluation, formats=FORMATS)
    return Released(folder / "run", folder / "evaluation", folder / "dist" / "brats2021_segmentation-0.1.0", given)


@pytest.fixture
def inside(released, tmp_path, monkeypatch):
    """A copy of the package in an otherwise empty folder, as working directory."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    alone = tmp_path / "alone" / "brats2021_segmentation"
    shutil.copytree(released.package, alone)
    monkeypatch.chdir(alone)
    return alone


def alone(package: Path, *arguments: str) -> subprocess.CompletedProcess:
    """MONAI's own command in the package, where nothing of the repository is on Python's path; one thread, as here."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "monai.bundle", "run", *arguments]
    return subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, check=False)


def test_a_package_segments_voxel_for_voxel_as_the_repository_does(released, inside, tmp_path, at_root):
    patients = released.given["dataset_dir"]
    run(
        "inferring",
        config_file=["configs/inference.yaml", str(released.run / "settings.yaml")],
        input=patients,
        output_dir=str(tmp_path / "here"),
        device="cpu",
    )
    done = alone(
        inside, "--config_file", "configs/inference.yaml", "--input", patients, "--output_dir", "out", "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr
    masks = sorted((tmp_path / "here").glob("*.nii.gz"))
    assert len(masks) == 5
    for mask in masks:
        here, there = nib.load(mask), nib.load(inside / "out" / mask.name)
        assert np.array_equal(np.asarray(here.dataobj), np.asarray(there.dataobj))
        assert np.array_equal(here.affine, there.affine)


def test_a_package_holds_all_that_git_tracks_under_scripts(released):
    listed = subprocess.run(["git", "ls-files", "scripts"], cwd=ROOT, capture_output=True, text=True, check=True)
    package = released.package
    held = {path.relative_to(package).as_posix() for path in archive.list_files(package / "scripts")}
    assert held == set(listed.stdout.split())


def test_every_module_of_a_package_can_be_imported_alone(inside):
    names = (path.relative_to(inside).with_suffix("") for path in (inside / "scripts").rglob("*.py"))
    modules = [".".join(name.parts).removesuffix(".__init__") for name in names]
    code = f"""import importlib
for name in {modules}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        assert error.name == "triton", error  # a faster way on a GPU, tried and left where it is not installed
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=inside, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(modules) > 30


def test_a_package_trains_alone(released, inside):
    given = [f"--{name}={value}" for name, value in released.given.items()]
    done = alone(
        inside, "training", "--config_file", "configs/train.yaml", *given, "--run_dir", "new", "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr
    learned = torch.load(inside / "new" / "model.pt", weights_only=True)
    exported = torch.load(inside / "models" / "model.pt", weights_only=True)
    assert learned.keys() == exported.keys()
    assert all(torch.equal(learned[name], exported[name]) for name in learned), "another training"


def test_the_zoos_checks_pass(released, inside, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(metadata.read_schema()))
    verify_metadata(meta_file="configs/metadata.json", filepath=str(schema))
    verify_net_in_out("network_def", "configs/metadata.json", "configs/inference.yaml", device="cpu")
    for config, kind in (("train", "train"), ("evaluate", "infer"), ("inference", "infer")):
        workflow = ConfigWorkflow(
            config_file=f"configs/{config}.yaml",
            meta_file="configs/metadata.json",
            workflow_type=kind,
            logging_file="configs/logging.conf",
            device="cpu",
            **({} if config == "inference" else released.given),
            **({"output_dir": "out"} if config == "evaluate" else {}),
        )
        workflow.initialize()
        assert workflow.check_properties() == [], config


@pytest.mark.parametrize(
    "command",
    [
        ["black", "--check", "--line-length=120", "--skip-magic-trailing-comma"],
        ["isort", "--check", "--profile=black", "--line-length=120"],
        ["flake8", "--max-line-length=120", "--extend-ignore=E203,W503"],
    ],
    ids=lambda command: command[0],
)
def test_the_zoos_formatters_would_change_nothing(released, command):
    done = subprocess.run(
        [sys.executable, "-m", *command, str(released.package / "scripts")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_config_stands_alone_and_keeps_its_comments(released):
    for name in ("inference", "train", "evaluate"):
        text = (released.package / "configs" / f"{name}.yaml").read_text()
        assert text.startswith("# Made by")
        assert "%configs" not in text, "MONAI Label reads each file from another folder"
        assert "@_meta_" not in text
        assert str(released.run.parent) not in text, "a path of the machine that trained"
        assert yaml.safe_load(text)["patch_size"] == [16, 16, 16]
        assert "# voxels" in text


def test_the_metadata_take_their_numbers_from_the_evaluation(released):
    told = json.loads((released.package / "configs" / "metadata.json").read_text())
    summary = json.loads((released.evaluation / "summary.json").read_text())
    assert told["eval_metrics"]["patients"] == summary["patients"]
    for region, spread in summary["regions"].items():
        assert told["eval_metrics"]["regions"][region]["dice"]["median"] == spread["metrics"]["dice"]["median"]
    assert told["network_data_format"]["outputs"]["pred"]["channel_def"] == {
        "0": "background",
        "1": "NCR",
        "2": "ED",
        "3": "unused_3",
        "4": "ET",
    }
    assert told["training"]["steps"] == 4
    card = (released.package / "docs" / "README.md").read_text()
    assert f"{summary['regions']['WT']['metrics']['dice']['median']:.3f}" in card
    assert "used to select the checkpoint" in card, "a score of the validation patients must say so"


def test_every_format_gives_the_output_of_the_trained_network(released):
    compared = json.loads((released.package / "configs" / "metadata.json").read_text())["compared"]
    assert set(compared["formats"]) == {"model.pt", "model.safetensors", "model.ts", "model.pt2", "model.onnx"}
    assert all(far["largest_logit_difference"] < 1e-3 for far in compared["formats"].values())
    assert compared["patches"] == 2
    assert compared["cases"] == 1


def test_the_same_run_gives_the_same_bytes(released, tmp_path):
    moved = {"dataset_dir": os.path.relpath(released.given["dataset_dir"])}  # wherever the scans are
    export(str(released.run), out=str(tmp_path), evaluation=str(released.evaluation), formats=FORMATS, **moved)
    again = tmp_path / f"{released.package.name}.zip"
    assert file_hash(again) == file_hash(released.package.with_name(again.name))


def test_another_content_under_the_same_version_is_refused(released, tmp_path):
    shutil.copytree(released.package, tmp_path / released.package.name)
    before = archive.list_files(tmp_path / released.package.name)
    with pytest.raises(InputError, match=r"has other content: give a higher --version"):
        export(str(released.run), out=str(tmp_path))
    assert archive.list_files(tmp_path / released.package.name) == before
    assert not list(tmp_path.glob(".writing*"))


def test_export_without_evaluation_is_reported(released, tmp_path, capsys):
    export(str(released.run), out=str(tmp_path), version="1.0.0")
    assert "this run has no evaluation" in capsys.readouterr().out
    package = tmp_path / "brats2021_segmentation-1.0.0"
    assert json.loads((package / "configs" / "metadata.json").read_text())["eval_metrics"] == {}
    assert "**Not evaluated.**" in (package / "docs" / "README.md").read_text()


def test_export_that_differs_from_the_trained_network_is_not_written(released, tmp_path, monkeypatch):
    from bundle.packaging import networks

    real = networks.compute_training_logits
    monkeypatch.setattr(networks, "compute_training_logits", lambda *given: real(*given) + 0.01)
    with pytest.raises(InputError, match=r"model.pt differs from the network that was trained"):
        export(str(released.run), out=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_lacks_a_module_is_not_written(released, tmp_path, monkeypatch):
    from bundle.packaging import package

    files = package.list_scripts()
    assert "scripts/training/losses.py" in files
    files.remove("scripts/training/losses.py")
    monkeypatch.setattr(package, "list_scripts", lambda: files)
    with pytest.raises(InputError) as caught:
        export(str(released.run), out=str(tmp_path))
    assert str(caught.value) == (
        "the package cannot be loaded alone (the config names scripts.training.losses, which does not exist;"
        " did you mean loss_terms?); nothing was written."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("config", ["train", "evaluate", "inference"])
def test_component_that_cannot_be_built_is_found_in_each_config(inside, config):
    path = inside / "configs" / f"{config}.yaml"
    path.write_text(path.read_text().replace("nonzero: true", "nonzeros: true", 1))
    with pytest.raises(InputError, match=r"cannot be loaded alone \(NormalizeIntensityd has no argument 'nonzeros'"):
        parity.compare_formats(inside, np.zeros((1, 4, 16, 16, 16), "float32"), np.zeros((1, 3, 16, 16, 16), "float32"))


def test_a_score_of_other_weights_is_refused(released, tmp_path):
    evaluation = tmp_path / "evaluation"
    shutil.copytree(released.evaluation, evaluation)
    summary = json.loads((evaluation / "summary.json").read_text())
    summary["about"]["sha256"] = "0" * 64
    (evaluation / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match="is of other weights"):
        export(str(released.run), out=str(tmp_path / "dist"), evaluation=str(evaluation))


def test_a_run_without_weights_is_refused(released, tmp_path):
    copy = shutil.copytree(released.run, tmp_path / "run")
    (copy / "model.pt").unlink()
    with pytest.raises(InputError, match="has no weights yet"):
        export(str(copy), out=str(tmp_path / "dist"))


def test_weights_of_another_network_are_refused(released, tmp_path):
    copy = shutil.copytree(released.run, tmp_path / "run")
    torch.save({"weight": torch.zeros(2)}, copy / "model.pt")
    with pytest.raises(InputError, match="checkpoint of another network"):
        export(str(copy), out=str(tmp_path / "dist"))
    assert not list((tmp_path / "dist").iterdir())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "Brats"}, "expected snake_case"),
        ({"name": "lesion_detection"}, "MONAI Label would treat"),
        ({"version": "1.0"}, "expected MAJOR.MINOR.PATCH"),
        ({"formats": "tensorrt"}, "there is no format 'tensorrt'"),
        ({"dataset_dir": "/nowhere"}, "--datalist and --dataset_dir"),
    ],
    ids=["name", "taken name", "version", "format", "moved data"],
)
def test_a_wrong_option_is_refused_in_a_sentence(released, tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        export(str(released.run), out=str(tmp_path), **options)


def test_a_package_with_a_missing_file_is_refused(inside):
    (inside / "configs" / "train.yaml").unlink()
    with pytest.raises(InputError, match=r"lacks configs/train.yaml"):
        package_check.check_package(inside)


def test_a_package_with_changed_weights_is_refused(inside):
    with (inside / "models" / "model.onnx").open("ab") as stream:
        stream.write(b"0")
    with pytest.raises(InputError, match=r"model.onnx is not the file that was exported"):
        package_check.check_package(inside)


def test_a_package_whose_metadata_fail_the_schema_is_refused(inside):
    path = inside / "configs" / "metadata.json"
    content = json.loads(path.read_text())
    del content["network_data_format"]["outputs"]["pred"]["channel_def"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"at network_data_format.outputs.pred, 'channel_def' is a required property"):
        package_check.check_package(inside)


def test_weights_with_wrong_names_are_never_served(inside):
    path = inside / "models" / "model.pt"
    torch.save({f"module.{name}": t for name, t in torch.load(path, weights_only=True).items()}, path)
    manifest.write_manifest(inside)
    with pytest.raises(InputError, match="does not have weights with the names of the network"):
        package_check.check_package(inside, trust=True)


def test_the_zoo_gets_the_package_without_its_large_files(released, tmp_path, monkeypatch):
    monkeypatch.setattr("bundle.packaging.zoo.LARGE", 10_000)
    with pytest.raises(InputError, match="url is 5: give an address that begins with https://"):
        publish(str(released.package), out=str(tmp_path), url="5")
    assert not any(tmp_path.iterdir())
    publish(str(released.package), out=str(tmp_path), url="https://example.org/weights")
    folder = tmp_path / "models" / "brats2021_segmentation"
    large = yaml.safe_load((folder / "large_files.yml").read_text())["large_files"]
    assert {entry["path"] for entry in large} >= {"models/model.pt", "models/model.onnx"}
    assert not (folder / "models" / "model.pt").exists()
    assert all(entry["hash_val"] == file_hash(released.package / entry["path"]) for entry in large)
    info = json.loads((tmp_path / "models" / "model_info.json").read_text())
    assert len(info["brats2021_segmentation_v0.1.0"]["checksum"]) == 40
    with pytest.raises(InputError, match="export a higher version"):
        publish(str(released.package), out=str(tmp_path))


@pytest.mark.parametrize("damaged", ["[1,", "[1]"])
def test_damaged_zoo_index_is_refused_before_anything_is_written(released, tmp_path, damaged):
    index = tmp_path / "models" / "model_info.json"
    index.parent.mkdir()
    index.write_text(damaged)
    with pytest.raises(InputError, match="restore it from the zoo"):
        publish(str(released.package), out=str(tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [index]


def test_a_package_is_not_published_into_itself(released):
    with pytest.raises(InputError, match="lies in the package"):
        publish(str(released.package), out=str(released.package / "zoo"))
    assert not (released.package / "zoo").exists()


def test_a_dry_run_publishes_nothing(released, tmp_path, capsys):
    publish(str(released.package), out=str(tmp_path / "zoo"), dry_run=True)
    assert "models/model.pt" in capsys.readouterr().out
    assert not (tmp_path / "zoo").exists()


def test_an_upload_without_a_token_is_refused(released, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(InputError, match=r"huggingface_hub|no token in the environment"):
        publish(str(released.package), repo="somebody/brats2021_segmentation")
