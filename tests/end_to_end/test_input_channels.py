"""A run with derived channels, positions and surroundings is evaluated, looked at and exported like any other."""

import json
from pathlib import Path

import pytest
import yaml
from monai.bundle import run

from bundle.commands.export import export
from bundle.commands.look import look
from scripts.scoring.cohort import read_cases

SETTINGS = {
    "derived_channels": {
        "Edges": {"of": "T1c", "transform": {"_target_": "skimage.filters.sobel", "_mode_": "callable"}}
    },
    "coordinates": True,
    "context": 4,
}
CHANNELS = 2 * 5 + 3


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("channels") / "run"
    run(
        "training", config_file=["configs/train.yaml", "configs/tasks/phantom.yaml"], run_dir=str(folder),
        datalist=str(cohort.datalist), dataset_dir=str(cohort.dataset_dir), device="cpu", patch_size=[16, 16, 16],
        filters=[4, 8, 8], max_epochs=1, steps_per_epoch=2, val_interval=1, **SETTINGS,
    )  # fmt: skip
    return folder


@pytest.mark.usefixtures("at_root")
def test_settings_of_the_run_hold_all_channels(trained):
    settings = yaml.safe_load((trained / "settings.yaml").read_text())
    assert {name: settings[name] for name in SETTINGS} == SETTINGS


@pytest.mark.usefixtures("at_root")
def test_evaluation_computes_the_channels_by_itself(trained, cohort, tmp_path):
    run(
        "evaluating", config_file=["configs/evaluate.yaml", str(trained / "settings.yaml")],
        datalist=str(cohort.datalist), dataset_dir=str(cohort.dataset_dir), output_dir=str(tmp_path / "out"),
        device="cpu",
    )  # fmt: skip
    assert read_cases(tmp_path / "out" / "cases.csv")["case"].nunique() == 1


@pytest.mark.usefixtures("at_root")
def test_package_names_the_derived_channel(trained, tmp_path):
    export(trained, out=tmp_path)
    (package,) = (path for path in tmp_path.iterdir() if path.is_dir())
    image = json.loads((package / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    assert image["num_channels"] == CHANNELS == len(image["channel_def"])
    assert image["channel_def"]["4"] == "Edges (derived from T1c)"


@pytest.mark.usefixtures("at_root")
def test_look_draws_all_channels(cohort, tmp_path):
    task = tmp_path / "channels.yaml"
    task.write_text(yaml.safe_dump({**SETTINGS, "patch_size": [16, 16, 16]}))
    look(cohort.datalist, out=tmp_path / "look", dataset_dir=cohort.dataset_dir, task=["phantom", str(task)], patches=2)
    assert (tmp_path / "look" / "patches.png").is_file()
