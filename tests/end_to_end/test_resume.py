"""A run that was killed or stopped resumes, and ends in the weights of a run that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.made import ROOT

SETTINGS = (
    "--max_epochs 4 --steps_per_epoch 10 --val_interval 3 --patch_size [16,16,16] --filters [4,8,8]"
    " --patience 50 --overlap 0.0 --device cpu --seed 3"
)


def training(cohort, *more: str) -> subprocess.Popen:
    """The command of the README, in a process of its own."""
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file"]
    # with a recipe whose samples depend on the steps before
    command += ["['configs/train.yaml','configs/tasks/phantom.yaml','configs/recipes/hard_negatives.yaml']"]
    command += ["--datalist", str(cohort.datalist), "--dataset_dir", str(cohort.dataset_dir), *SETTINGS.split(), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def leaves(state: object, name: str = "") -> dict[str, object]:
    """Every tensor and number of a nested state, by its path."""
    if isinstance(state, dict):
        return {path: leaf for key, part in state.items() for path, leaf in leaves(part, f"{name}/{key}").items()}
    if isinstance(state, list | tuple):
        return {path: leaf for key, part in enumerate(state) for path, leaf in leaves(part, f"{name}/{key}").items()}
    return {name: state}


def end_in_second_epoch(process: subprocess.Popen, run: Path, number: signal.Signals) -> str:
    """Send a signal to a training and its loader processes once its first epoch is saved; gives what it printed."""
    deadline = time.monotonic() + 200
    while not (run / "checkpoint.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    os.killpg(process.pid, number)
    return process.communicate(timeout=60)[0]


def require_same(whole: Path, broken: Path) -> None:
    first, second = (torch.load(run / "checkpoint.pt", weights_only=True) for run in (whole, broken))
    first, second = leaves(first), leaves(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        if name in ("/budget/spent", "/budget/prepared", "/peak_memory_gib") or name.endswith(
            "/minutes"
        ):  # of the process, not of the run
            continue
        same = torch.equal(value, second[name]) if torch.is_tensor(value) else value == second[name]
        assert same, f"{name} differs"
    kept = [torch.load(run / "model.pt", weights_only=True) for run in (whole, broken)]
    assert all(torch.equal(value, kept[1][name]) for name, value in kept[0].items())


@pytest.fixture(scope="module")
def whole(cohort, tmp_path_factory) -> Path:
    """A run that nothing stopped."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    finished(training(cohort, "--run_dir", str(run)))
    return run


def test_run_killed_at_any_moment_resumes_to_identical_weights(cohort, whole, tmp_path):
    process = training(cohort, "--run_dir", str(tmp_path / "run"))
    end_in_second_epoch(process, tmp_path / "run", signal.SIGKILL)
    assert 1 <= torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["engine"]["epoch"] < 4
    finished(training(cohort, "--resume", str(tmp_path / "run")))
    require_same(whole, tmp_path / "run")


def test_run_stopped_within_an_epoch_resumes_to_identical_weights(cohort, whole, tmp_path):
    run = tmp_path / "run"
    command = ("--run_dir", str(run), "--num_workers", "2", "--requeue", "True")
    process = training(cohort, *command)
    output = end_in_second_epoch(process, run, signal.SIGTERM)
    assert process.returncode == 75, output
    assert output.splitlines()[-1] == f"Stopped by SIGTERM; resume with --resume {run}."
    assert 10 < torch.load(run / "checkpoint.pt", weights_only=True)["engine"]["iteration"] < 20
    finished(training(cohort, *command))
    require_same(whole, run)
