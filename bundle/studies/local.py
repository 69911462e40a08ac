"""Jobs on this machine: one after another, or side by side on its GPUs."""

import contextlib
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from bundle.studies.jobs import StudyJob
from scripts.errors import EXIT_REQUEUE, InputError
from scripts.parallel import available_cores
from scripts.progress import progress_bar


def run_locally(
    jobs: Sequence[StudyJob],
    folder: Path,
    parallel: int | None = None,
    gpus: Sequence[str] = (),
    after_job: Callable[[], object] = lambda: None,
) -> None:
    """Run the jobs that are not finished; returns when all have ended.

    One job at a time prints on the terminal; several write FOLDER/NAME.log each. Ctrl-C and SIGTERM are passed on, and
    the jobs save.

    Args:
        jobs: all of the study.
        folder: of their files.
        parallel: how many at a time; None: as many as the GPUs allow, at least one.
        gpus: as in CUDA_VISIBLE_DEVICES; each job gets as many as it has processes.
        after_job: called each time that a job has ended.

    Raises:
        InputError: a job needs more GPUs than there are.
    """
    waiting = [job for job in jobs if not job.is_finished(folder)]
    if not waiting:
        return
    need = max(job.processes for job in waiting)
    if gpus and need > len(gpus):
        raise InputError(f"--processes is {need}, and this machine has {len(gpus)} GPUs: give at most that number.")
    shares = [gpus[k : k + need] for k in range(0, len(gpus) - need + 1, need)]
    count = min(parallel or len(shares) or 1, len(waiting))
    slots: queue.SimpleQueue[tuple[str, ...]] = queue.SimpleQueue()
    for number in range(count):
        slots.put(tuple(shares[number % len(shares)]) if shares else ())
    running: dict[str, subprocess.Popen] = {}

    def run(job: StudyJob) -> None:
        share = slots.get()
        environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ",".join(share)} if share else {})
        if count > 1 and "OMP_NUM_THREADS" not in os.environ:
            environment["OMP_NUM_THREADS"] = str(max(1, available_cores() // count // job.processes))
        try:
            while not stopped and _run(job, folder, environment, running, alone=count == 1) == EXIT_REQUEUE:
                continue
        finally:
            slots.put(share)

    stopped: list[bool] = []
    with ThreadPoolExecutor(count) as pool:
        calls = [pool.submit(run, job) for job in waiting]
        try:
            ended = as_completed(calls)
            for call in progress_bar(ended, total=len(calls), desc="jobs", unit="job", show=count > 1, leave=True):
                call.result()
                after_job()
        except BaseException:
            stopped.append(True)
            for call in calls:
                call.cancel()
            for process in [*running.values()]:
                process.terminate()
            raise  # the pool waits until they have saved


def _run(job: StudyJob, folder: Path, environment: dict, running: dict[str, subprocess.Popen], alone: bool) -> int:
    """Start a job and wait for it; its exit code."""
    command = [sys.executable, "-m", "bundle.studies.run_job", str(job.write(folder))]
    with contextlib.nullcontext() if alone else open(folder / f"{job.name}.log", "ab") as log:
        process = running[job.name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        code = process.wait()
    del running[job.name]
    return code


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    import torch

    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [*map(str, range(torch.cuda.device_count()))]
    return chosen.split(",")[: len(names)] if chosen else names
