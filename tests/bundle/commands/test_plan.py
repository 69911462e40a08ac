"""Tests of `python -m bundle plan`, on a small network."""

import json

import pytest
import yaml

from bundle.__main__ import main
from bundle.commands.phantom import phantom
from bundle.commands.plan import plan
from bundle.commands.prepare import prepare
from bundle.commands.train import train
from tests.made import refused


@pytest.fixture
def options(cohort, at_root, tmp_path) -> dict:
    return {
        "datalist": str(cohort.datalist),
        "dataset_dir": str(cohort.dataset_dir),
        "out": str(tmp_path / "plan.yaml"),
        "workers": "1",
    }


def test_training_runs_with_the_plan(options, tmp_path, capsys):
    plan("phantom", **options, hours="1")
    written = yaml.safe_load((tmp_path / "plan.yaml").read_text())
    assert written["max_minutes"] == 60
    data = {name: options[name] for name in ("datalist", "dataset_dir")}
    length = {"max_epochs": "1", "steps_per_epoch": "2", "device": "cpu"}
    train("phantom", options["out"], **data, **length, out=str(tmp_path / "run"))
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    planned = ("patch_size", "kernels", "strides", "rotation", "component_limits")
    assert {name: config[name] for name in planned} == {name: written[name] for name in planned}
    assert (tmp_path / "run" / "model.pt").is_file()


def test_steps_are_measured_on_the_device(options, tmp_path, capsys):
    plan("phantom", **options, measure=True, hours="1", device="cpu")
    text = (tmp_path / "plan.yaml").read_text()
    assert "measured on cpu" in text
    assert yaml.safe_load(text)["max_epochs"] >= 1


def test_plan_of_nnunet_and_its_numbers_as_json(options, tmp_path, capsys):
    main(["plan", "phantom", "--like", "nnunet", "--json", *[f"--{name}={value}" for name, value in options.items()]])
    found = json.loads(capsys.readouterr().out)
    assert found["configuration"] == "3d_fullres"
    assert found["settings"]["filters"][0] == 32
    assert found["missing"]["3d_lowres"].startswith("a patch covers")


def test_slices_are_planned_with_a_task_of_volumes(at_root, tmp_path, capsys):
    phantom(tmp_path / "slices", cases=4, size=32, spacing=6.0, dims=2)
    prepare(tmp_path / "slices", out=tmp_path / "list.json", folds=2, picture=False, workers=1)
    made = tmp_path / "plan.yaml"
    plan("phantom", datalist=tmp_path / "list.json", dataset_dir=tmp_path / "slices", out=made, workers="1")
    found = yaml.safe_load(made.read_text())
    assert len(found["patch_size"]) == 2
    assert "# 3d_fullres: not here, pictures have two axes" in made.read_text()


def test_plan_is_not_overwritten_without_being_asked(options, tmp_path):
    (tmp_path / "plan.yaml").write_text("mine")
    assert "plan.yaml is there already: give another --out, or --overwrite" in refused(plan, "phantom", **options)
    assert (tmp_path / "plan.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("recipes", "wrong", "expected"),
    [
        ([], {"out": "plan.json"}, "--out is plan.json: give the name of a file that ends in .yaml."),
        ([], {"like": "nnunet", "measure": True}, "leave --measure out"),
        ([], {"configuration": "3d"}, "--configuration is '3d': expected '2d', '3d_fullres', '3d_lowres' or"),
        ([], {"hours": "-1"}, "--hours is '-1': expected more than 0"),
        (["slab"], {}, "recipe slab sets patch_size, which a plan decides"),
    ],
)
def test_wrong_options_end_in_one_sentence(options, tmp_path, recipes, wrong, expected):
    assert expected in refused(plan, "phantom", *recipes, **{**options, **wrong})
    assert not (tmp_path / "plan.yaml").exists()
