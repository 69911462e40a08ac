"""Jobs run their commands in order, and only their own exit code and results make them finished."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bundle.studies.jobs import StudyJob, failed_step, read_job, refuse_unfinished
from bundle.studies.local import run_locally
from bundle.studies.slurm import run_by_slurm
from tests.made import ROOT, refused

HELP = ("phantom", "--help")


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def phantoms(folder, cases=1) -> StudyJob:
    """A job that writes phantoms and takes seconds."""
    return StudyJob(
        f"phantom{cases}",
        (("phantom", str(folder / "made"), f"--cases={cases}", "--size=16"),),
        (str(folder / "made"),),
    )


def test_job_is_read_as_it_was_written(tmp_path):
    job = StudyJob("one", (("train", "brats", "--fold=1"),), ("runs/one/model.pt",), processes=2)
    assert read_job(job.write(tmp_path)) == job


def test_job_without_its_results_is_not_finished(tmp_path):
    job = StudyJob("one", (HELP,), (str(tmp_path / "model.pt"),))
    job.write(tmp_path)
    job.end(tmp_path, 0)
    assert not job.is_finished(tmp_path)
    (tmp_path / "model.pt").touch()
    assert job.is_finished(tmp_path)


def test_job_with_other_commands_is_not_finished(tmp_path):
    first, second = StudyJob("one", (HELP,), ()), StudyJob("one", (("phantom", "elsewhere"),), ())
    first.write(tmp_path)
    first.end(tmp_path, 0)
    assert first.is_finished(tmp_path)
    assert not second.is_finished(tmp_path)
    second.write(tmp_path)
    assert second.exit_code(tmp_path) is None


def test_only_evaluation_may_end_with_failed_cases():
    assert failed_step(("train", "brats"), 1)
    assert not failed_step(("evaluate", "runs/one"), 1)
    assert failed_step(("evaluate", "runs/one"), 2)


@pytest.mark.usefixtures("at_root")
def test_local_jobs_run_once_and_keep_their_log(tmp_path):
    jobs = [phantoms(tmp_path, 1), StudyJob("wrong", (("phantom",),), ())]
    ended = []
    run_locally(jobs, tmp_path, parallel=2, after_job=lambda: ended.append([job.exit_code(tmp_path) for job in jobs]))
    assert len(ended) == 2
    assert ended[-1] == [0, 2]
    message = refused(refuse_unfinished, jobs, tmp_path)
    assert "1 of 2 folds failed: wrong ended with exit code 2" in message
    assert "phantom needs OUT" in message
    before = (tmp_path / "phantom1.log").read_text()
    run_locally(jobs[:1], tmp_path, parallel=2)
    assert (tmp_path / "phantom1.log").read_text() == before


@pytest.mark.usefixtures("at_root")
def test_stopped_job_has_no_exit_code(tmp_path):
    path = phantoms(tmp_path, 4000).write(tmp_path)
    running = subprocess.Popen([sys.executable, "-m", "bundle.studies.run_job", str(path)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGTERM)
    assert running.wait(30) == 75
    assert read_job(path).exit_code(tmp_path) is None
    assert json.loads(path.read_text())["name"] == "phantom4000"


def test_more_processes_than_gpus_are_refused(tmp_path):
    job = StudyJob("one", (HELP,), (), processes=3)
    assert "--processes is 3, and this machine has 2 GPUs" in refused(run_locally, [job], tmp_path, None, ["0", "1"])


def test_arrays_that_wait_keep_their_names(tmp_path, monkeypatch):
    jobs = [StudyJob(name, (("phantom",),), ()) for name in ("fold0", "fold1", "fold2")]
    waiting = [jobs[:2], jobs[2:]]

    def answer(command, **_):
        if command[0] == "sbatch":
            for job in waiting.pop(0):
                job.end(tmp_path, 0)
        return subprocess.CompletedProcess(command, 0, "7\n" if command[0] == "sbatch" else "", "")

    monkeypatch.setattr("bundle.studies.slurm.shutil.which", lambda _: "sbatch")
    monkeypatch.setattr("bundle.studies.slurm.subprocess.run", answer)
    run_by_slurm(jobs[:2], tmp_path, poll=0.0)
    first = (tmp_path / "array.sh").read_text()
    run_by_slurm(jobs, tmp_path, poll=0.0)
    assert [path.read_text().split() for path in sorted(tmp_path.glob("array*.txt"))] == [["fold0", "fold1"], ["fold2"]]
    assert "array1.txt" in first
    assert "array2.txt" in (tmp_path / "array.sh").read_text()
