"""The process that segments, as seen from the one that starts it: its command, requests, replies and end."""

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from scripts.errors import EXIT_WRONG_INPUT, InputError
from scripts.files import read_mapping
from scripts.inference.worker import parse_reply
from scripts.network.weights import settings_file

WORKFLOW = "configs/inference.yaml"
KEPT_LINES = 60  # of what the process says, for the case that it fails


class WorkerProcess:
    """A process that has loaded the network of a run or a package.

    The first folder on its path is the package, or for a run this repository: a package runs by its own code.

    Args:
        sources: the folder of a package, which the user trusts; or that of a run, or those of several runs of one
            configuration, whose logits are averaged.
        settings: of configs/inference.yaml; paths are absolute.

    Raises:
        InputError: the network cannot be loaded, a setting is wrong, or the package has no `answering`.
    """

    def __init__(self, sources: Sequence[Path], settings: Mapping[str, Any]) -> None:
        source, *others = (path.resolve() for path in sources)
        package = is_package(source)
        weights = {"ensemble": [str(source), *map(str, others)]} if others else {"run_dir": str(source)}
        own = {} if package else weights
        files = [WORKFLOW] if package else [WORKFLOW, str(settings_file(source))]
        if not package and not Path(files[1]).is_file():
            raise InputError(f"{source} is neither a run nor a package: expected {files[1]} or {source / WORKFLOW}.")
        if package and not can_answer(source):
            raise InputError(f"{source} was exported by an earlier version, which gives masks alone: export it again.")
        words = [f"--{name}={value!r}" for name, value in {"config_file": files, **own, **settings}.items()]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "monai.bundle", "run", "answering", *words],
            cwd=source if package else source_root(),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C is for the process that asks, which ends this one
        )
        self.said: deque[str] = deque(maxlen=KEPT_LINES)
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        try:
            self.settings: dict[str, Any] = next(self._replies())["ready"]
        except BaseException:
            self.close()
            raise

    def ask(self, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yields the replies to a request, until it is done.

        Raises:
            InputError: the request cannot be answered, or the process has ended.
        """
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended; the reason comes in place of replies
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        for reply in self._replies():
            if "error" in reply:
                raise InputError(reply["error"])
            if "done" in reply:
                return
            yield reply

    def gather_counts(self) -> dict[str, int]:
        """The numbers of `cases` and of those `refused`, of all processes of torchrun; waits for all of them."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"finish": True}) + "\n")
        self.process.stdin.flush()
        return next(self._replies())

    def close(self) -> None:
        """End the process; a case that it is writing is finished first."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        if self.process.poll() is None:
            self.process.terminate()
        if not self.process.stdout.closed:
            for _ in self.process.stdout:
                pass  # or it would wait for somebody to read them
        self.process.wait()
        self.listener.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _replies(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if (reply := parse_reply(line)) is not None:
                yield reply
            else:
                self.said.append(line)
        self._raise_end()

    def _raise_end(self) -> None:
        """Raise the reason why the process has ended."""
        code = self.process.wait()
        self.listener.join()
        sentences = [line.removeprefix("error: ").strip() for line in self.said if line.startswith("error: ")]
        if code == EXIT_WRONG_INPUT and sentences:
            raise InputError(sentences[-1])
        if code < 0:
            raise InputError(
                f"the process that segments was ended by signal {-code}, most likely for lack of memory: use a smaller"
                " window_size or window_batch; finished cases are kept, continue with --resume."
            )
        raise RuntimeError(f"the process that segments ended with code {code}:\n{''.join(self.said)}")

    def _listen(self) -> None:
        """Pass notes of the process on to stderr, and keep its last lines."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if line.startswith("note: "):
                print(line, end="", file=sys.stderr)


def source_root() -> Path:
    """The folder that holds scripts/ and configs/."""
    return Path(__file__).parents[2]


def is_package(source: Path) -> bool:
    """Whether a folder is that of a package, by its inference workflow."""
    return (source / WORKFLOW).is_file()


def can_answer(source: Path) -> bool:
    """Whether the workflow of a package has the run id `answering`; earlier versions had not, and make masks alone."""
    return "answering" in read_mapping(source / WORKFLOW)
