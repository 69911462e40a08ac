"""The configs are a valid bundle: MONAI's properties, the Model Zoo's metadata, and every overlay."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow, run, verify_net_in_out

from scripts.config_settings import refuse_unused_settings
from scripts.network.outputs import read_output
from tests.made import ROOT

TASKS = sorted((ROOT / "configs" / "tasks").glob("*.yaml"))
RECIPES = sorted((ROOT / "configs" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize(
    ("config", "kind"),
    [("train", "train"), ("train,multi_gpu_train", "train"), ("evaluate", "infer"), ("inference", "infer")],
)
def test_monai_finds_every_property_of_a_workflow(config, kind, small_train, cohort, tmp_path):
    network = small_train(deep_supervision=False).get_parsed_content("network_def")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    workflow = ConfigWorkflow(
        config_file=[*(f"configs/{name}.yaml" for name in config.split(",")), "configs/tasks/phantom.yaml"],
        workflow_type=kind,
        logging_file=False,
        dataset_dir=str(cohort.dataset_dir),
        patch_size=[16, 16, 16],
        filters=[4, 8, 8],
        **({} if config == "inference" else {"datalist": str(cohort.datalist)}),
        **({} if kind == "train" else {"checkpoint": str(tmp_path / "model.pt"), "output_dir": str(tmp_path / "out")}),
    )
    if "multi_gpu" in config:  # one process is a group, too
        workflow.parser["network"] = workflow.parser["network"]["module"]
        workflow.parser["initialize"] = workflow.parser["initialize"][:-1]
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize("workflow", ["train", "evaluate", "inference"])
@pytest.mark.parametrize("task", TASKS, ids=lambda path: path.stem)
def test_every_task_fits_over_every_workflow(workflow, task):
    parser = ConfigParser()
    parser.read_config([f"configs/{workflow}.yaml", str(task)])
    parser.parse()
    refuse_unused_settings(parser.config)
    painted = parser.get_parsed_content("labels_out")
    regions = parser.get_parsed_content("regions")
    labels = parser.get_parsed_content("labels")
    assert set(painted) <= set(regions)
    assert set(painted.values()) <= set(labels.values()), "a mask would hold a value that the scheme does not know"
    assert {value for values in regions.values() for value in values} <= set(labels.values())


def test_tasks_are_short_and_known_to_no_code():
    names = [path.stem for path in TASKS if path.stem != "phantom"]  # `smoke` trains on phantoms
    code = "\n".join(path.read_text() for folder in ("scripts", "bundle") for path in (ROOT / folder).rglob("*.py"))
    code = re.sub(r'""".*?"""', "", code, flags=re.DOTALL)  # examples in docstrings may name them
    for path in TASKS:
        assert len(path.read_text().splitlines()) <= 30, f"{path.name} is longer than a task should be"
    for name in names:
        assert not re.search(rf"tasks/{name}\b|== [\"']{name}[\"']", code), f"code knows the task {name}"


def test_metadata_has_what_the_model_zoo_requires():
    meta = json.loads((ROOT / "configs" / "metadata.json").read_text())
    required = "schema version changelog monai_version pytorch_version numpy_version required_packages_version task"
    for key in [*required.split(), "description", "authors", "copyright", "network_data_format"]:
        assert meta.get(key), f"metadata.json has no {key}"
    assert meta["schema"].endswith("meta_schema_20240725.json")
    assert meta["version"] in meta["changelog"]
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE))
    for package, version in {**meta["required_packages_version"], "monai": meta["monai_version"]}.items():
        assert pins[package] == version, f"metadata.json and requirements.txt differ in {package}"
    assert (pins["torch"], pins["numpy"]) == (meta["pytorch_version"], meta["numpy_version"])
    for tensor in [*meta["network_data_format"]["inputs"].values(), *meta["network_data_format"]["outputs"].values()]:
        keys = "type format num_channels spatial_shape dtype value_range is_patch_data channel_def"
        assert set(keys.split()) <= set(tensor)


@pytest.mark.usefixtures("at_root")
def test_the_network_takes_and_gives_what_the_metadata_says():
    verify_net_in_out(
        net_id="network_def",
        meta_file="configs/metadata.json",
        config_file="configs/inference.yaml",
        device="cpu",
        p=1,
        n=1,
        filters=[4, 8, 8, 8, 8, 8],  # the levels of the default, thinner, so that it takes a second
        extra_forward_args={},
    )


@pytest.mark.usefixtures("at_root")
def test_inference_stands_alone():
    text = Path("configs/inference.yaml").read_text()
    assert "@_meta_" not in text
    assert not re.search(r'"%\w', text)
    borrowed = [
        key for key, value in yaml.safe_load(Path("configs/train.yaml").read_text()).items() if "%" in str(value)
    ]
    assert len(borrowed) > 10


def test_check_prints_a_summary_and_leaves_nothing(cohort, tmp_path):
    command = [sys.executable, "-m", "monai.bundle", "run", "check", "--config_file"]
    command += ["['configs/train.yaml','configs/tasks/phantom.yaml']", "--datalist", str(cohort.datalist)]
    command += ["--dataset_dir", str(cohort.dataset_dir), "--run_dir", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for fact in ("trainable parameters", "training cases", "[32, 32, 32]", "steps per epoch"):
        assert fact in done.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("at_root")
def test_supervision_heads_change_training_alone(small_train):
    trained = small_train(filters=[4, 8, 8, 8]).get_parsed_content("network")
    patch = torch.zeros(1, 4, 16, 16, 16)
    heads = read_output(trained.train()(patch), 3).heads
    assert [head.shape for head in heads] == [(1, 3, 16, 16, 16), (1, 3, 8, 8, 8)]
    assert trained.eval()(patch).shape == (1, 3, 16, 16, 16)


@pytest.mark.usefixtures("at_root")
def test_network_from_a_recipe_is_passed_on_to_inference(cohort, tmp_path):
    recipe = {
        "deep_supervision": False,
        "width": 4,
        "network_def": {
            "_target_": "BasicUNet",
            "spatial_dims": 3,
            "in_channels": "$len(@channels)",
            "out_channels": "$len(@outputs)",
            "features": "$[@width] * 6",
        },
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    given = {"dataset_dir": str(cohort.dataset_dir), "device": "cpu", "overlap": 0.0}
    short = {"max_epochs": 1, "steps_per_epoch": 1, "patch_size": [32, 32, 32], "verify_hashes": False}
    files = ["configs/train.yaml", "configs/tasks/phantom.yaml", str(tmp_path / "recipe.yaml")]
    run("training", config_file=files, datalist=str(cohort.datalist), run_dir=str(tmp_path / "run"), **given, **short)
    files = ["configs/inference.yaml", str(tmp_path / "run" / "settings.yaml")]
    run("inferring", config_file=files, input=str(cohort.datalist), output_dir=str(tmp_path / "masks"), **given)
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 1


def test_preprocessing_of_a_recipe_is_passed_on_to_inference(small_train, tmp_path):
    given = {"low": 1.0, "preprocessing": {"_target_": "Compose", "transforms": ["$@low", "@keys"]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(given))
    settings = small_train(str(tmp_path / "recipe.yaml")).get_parsed_content("folder").settings
    assert {name: settings[name] for name in given} == given
    assert "keys" not in settings, "training adds the label, which inference has not"


def test_unchanged_sections_stay_out_of_the_settings_of_a_run(small_train):
    settings = small_train(normalize="minmax").get_parsed_content("folder").settings
    assert settings["normalize"] == "minmax"
    assert not {"preprocessing", "inferer"} & set(settings)
