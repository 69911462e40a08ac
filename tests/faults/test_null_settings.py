"""A setting that is set to null is null, whatever a task or recipe had set."""

from __future__ import annotations

import pytest
import yaml
from monai.bundle import run

from bundle.commands.train import train
from scripts.errors import InputError

TINY = {"max_epochs": 1, "steps_per_epoch": 1, "patch_size": [16, 16, 16], "filters": [4, 8, 8], "device": "cpu"}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "weighted.yaml"
    path.write_text("region_weights: {WT: 1.0, TC: 2.0, ET: 4.0}\n")
    return str(path)


@pytest.mark.usefixtures("at_root")
def test_null_replaces_the_value_of_a_recipe(recipe, cohort, tmp_path):
    given = {**{name: str(value) for name, value in TINY.items()}, "region_weights": "null"}
    out = tmp_path / "run"
    train("phantom", recipe, datalist=cohort.datalist, dataset_dir=cohort.dataset_dir, out=out, **given)
    assert yaml.safe_load((out / "config.yaml").read_text())["region_weights"] is None


@pytest.mark.usefixtures("at_root")
def test_none_that_monai_would_ignore_is_refused(recipe, cohort):
    files = ["configs/train.yaml", "configs/tasks/phantom.yaml", recipe]
    where = {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir)}
    with pytest.raises((InputError, RuntimeError)) as refused:
        run("check", config_file=files, **where, **TINY, region_weights=None)
    causes, error = [], refused.value
    while error is not None:
        causes.append(str(error))
        error = error.__cause__
    assert any("--region_weights None has no effect in MONAI's command line: write" in cause for cause in causes)
