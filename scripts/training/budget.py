"""The length of a training, in epochs or minutes, and the learning rate schedule."""

import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from scripts.distributed import synchronized
from scripts.errors import InputError

COMMANDS = ("monai.bundle.__main__", "bundle.__main__")  # programs whose first second is that of the training
CLOCKS = {"wall": time.monotonic, "cpu": time.process_time}
SHAPES = ("cosine", "poly", "constant")  # of the rate
SPARE = 1.5  # a validation may take longer on a busy machine
ENDING = 4.0  # seconds that a program needs to end, most of them for TensorBoard


class Budget:
    """Measures the progress of training, 0 to 1, and ends it when its minutes are over.

    Args:
        max_epochs: epochs of the whole run.
        steps_per_epoch: iterations of the trainer per epoch: batches, of which an optimiser step may use several.
        max_minutes: minutes of the run including all its resumptions, or None. They count from the start of the
            program (`time_of_start`) to its end, with imports, preparation of cases and the last validation; a
            training within another program counts from here. The schedule is fitted to what is left for training:
            progress is the larger of the share of steps and of these minutes.
        clock: what all seconds here are: `wall`, elapsed time, or `cpu`, processor time of this process and its
            threads (not of loader processes).

    Attributes:
        clock: returns the seconds that the clock shows.

    Attach it to the trainer. Its state is the time used so far.

    Raises:
        InputError: the clock is unknown.
    """

    def __init__(
        self, max_epochs: int, steps_per_epoch: int, max_minutes: float | None = None, clock: str = "wall"
    ) -> None:
        if clock not in CLOCKS:
            raise InputError(f"clock is {clock!r}: expected {' or '.join(CLOCKS)}.")
        self.total_steps, self.clock = max_epochs * steps_per_epoch, CLOCKS[clock]
        command = time_of_start()
        ending = 0.0 if command is None else ENDING
        self.seconds = None if max_minutes is None else 60.0 * max_minutes - ending
        self.reserve = 0.0  # seconds needed after the last step, the same in all processes
        self.step = 0
        self.elapsed = 0.0  # seconds of the run so far; with a limit, the same in all processes after each step
        self.prepared = 0.0  # of these, seconds before the first step, of each resumption too
        self.over = False  # whether the minutes are used up
        self.spent_before = 0.0
        self.started = self.clock() if command is None else command if clock == "wall" else 0.0

    def attach(self, engine: Engine) -> None:
        """Follow the trainer's steps, and end the epoch and the run when the time is over."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end)

    def progress(self) -> float:
        """The completed share of the run."""
        share = self.step / max(1, self.total_steps)
        if self.seconds is not None:
            share = max(share, self.trained() / max(1.0, self.seconds - self.reserve - self.prepared))
        return min(1.0, share)

    def trained(self) -> float:
        """Seconds of steps and validations so far."""
        return self.elapsed - self.prepared

    def now(self) -> float:
        """Seconds of the run up to now, resumptions included, by this process's clock."""
        return self.spent_before + self.clock() - self.started

    def has_time_for_a_step(self) -> bool:
        """Whether the time that is left is more than is reserved for what follows the last step."""
        return self.seconds is None or synchronized(self.now()) + self.reserve < self.seconds

    def state_dict(self) -> dict[str, Any]:
        """The steps and the time used."""
        return {"step": self.step, "spent": max(self.elapsed, self.now()), "prepared": self.prepared}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        self.step = state["step"]
        self.spent_before = self.elapsed = state["spent"]
        self.prepared += state.get("prepared", 0.0)

    def _start(self, engine: Engine) -> None:
        self.prepared = synchronized(self.clock() - self.started)

    def _count(self, engine: Engine) -> None:
        self.step = engine.state.iteration
        self.elapsed = self.now()
        if self.seconds is not None:  # without a limit clocks do not matter, and synchronizing waits for the GPU
            self.elapsed = synchronized(self.elapsed)
            if self.elapsed + self.reserve >= self.seconds:
                self.over = True
                engine.terminate_epoch()  # EPOCH_COMPLETED still fires, and with it validation and checkpoint

    def _end(self, engine: Engine) -> None:
        if self.over:
            engine.terminate()


def time_of_start() -> float | None:
    """When this process was started, on the monotonic clock, if it runs a command of `python -m`.

    None for a training within another program, and where the operating system does not tell (other than Linux).
    """
    program = getattr(sys.modules.get("__main__"), "__spec__", None)
    now, stat = time.monotonic(), Path("/proc/self/stat")
    if program is None or program.name not in COMMANDS or not stat.is_file():
        return None
    ticks = int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[19])  # since the machine was booted
    return now - max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def rate_factor(progress: Callable[[], float], shape: str = "cosine", warmup: float = 0.02) -> Callable[[int], float]:
    """The share of the peak learning rate as a function of progress, for `torch.optim.lr_scheduler.LambdaLR`.

    Args:
        progress: returns the completed share of the run, 0 to 1 (`Budget.progress`).
        shape: after the warm-up, `cosine` (half a cosine to 0), `poly` ((1 - progress) ** 0.9, as in DeepLab and
            nnU-Net) or `constant`.
        warmup: share of the run in which the rate rises from nearly 0 to the peak; AdamW's first steps are too large
            until its second moments have settled.

    Raises:
        InputError: the shape is unknown.
    """
    if shape not in SHAPES:
        raise InputError(f"the schedule is '{shape}': expected {', '.join(SHAPES)}.")
    # if a step uses several batches, the rate is set before the first of them
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")

    def factor(_: int) -> float:
        done = progress()
        if done < warmup:
            return max(done / warmup, 0.01)  # a step of size 0 would waste a batch
        left = (done - warmup) / max(1e-9, 1.0 - warmup)
        if shape == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * left))
        return (1.0 - left) ** 0.9 if shape == "poly" else 1.0

    return factor
