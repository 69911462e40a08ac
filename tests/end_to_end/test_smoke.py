"""The first command of the README."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from scripts.scoring.cohort import read_cases
from scripts.scoring.summary import tabulate_regions
from tests.made import ROOT


def run_smoke(folder: Path) -> tuple[Path, str]:
    """The folder and the output of `smoke`: those that SMOKE_RUN names, as `.ci/run` does, or new ones."""
    if made := os.environ.get("SMOKE_RUN"):
        return ROOT / made, (ROOT / f"{made}.log").read_text(encoding="utf-8")
    command = [sys.executable, "-m", "bundle", "smoke", "--out", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.mark.slow(reason="the full pipeline takes a minute or more on two cores")
def test_smoke_trains_scores_and_segments_in_one_command(tmp_path):
    out, printed = run_smoke(tmp_path / "smoke")
    dice = tabulate_regions(read_cases(out / "evaluation" / "cases.csv"))
    assert dice.loc["WT", "n"] == 4
    assert dice.loc["WT", "median"] >= 0.80
    for step in ("bundle phantom", "bundle prepare", "run training", "run evaluating", "bundle segment"):
        assert f"$ python -m {step}" in printed or f"$ python -m monai.bundle {step}" in printed
    picture = out / "predictions.png"
    assert f"{out.name}/predictions.png" in printed
    assert min(Image.open(picture).size) > 300
    assert [path.name for path in (out / "predictions").glob("*.nii.gz")] == ["BraTS2021_00016.nii.gz"]
    assert (out / "predictions" / "BraTS2021_00016" / "answer.html").is_file()


def test_smoke_never_writes_into_a_folder_that_holds_something(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    command = [sys.executable, "-m", "bundle", "smoke", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "already holds files" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_help_imports_nothing_heavy():
    script = (
        "import sys, bundle.__main__ as b; b.main(['--help']); assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "smoke" in done.stdout


def test_scoring_starts_without_what_only_cell_boundaries_need():
    code = "import sys, scripts.scoring.run; print({'scipy.stats', 'skimage', 'monai'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stderr
