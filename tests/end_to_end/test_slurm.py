"""A training as a SLURM job; skipped where no SLURM answers (`SLURM_CONF` names the configuration of one)."""

from __future__ import annotations

import subprocess
import time

import pytest
import torch
import yaml

from tests.made.slurm import require_slurm, slurm


def state(job: str) -> str:
    return slurm("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")


@pytest.mark.slow(reason="a job starts twice, each with 10 s of imports, and SLURM waits before it starts a job again")
def test_stopped_job_is_requeued_and_finishes_its_training(cohort, tmp_path):
    require_slurm()
    log, run = tmp_path / "log", tmp_path / "run"
    fast = {"patch_size": [16, 16, 16], "filters": [4, 8, 8], "overlap": 0.0, "device": "cpu"}
    (tmp_path / "fast.yaml").write_text(yaml.safe_dump({**fast, "max_epochs": 2, "steps_per_epoch": 100}))
    options = ["--gpus-per-node=0", "--cpus-per-task=1", "--time=10", f"--output={log}"]
    command = ["docs/slurm.sh", "train", "phantom", tmp_path / "fast.yaml", "--out", run, "--requeue"]
    command += ["--datalist", cohort.datalist, "--dataset_dir", cohort.dataset_dir]
    job = slurm("sbatch", "--parsable", *options, *command)
    try:
        deadline = time.monotonic() + 400
        while not (run / "checkpoint.pt").exists() and state(job) in ("PENDING", "RUNNING"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        slurm("scancel", "--signal=TERM", job)  # to its processes, as SLURM does when the time is nearly up
        while state(job) in ("PENDING", "RUNNING", "COMPLETING"):
            assert time.monotonic() < deadline
            time.sleep(1)
        assert state(job) == "COMPLETED", log.read_text()
        assert "Restarts=1" in slurm("scontrol", "show", "job", job)
        assert log.read_text().count("Stopped by SIGTERM") == 1
        assert torch.load(run / "checkpoint.pt", weights_only=True)["engine"] == {"epoch": 2, "iteration": 200}
    finally:
        subprocess.run(["scancel", job], timeout=30, check=False)
