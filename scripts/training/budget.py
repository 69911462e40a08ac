"""The length of a training, in epochs or minutes, and the learning rate schedule."""

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

from ignite.engine import Engine, Events

from scripts.distributed import synchronized


class Budget:
    """Measures the progress of training, 0 to 1, and ends it when its minutes are over.

    Args:
        max_epochs: epochs of the whole run.
        steps_per_epoch: iterations of the trainer per epoch: batches, of which an optimiser step may use several.
        max_minutes: wall time of the run including all its resumptions, or None. The schedule is fitted to it: progress
            is the larger of the share of steps and the share of minutes.

    Attach it to the trainer. Its state is the time used so far.
    """

    def __init__(self, max_epochs: int, steps_per_epoch: int, max_minutes: float | None = None) -> None:
        self.total_steps = max_epochs * steps_per_epoch
        self.seconds = None if max_minutes is None else 60.0 * max_minutes
        self.reserve = 0.0  # seconds needed after the last step, the same in all processes
        self.step = 0
        self.elapsed = 0.0  # seconds of training so far; with a limit, the same in all processes after each step
        self.over = False  # whether the minutes are used up
        self.spent_before = 0.0
        self.started = 0.0  # on the monotonic clock

    def attach(self, engine: Engine) -> None:
        """Follow the trainer's steps, and end the epoch and the run when the time is over."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end)

    def progress(self) -> float:
        """The completed share of the run."""
        share = self.step / max(1, self.total_steps)
        if self.seconds is not None:
            share = max(share, self.elapsed / max(1.0, self.seconds - self.reserve))
        return min(1.0, share)

    def state_dict(self) -> dict[str, Any]:
        """The steps and the time used."""
        return {"step": self.step, "spent": self.elapsed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        self.step = state["step"]
        self.spent_before = self.elapsed = state["spent"]

    def _start(self, engine: Engine) -> None:
        self.started = time.monotonic()

    def _count(self, engine: Engine) -> None:
        self.step = engine.state.iteration
        self.elapsed = self.spent_before + time.monotonic() - self.started
        if self.seconds is not None:  # without a limit clocks do not matter, and synchronizing waits for the GPU
            self.elapsed = synchronized(self.elapsed)
            if self.elapsed + self.reserve >= self.seconds:
                self.over = True
                engine.terminate_epoch()  # EPOCH_COMPLETED still fires, and with it validation and checkpoint

    def _end(self, engine: Engine) -> None:
        if self.over:
            engine.terminate()


def rate_factor(progress: Callable[[], float], shape: str = "cosine", warmup: float = 0.02) -> Callable[[int], float]:
    """The share of the peak learning rate as a function of progress, for `torch.optim.lr_scheduler.LambdaLR`.

    Args:
        progress: returns the completed share of the run, 0 to 1 (`Budget.progress`).
        shape: after the warm-up, `cosine` (half a cosine to 0) or `poly` ((1 - progress) ** 0.9, as in DeepLab and
            nnU-Net).
        warmup: share of the run in which the rate rises from nearly 0 to the peak; AdamW's first steps are too large
            until its second moments have settled.

    Raises:
        ValueError: the shape is unknown.
    """
    if shape not in ("cosine", "poly"):
        raise ValueError(f"the schedule is '{shape}': expected cosine or poly.")
    # if a step uses several batches, the rate is set before the first of them
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")

    def factor(_: int) -> float:
        done = progress()
        if done < warmup:
            return max(done / warmup, 0.01)  # a step of size 0 would waste a batch
        left = (done - warmup) / max(1e-9, 1.0 - warmup)
        return (1.0 - left) ** 0.9 if shape == "poly" else 0.5 * (1.0 + math.cos(math.pi * left))

    return factor
