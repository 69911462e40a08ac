"""Small ignite handlers around a training step: seeds, averaging, clipping, the check for NaN, progress and log."""

import logging
import time
from collections.abc import Callable
from statistics import fmean
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.data import decollate_batch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.handlers import TensorBoardStatsHandler
from monai.utils import set_determinism
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter

from scripts.data.sampler import EpochSampler
from scripts.distributed import gather_items
from scripts.errors import InputError
from scripts.network.weights import unwrap_ddp
from scripts.training.budget import Budget

READ_EVERY = 20  # steps; whoever reads a number from a GPU waits until it has been computed
logger = logging.getLogger(__name__)


def existing_handler(handler: Any) -> Any:
    """A handler that is defined elsewhere in the config: MONAI expects each item of its list to name a target."""
    return handler


class EpochSeed:
    """Starts each epoch from its own seed, so that a resumed run draws what the uninterrupted one would have drawn.

    A run that was stopped within an epoch does not draw again what it had drawn.
    """

    def __init__(self, sampler: EpochSampler, seed: int) -> None:
        self.sampler, self.seed = sampler, seed

    def attach(self, engine: Engine) -> None:
        """Seed before the epoch's first batch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._seed)

    def _seed(self, engine: SupervisedTrainer) -> None:
        epoch = engine.state.epoch - 1
        done = max(0, engine.state.iteration - epoch * engine.state.epoch_length)  # steps of this epoch
        self.sampler.set_epoch(epoch, drawn=done * len(self.sampler) // engine.state.epoch_length)
        set_determinism(self.seed + epoch, use_deterministic_algorithms=None)


class WeightAverage:
    """Keeps an exponential moving average of the weights, which is validated and kept in place of the last step's.

    Args:
        network: the network that learns.
        decay: share of the old average in the new one; smaller in the first steps, (1 + n) / (10 + n) after n of
            them, so that the random start is forgotten (the warm-up of TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, network: torch.nn.Module, decay: float) -> None:
        self.learning, self.decay = unwrap_ddp(network), decay
        self.model = AveragedModel(self.learning)
        self.network = self.model.module

    def attach(self, engine: Engine) -> None:
        """Average after each step."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._average)

    @torch.no_grad()
    def _average(self) -> None:
        """As `AveragedModel.update_parameters`, which copies its counter to the GPU and back in each step."""
        steps = int(self.model.n_averaged)  # on the host
        averages: list[torch.Tensor] = list(self.network.parameters())
        weights: list[torch.Tensor] = list(self.learning.parameters())
        if steps:
            torch._foreach_lerp_(averages, weights, 1 - min(self.decay, (1 + steps) / (10 + steps)))
        else:
            torch._foreach_copy_(averages, weights)
        for own, learning in zip(self.network.buffers(), self.learning.buffers(), strict=True):
            own.copy_(learning)
        self.model.n_averaged += 1

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

    def _clip(self, engine: SupervisedTrainer) -> None:
        assert engine.state.epoch_length is not None  # it is None only before the run
        in_epoch = (engine.state.iteration - 1) % engine.state.epoch_length + 1
        steps = in_epoch % engine.accumulation_steps == 0 or in_epoch == engine.state.epoch_length
        if not (self.max_norm and steps):
            return
        if engine.amp and engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)  # the norm means nothing while the gradient is scaled
        torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm)


def start_copy_to_host(value: torch.Tensor) -> tuple[torch.Tensor, Callable[[], None] | None]:
    """A scalar's copy on the host, and what waits until it has arrived; None: it is there."""
    if not value.is_cuda:
        return value, None
    return value.to("cpu", non_blocking=True), torch.cuda.current_stream(value.device).record_event().synchronize


class StopOnNan:
    """Ends training when the loss is no number, and names the cases of that batch.

    The loss of a GPU is looked at one step later, when it has long been computed, or at the end of its epoch. The
    weights may be NaN by then, but nothing has been made of them: attach it before what validates and saves.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint
        self.waiting: tuple[torch.Tensor, Callable[[], None] | None, str] | None = None

    def attach(self, engine: Engine) -> None:
        """Look at each loss, on a CPU before it reaches the weights, and always before its epoch is over."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._look)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._look_at_last)
        engine.add_event_handler(Events.TERMINATE, self._look_at_last)

    def _look(self, engine: Engine) -> None:
        self._raise_any(self._complaints())
        where = f"epoch {engine.state.epoch}, step {engine.state.iteration}"
        self.waiting = (
            *start_copy_to_host(engine.state.output["loss"].detach()),  # type: ignore[index]  # ignite says int
            f"{where}, on a batch of {', '.join(engine.state.batch['case'])}",  # type: ignore[index]
        )
        if self.waiting[1] is None:
            self._raise_any(self._complaints())

    def _look_at_last(self) -> None:
        if self.waiting is None:
            return
        self._raise_any(gather_items(self._complaints()))  # the process that saves is to know of the others' losses

    def _complaints(self) -> list[str]:
        """Where the loss that is waiting was no number."""
        if self.waiting is None:
            return []
        (loss, arrive, where), self.waiting = self.waiting, None
        if arrive is not None:
            arrive()
        return [] if bool(torch.isfinite(loss)) else [f"the loss became {float(loss)} in {where}"]

    def _raise_any(self, complaints: list[str]) -> None:
        for complaint in complaints:
            raise InputError(
                f"{complaint}: look at these scans, or lower the learning rate; {self.checkpoint}"
                " holds the last good epoch."
            )


class PatchOutputs:
    """Hands on what a step has computed as a list with one dictionary a patch, the loss as a tensor on its device.

    MONAI's own decollating reads the loss, which waits for the GPU in each step: switch it off in the trainer.
    """

    def attach(self, engine: Engine) -> None:
        """Separate before anything reads the output of the step."""
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._separate)

    def _separate(self, engine: Engine) -> None:
        output = dict(engine.state.output)  # type: ignore[call-overload]  # ignite says int
        loss = output.pop("loss").detach()
        engine.state.output = [{**patch, "loss": loss} for patch in decollate_batch(output)]  # type: ignore[assignment]


def step_loss(engine: Engine) -> torch.Tensor:
    """The loss of the last step, on its device."""
    return torch.as_tensor(engine.state.output[0]["loss"])  # type: ignore[index]  # ignite says int


def reads_loss_now(engine: Engine) -> bool:
    """Whether a step's loss is read at once: on a CPU always, from a GPU every `READ_EVERY` steps."""
    return not step_loss(engine).is_cuda or engine.state.iteration % READ_EVERY == 1


class StepProgress(ProgressBar):
    """A progress bar of an epoch's steps, with the loss beside it if the engine has one."""

    def __init__(self, desc: str, loss: bool = False) -> None:
        super().__init__(desc=desc, persist=False, disable=None)  # None: a terminal has a bar, a log file has none
        self.show_loss = loss
        self.shown: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:  # type: ignore[override]
        """Follow the engine's iterations."""
        super().attach(engine, output_transform=(lambda _: self._read(engine)) if self.show_loss else None)

    def _read(self, engine: Engine) -> dict[str, float]:
        if reads_loss_now(engine):
            self.shown = {"loss": float(step_loss(engine))}
        return self.shown


class LossCurve(TensorBoardStatsHandler):
    """MONAI's handler for the loss of every step; from a GPU the losses of several steps are read and written at once.

    Args:
        summary_writer: of TensorBoard.
    """

    def __init__(self, summary_writer: Any) -> None:
        super().__init__(summary_writer)
        self.waiting: list[tuple[torch.Tensor, int, float]] = []  # loss, step, time

    def attach(self, engine: Engine) -> None:
        """Follow the engine; what is kept is also written when the run ends within an epoch."""
        super().attach(engine)
        engine.add_event_handler(Events.TERMINATE, self._write)

    def iteration_completed(self, engine: Engine) -> None:
        """Keep the loss, and write all that are kept if they are to be read now."""
        self.waiting.append((step_loss(engine).detach(), engine.state.iteration, time.time()))
        if reads_loss_now(engine):
            self._write()

    def epoch_completed(self, engine: Engine) -> None:
        """Write the losses that are kept, and the metrics of the epoch."""
        self._write()
        super().epoch_completed(engine)

    def _write(self) -> None:
        if self.waiting:
            losses, steps, times = zip(*self.waiting, strict=True)
            for loss, step, when in zip(torch.stack(losses).tolist(), steps, times, strict=True):
                self._writer.add_scalar("loss", loss, step, when)
            self._writer.flush()
            self.waiting.clear()


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
        self.losses: list[torch.Tensor] = []
        self.began = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach it after the validation."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: self.losses.append(step_loss(e).detach()))
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._tell)

    def _begin(self) -> None:
        self.began = time.monotonic()
        self.losses.clear()

    def _tell(self, engine: Engine) -> None:
        parts = [f"epoch {engine.state.epoch}/{engine.state.max_epochs}"]
        if self.losses:  # a run stopped between the last step and the validation has none when it is resumed
            parts.append(f"loss {fmean(torch.stack(self.losses).tolist()):.4f}")
        parts.append(f"rate {self.optimizer.param_groups[0]['lr']:.1e}")
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
