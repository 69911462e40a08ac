"""Jobs of a study on a real SLURM: killed, requeued and preempted ones finish; skipped where no SLURM answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.studies.jobs import StudyJob
from bundle.studies.slurm import run_by_slurm
from scripts.errors import InputError
from tests.made import ROOT
from tests.made.slurm import require_slurm, slurm

OPTIONS = "--cpus-per-task=1 --time=10"


@pytest.fixture
def cluster(monkeypatch) -> None:
    """A SLURM that this machine can submit jobs to."""
    monkeypatch.chdir(ROOT)
    require_slurm()


@pytest.fixture
def training(cohort, tmp_path) -> StudyJob:
    """A training of some seconds after its imports."""
    run = tmp_path / "run"
    small = ["--device=cpu", "--patch_size=[16,16,16]", "--filters=[4,8,8]", "--overlap=0.0", "--val_interval=6"]
    small += ["--max_epochs=6", "--steps_per_epoch=60"]
    places = ["--datalist", str(cohort.datalist), "--dataset_dir", str(cohort.dataset_dir), "--out", str(run)]
    return StudyJob("training", (("train", "phantom", *places, "--requeue=True", *small),), (str(run / "model.pt"),))


def wait_for(true: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def follow(job: StudyJob, folder: Path) -> threading.Thread:
    folder.mkdir()
    thread = threading.Thread(target=run_by_slurm, args=([job], folder, OPTIONS, 0.5), daemon=True)
    thread.start()
    return thread


def task(folder: Path) -> str:
    """The task in SLURM, such as 12_0."""
    states = slurm("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i")
    return states.splitlines()[0]


def kill_job(folder: Path) -> None:
    slurm("pkill", "-KILL", "-f", f"run_job {folder}")


def requeue(folder: Path) -> None:
    slurm("scontrol", "requeue", task(folder))


def preempt(folder: Path) -> None:
    slurm("sbatch", "--parsable", "--partition=urgent", "--exclusive", "--wrap=sleep 2", "--output=/dev/null")


@pytest.mark.slow(reason="each job starts twice, with 10 s of imports each time")
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("disturb", [kill_job, requeue, preempt])
def test_disturbed_job_starts_again_and_finishes(disturb, training, tmp_path):
    folder = tmp_path / "jobs"
    thread = follow(training, folder)
    wait_for(lambda: (tmp_path / "run" / "checkpoint.pt").exists())
    disturb(folder)
    thread.join(240)
    assert training.is_finished(folder)
    assert (folder / "training.log").read_text().count("run training") == 2


@pytest.mark.usefixtures("cluster")
def test_finished_jobs_are_not_submitted_again(tmp_path):
    job = StudyJob("done", (("phantom", "--help"),), ())
    job.write(tmp_path)
    job.end(tmp_path, 0)
    run_by_slurm([job], tmp_path)
    assert not (tmp_path / "array.sh").exists()


@pytest.mark.usefixtures("cluster")
def test_wrong_options_of_sbatch_are_refused(training, tmp_path):
    with pytest.raises(InputError, match=r"sbatch refused the jobs \(.*partition.*: correct --sbatch"):
        run_by_slurm([training], tmp_path, "--partition=nowhere")


def test_machine_without_slurm_says_so(training, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="there is no sbatch on this machine"):
        run_by_slurm([training], tmp_path)
