"""Jobs on a cluster with SLURM: one array of jobs, followed until all have ended.

A job is finished when its exit code is recorded (`bundle.studies.jobs`). One that SLURM no longer knows and that has no
exit code was lost, and is submitted again.
"""

import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bundle.studies.jobs import StudyJob
from scripts.errors import InputError
from scripts.files import read_mapping, write_json, write_text
from scripts.progress import progress_bar

ATTEMPTS = 3  # submissions of a job that is lost each time
POLL = 10.0  # s
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=bundle
#SBATCH --signal=B:TERM@300 # s before the time is up: the running command saves, and the job asks to be started again
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=/dev/null
name=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {folder}/{names})
exec {python} -m bundle.studies.run_job {folder}/"$name".json >> {folder}/"$name".log 2>&1
"""


def run_by_slurm(
    jobs: Sequence[StudyJob],
    folder: Path,
    options: str = "",
    poll: float = POLL,
    after_job: Callable[[], object] = lambda: None,
) -> None:
    """Submit the jobs that are not finished and that SLURM does not have yet; returns when all have ended.

    Ends early without harm: jobs go on, and the next call follows the same ones.

    Args:
        jobs: all of the study.
        folder: of their files; gets array.sh, the script that is submitted. All nodes see it under the same path.
        options: of sbatch, such as "--partition=gpu --gpus=1 --time=24:00:00".
        poll: seconds between two looks at the queue.
        after_job: called each time that a job has ended.

    Raises:
        InputError: there is no SLURM here, or it refuses the array.
    """
    if shutil.which("sbatch") is None:
        raise InputError("there is no sbatch on this machine: run this where SLURM is, or with --executor local.")
    waiting = {job.name: job for job in jobs if not job.is_finished(folder)}
    tasks = {name: task for name, task in _read_tasks(folder).items() if name in waiting}
    states = _states(tasks.values())
    to_submit = [job for job in waiting.values() if tasks.get(job.name) not in states]
    submissions: Counter[str] = Counter()
    with progress_bar(total=len(waiting), desc="jobs", unit="job", leave=True) as bar:
        while waiting:
            if to_submit:
                tasks |= _submit(to_submit, folder, options)
                submissions.update(job.name for job in to_submit)
                write_json(folder / "slurm.json", tasks)
                bar.write(f"submitted to SLURM: {', '.join(job.name for job in to_submit)}")
            time.sleep(poll)
            states, to_submit = _states(tasks.values()), []
            for job in [*waiting.values()]:
                lost = job.exit_code(folder) is None and tasks[job.name] not in states
                if lost and submissions[job.name] < ATTEMPTS:
                    to_submit.append(job)
                elif lost or job.exit_code(folder) is not None:
                    del waiting[job.name]
                    bar.update()
                    after_job()
            counts = Counter(state.lower() for state in states.values())
            bar.set_postfix_str(", ".join(f"{count} {state}" for state, count in counts.items()))


def _submit(jobs: Sequence[StudyJob], folder: Path, options: str) -> dict[str, str]:
    """Submit an array; the task of each job, such as 123_0."""
    for job in jobs:
        (folder / f"{job.name}.rc").unlink(missing_ok=True)
        job.write(folder)
    names = f"array{len([*folder.glob('array*.txt')]) + 1}.txt"  # tasks of earlier arrays still read theirs
    write_text(folder / names, "".join(f"{job.name}\n" for job in jobs))
    places = {"folder": shlex.quote(str(folder.resolve())), "python": shlex.quote(sys.executable)}
    write_text(folder / "array.sh", SCRIPT.format(**places, names=names))
    given = [f"--array=0-{len(jobs) - 1}", *shlex.split(options)]
    found = _call("sbatch", "--parsable", *given, str(folder / "array.sh"))
    if found.returncode:
        raise InputError(f"sbatch refused the jobs ({_reason(found)}): correct --sbatch.")
    number = found.stdout.strip().split(";")[0]  # a cluster's name may follow
    return {job.name: f"{number}_{index}" for index, job in enumerate(jobs)}


def _states(tasks: Iterable[str]) -> dict[str, str]:
    """The state of each task that has not ended; without those that SLURM no longer knows."""
    tasks, states = {*tasks}, {}
    for number in sorted({task.split("_")[0] for task in tasks}):
        found = _call("squeue", "--noheader", "--array", "--states=all", f"--jobs={number}", "--format=%i|%T")
        if found.returncode and "Invalid job id" not in found.stderr:
            raise InputError(
                f"squeue failed ({_reason(found)}); the jobs go on: start the same command again to follow them."
            )
        states |= dict(line.split("|") for line in found.stdout.split())
    return {task: state for task, state in states.items() if state not in ENDED and task in tasks}


def _read_tasks(folder: Path) -> dict[str, str]:
    path = folder / "slurm.json"
    return read_mapping(path) if path.is_file() else {}


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _reason(found: subprocess.CompletedProcess[str]) -> str:
    return " ".join(found.stderr.split())[:300] or f"exit code {found.returncode}"
