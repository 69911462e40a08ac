"""A killed run resumes from its last epoch and ends with the weights of an uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.made import ROOT

SETTINGS = (
    "--max_epochs 12 --steps_per_epoch 3 --val_interval 2 --patch_size [16,16,16] --filters [4,8,8]"
    " --patience 50 --overlap 0.0 --device cpu --seed 3"
)


def training(cohort, *more: str) -> subprocess.Popen:
    """The command of the README, in a process of its own."""
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file"]
    command += ["['configs/train.yaml','configs/tasks/phantom.yaml']"]
    command += ["--datalist", str(cohort.datalist), "--dataset_dir", str(cohort.dataset_dir), *SETTINGS.split(), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
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


# slow: three trainings in processes of their own, each with 6 s of imports
@pytest.mark.slow
def test_run_killed_at_any_moment_resumes_to_identical_weights(cohort, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finished(training(cohort, "--run_dir", str(whole)))

    process = training(cohort, "--run_dir", str(broken))
    deadline = time.monotonic() + 200
    while not (broken / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)  # into a later epoch, wherever that is
    process.send_signal(signal.SIGKILL)
    process.communicate()
    epochs = torch.load(broken / "checkpoint.pt", weights_only=True)["engine"]["epoch"]
    assert 1 <= epochs < 12, "the run was not killed in its middle"
    finished(training(cohort, "--resume", str(broken)))

    first, second = (torch.load(run / "checkpoint.pt", weights_only=True) for run in (whole, broken))
    first, second = leaves(first), leaves(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        if name in ("/budget/spent", "/peak_memory_gib"):  # of the process, not of the run
            continue
        same = torch.equal(value, second[name]) if torch.is_tensor(value) else value == second[name]
        assert same, f"{name} differs"
    kept = [torch.load(run / "model.pt", weights_only=True) for run in (whole, broken)]
    assert all(torch.equal(value, kept[1][name]) for name, value in kept[0].items())
