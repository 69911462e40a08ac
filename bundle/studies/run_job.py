"""The program that runs one job: `python -m bundle.studies.run_job FOLDER/NAME.json`.

SIGTERM is passed on to the running command, which saves. The job then ends with exit code 75 and no record, so that it
is started again; under SLURM it asks for that itself.
"""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from bundle.studies.jobs import StudyJob, failed_step, read_job
from scripts.errors import EXIT_INTERRUPTED, EXIT_REQUEUE, EXIT_TERMINATED

PR_SET_PDEATHSIG = 1  # of Linux
STOPPED = (EXIT_REQUEUE, EXIT_INTERRUPTED, EXIT_TERMINATED)


class JobRunner:
    """Runs the commands of a job one after another, and passes signals on to the running one."""

    def __init__(self, job: StudyJob) -> None:
        self.job = job
        self.running: subprocess.Popen | None = None
        self.stopped = False
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._pass_on)
        signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the command as well, whose exit code counts

    def run(self) -> int:
        """The exit code of the first command that failed; 75 if the job was stopped; else 0."""
        several = ["torch.distributed.run", "--standalone", f"--nproc_per_node={self.job.processes}", "-m"]
        for step in self.job.steps:
            if self.stopped:
                return EXIT_REQUEUE
            program = [sys.executable, "-m", *(several if self.job.processes > 1 else []), "bundle"]
            self.running = subprocess.Popen([*program, *step], preexec_fn=lambda: end_with_parent(signal.SIGKILL))
            code = self.running.wait()
            if code in STOPPED or (self.stopped and code):  # torchrun has one exit code for everything
                return code if code == EXIT_INTERRUPTED else EXIT_REQUEUE
            if failed_step(step, code):
                return code if code > 0 else 128 - code  # of a signal, as shells report it
        return 0

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        if self.running is not None and self.running.poll() is None:
            self.running.terminate()


def end_with_parent(number: signal.Signals) -> None:
    """Get this signal when the parent process ends, however it does: two trainings would wait for one folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def main(path: str) -> None:
    """Run a job and record how it ended."""
    end_with_parent(signal.SIGTERM)
    file = Path(path)
    job = read_job(file)
    code = JobRunner(job).run()
    if code not in STOPPED:
        job.end(file.parent, code)
    elif code == EXIT_REQUEUE and "SLURM_JOB_ID" in os.environ:
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
