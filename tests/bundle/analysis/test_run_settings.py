"""Runs are compared by the settings in which they differ, and by the scores of their selected epoch."""

import shutil

import pytest
import yaml

from bundle.commands.ablate import ablate
from tests.made import refused


@pytest.fixture
def runs(package, tmp_path):
    """Two runs: one, and its copy with another rate and loss."""
    first, second = package.parents[1] / "run", tmp_path / "second"
    shutil.copytree(first, second)
    config = yaml.safe_load((second / "config.yaml").read_text())
    config |= {"learning_rate": 0.5, "region_loss": {"_target_": "monai.losses.TverskyLoss"}}
    (second / "config.yaml").write_text(yaml.safe_dump(config))
    return [first, second]


def test_table_has_the_differing_settings_and_scores(runs, tmp_path):
    rows = ablate(*runs, out=tmp_path / "out").numbers()
    assert {*rows[0]} == {"run", "region_loss", "learning_rate", "patients", "WT", "TC", "ET"}
    assert [row["region_loss"] for row in rows][1] == "TverskyLoss"
    assert rows[0]["WT"] == rows[1]["WT"]
    assert (tmp_path / "out" / "runs.csv").is_file()
    assert (tmp_path / "out" / "runs.png").stat().st_size > 10_000


def test_folder_without_a_run_or_scores_is_refused(runs, tmp_path):
    shutil.rmtree(runs[1] / "validation_best")
    assert "has no validation_best/cases.csv" in refused(ablate, *runs, out=tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "is not a run: expected" in refused(ablate, tmp_path / "empty", out=tmp_path / "out")
