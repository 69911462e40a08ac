"""Jobs of a study: commands that run one after another, and the record of which are finished.

FOLDER/NAME.json holds the commands, NAME.log what they printed, and NAME.rc their exit code once they have ended by
themselves. A job that was stopped or lost has no exit code: it is started again, and its commands continue.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.errors import EXIT_SOME_FAILED, InputError
from scripts.files import read_mapping, write_json, write_text

LINES = 3  # of a log, quoted in a message


@dataclass(frozen=True)
class StudyJob:
    """Commands of `python -m bundle` that continue where they stopped when they are started again.

    Attributes:
        name: of its files.
        steps: the arguments of each command.
        results: files that exist when the job is finished.
        processes: of torchrun, for each step.
    """

    name: str
    steps: tuple[tuple[str, ...], ...]
    results: tuple[str, ...]
    processes: int = 1

    def write(self, folder: Path) -> Path:
        """Write the commands; an exit code of other commands is removed."""
        path = folder / f"{self.name}.json"
        if path.is_file() and read_job(path) != self:
            (folder / f"{self.name}.rc").unlink(missing_ok=True)
        write_json(path, asdict(self))
        return path

    def is_finished(self, folder: Path) -> bool:
        """Whether these commands have ended, and their results are there."""
        path = folder / f"{self.name}.json"
        known = path.is_file() and read_job(path) == self
        return known and self.exit_code(folder) == 0 and all(Path(result).exists() for result in self.results)

    def exit_code(self, folder: Path) -> int | None:
        """The exit code with which the commands ended; None if they have not."""
        try:
            return int((folder / f"{self.name}.rc").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def end(self, folder: Path, code: int) -> None:
        """Record that the commands have ended."""
        write_text(folder / f"{self.name}.rc", f"{code}\n")

    def why_failed(self, folder: Path) -> str:
        """The exit code, and the sentence of the error or the last lines of the log."""
        log, code = folder / f"{self.name}.log", self.exit_code(folder)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        words = "was lost" if code is None else f"ended with exit code {code}"
        sentence = next((line for line in reversed(lines) if line.startswith("error:")), "")
        said = sentence.removeprefix("error:") or " ".join(lines[-LINES:])
        return f"{self.name} {words}" + (f" ({said.strip()[-300:]} See {log})" if lines else "")


def read_job(path: Path) -> StudyJob:
    """A job from the file of its commands."""
    content = read_mapping(path)
    steps = tuple(tuple(step) for step in content["steps"])
    return StudyJob(content["name"], steps, tuple(content["results"]), content["processes"])


def failed_step(step: Sequence[str], code: int) -> bool:
    """Whether a command failed; an evaluation in which some cases failed has its results."""
    return code != 0 and not (step[0] == "evaluate" and code == EXIT_SOME_FAILED)


def refuse_unfinished(jobs: Sequence[StudyJob], folder: Path) -> None:
    """Refuse to go on without all jobs.

    Raises:
        InputError: names the jobs that failed and why.
    """
    failed = [job for job in jobs if not job.is_finished(folder)]
    if failed:
        reasons = "; ".join(job.why_failed(folder) for job in failed)
        raise InputError(
            f"{len(failed)} of {len(jobs)} folds failed: {reasons}. Correct the cause and start the same command"
            " again: it keeps what is finished."
        )
