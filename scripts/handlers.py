"""What happens around a training step? Small ignite handlers: seeds, clipping, the watch for NaN, progress and log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from statistics import fmean
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.engines.utils import IterationEvents
from monai.utils import set_determinism
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter

from scripts.cases import EpochSampler
from scripts.checkpoint import unwrapped
from scripts.errors import InputError
from scripts.schedule import Budget

logger = logging.getLogger(__name__)


def existing(handler: Any) -> Any:
    """A handler that is defined elsewhere in the config: MONAI expects each item of its list to name a target."""
    return handler


class EpochSeed:
    """Starts each epoch from its own seed, so that a resumed run draws what the uninterrupted one would have drawn."""

    def __init__(self, sampler: EpochSampler, seed: int) -> None:
        self.sampler, self.seed = sampler, seed

    def attach(self, engine: Engine) -> None:
        """Seed before the epoch's first batch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._seed)

    def _seed(self, engine: Engine) -> None:
        epoch = engine.state.epoch - 1
        self.sampler.set_epoch(epoch)
        set_determinism(self.seed + epoch, use_deterministic_algorithms=None)


class WeightAverage:
    """Keeps an exponential moving average of the weights, which is validated and kept in place of the last step's.

    Args:
        network: the network that learns.
        decay: share of the old average in the new one; smaller in the first steps, (1 + n) / (10 + n) after n of
            them, so that the random start is forgotten (the warm-up of TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, network: torch.nn.Module, decay: float) -> None:
        def average(old: list[torch.Tensor], new: list[torch.Tensor], steps: torch.Tensor | int) -> None:
            share = min(decay, (1 + int(steps)) / (10 + int(steps)))
            torch._foreach_lerp_(old, new, 1 - share)  # all weights at once: one wait for the GPU, not one a weight

        self.learning = unwrapped(network)
        self.model = AveragedModel(self.learning, multi_avg_fn=average)
        self.network = self.model.module

    def attach(self, engine: Engine) -> None:
        """Average after each step."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: self.model.update_parameters(self.learning))

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and the number of steps in them."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on averaging from there."""
        self.model.load_state_dict(state)


class GradientClipping:
    """Limits the norm of the gradient before the optimiser's step.

    Args:
        network: whose gradients are clipped.
        max_norm: the largest norm; None or 0 leaves gradients as they are.
    """

    def __init__(self, network: torch.nn.Module, max_norm: float | None) -> None:
        self.parameters, self.max_norm = list(network.parameters()), max_norm  # to look for them takes long

    def attach(self, engine: Engine) -> None:
        """Clip after the backward pass that completes a step."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)

    def _clip(self, engine: Engine) -> None:
        in_epoch = (engine.state.iteration - 1) % engine.state.epoch_length + 1
        steps = in_epoch % engine.accumulation_steps == 0 or in_epoch == engine.state.epoch_length
        if not (self.max_norm and steps):
            return
        if engine.amp and engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)  # the norm means nothing while the gradient is scaled
        torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm)


class StopOnNan:
    """Ends training when the loss is no number, and names the cases of that batch."""

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def attach(self, engine: Engine) -> None:
        """Look at each loss before it reaches the weights."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._look)

    def _look(self, engine: Engine) -> None:
        loss = engine.state.output["loss"]
        if not bool(torch.isfinite(loss)):
            raise InputError(
                f"the loss became {float(loss)} in epoch {engine.state.epoch}, step {engine.state.iteration}, on a"
                f" batch of {', '.join(engine.state.batch['case'])}: look at these scans, or lower the learning rate;"
                f" {self.checkpoint}"
                " holds the last good epoch."
            )


class StepProgress(ProgressBar):
    """A progress bar of an epoch's steps, with the loss beside it if the engine has one."""

    def __init__(self, desc: str, loss: bool = False) -> None:
        super().__init__(desc=desc, persist=False, disable=None)  # None: a terminal has a bar, a log file has none
        self.show_loss = loss

    def attach(self, engine: Engine) -> None:  # type: ignore[override]
        """Follow the engine's iterations."""
        loss = (lambda output: {"loss": output[0]["loss"]}) if self.show_loss else None
        super().attach(engine, output_transform=loss)


class LazySummaryWriter:
    """A TensorBoard writer that makes its folder when the first value is written, so that `check` leaves nothing."""

    def __init__(self, log_dir: str) -> None:
        self.log_dir = log_dir
        self.writer: SummaryWriter | None = None

    def __getattr__(self, name: str) -> Any:
        if self.writer is None:
            self.writer = SummaryWriter(self.log_dir)
        return getattr(self.writer, name)


class EpochLog:
    """One line an epoch: loss, rate, scores of a fresh validation, seconds, and how long the rest will take.

    Args:
        validator: the validation engine; its scores are shown in the epochs that were validated.
        scores: tells the scores of its last pass, in words.
        optimizer: whose rate is shown.
        budget: tells the progress.
        best_epoch: tells the epoch with the best score so far.
    """

    def __init__(
        self,
        validator: Engine,
        scores: Callable[[], str],
        optimizer: torch.optim.Optimizer,
        budget: Budget,
        best_epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        self.validator, self.scores, self.best_epoch = validator, scores, best_epoch
        self.optimizer, self.budget = optimizer, budget
        self.losses: list[float] = []
        self.began = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach it after the validation."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: self.losses.append(e.state.output[0]["loss"]))
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._tell)

    def _begin(self) -> None:
        self.began = time.monotonic()
        self.losses.clear()

    def _tell(self, engine: Engine) -> None:
        parts = [f"epoch {engine.state.epoch}/{engine.state.max_epochs}"]
        parts.append(f"loss {fmean(self.losses):.4f}  rate {self.optimizer.param_groups[0]['lr']:.1e}")
        if self.validator.state.metrics and self.validator.state.epoch == engine.state.epoch:
            best = " (best so far)" if self.best_epoch() == engine.state.epoch else ""
            parts.append(f"validation {self.scores()}{best}")
        parts.append(f"{time.monotonic() - self.began:.0f} s")
        done = self.budget.progress()
        if 0 < done < 1:
            parts.append(f"{_minutes(self.budget.elapsed * (1 - done) / done)} left")
        logger.info("  ".join(parts))


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
