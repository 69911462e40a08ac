"""Small ignite handlers around a training step: seeds, averaging, progress, logs."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
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
from scripts.network.outputs import read_logits
from scripts.network.weights import unwrap_ddp

READ_EVERY = 20  # steps; reading a number from a GPU waits until it has been computed


def existing_handler(handler: Any) -> Any:
    """Return a handler defined elsewhere in the config: MONAI expects a target for each item of its list."""
    return handler


class LogFile:
    """Appends what is logged to a file while the engine runs.

    Args:
        path: the file; its folder is created.

    Attach it before handlers that log, and before one that raises the engine's error, as `RunState` does.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.handler: logging.Handler = logging.NullHandler()

    def attach(self, engine: Engine) -> None:
        """Open the file when the engine starts, close it when it ends."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.COMPLETED, self._close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, lambda _, error: self._close())

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.handler = logging.FileHandler(self.path, encoding="utf-8")
        self.handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
        logging.getLogger().addHandler(self.handler)

    def _close(self) -> None:
        logging.getLogger().removeHandler(self.handler)
        self.handler.close()


class EpochSeed:
    """Seeds each epoch, so that a resumed run draws the same random numbers as an uninterrupted one.

    A run that was stopped within an epoch continues after the patches it had drawn.
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
    """Keeps an exponential moving average of the weights, which is validated and saved instead of the last step's.

    Args:
        network: the trained network.
        decay: share of the old average in the new one; smaller in the first steps, (1 + n) / (10 + n) after n of
            them, so that the random initialisation is forgotten (as in TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, network: torch.nn.Module, decay: float) -> None:
        self.learning, self.decay = unwrap_ddp(network), decay
        self.model = AveragedModel(self.learning)
        self.model.n_averaged = self.model.n_averaged.to(next(self.learning.parameters()).device)
        self.network = self.model.module

    def attach(self, engine: Engine) -> None:
        """Average after each optimiser step, but not after one that was skipped (`GradientCheck`)."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._average)

    @torch.no_grad()
    def _average(self, engine: Engine) -> None:
        """As `AveragedModel.update_parameters`, with the counter on the device, so that no step waits for it."""
        if not completes_step(engine):
            return
        averages: list[torch.Tensor] = list(self.network.parameters())
        weights: list[torch.Tensor] = list(self.learning.parameters())
        steps = self.model.n_averaged
        taken = 1 - getattr(engine.state, "skipped", torch.zeros((), device=steps.device))
        share = torch.where(steps > 0, 1 - ((1 + steps) / (10 + steps)).clamp(max=self.decay), 1.0) * taken
        changes = torch._foreach_sub(weights, averages)
        torch._foreach_mul_(changes, share)
        torch._foreach_add_(averages, changes)
        for own, learning in zip(self.network.buffers(), self.learning.buffers(), strict=True):
            own.copy_(learning)
        self.model.n_averaged += taken.long()

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and the number of steps in them."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        self.model.load_state_dict(state)


def completes_step(engine: Engine) -> bool:
    """Whether the current batch is the last one of an optimiser step (the rule of MONAI's trainer)."""
    assert engine.state.epoch_length is not None  # it is None only before the run
    in_epoch = (engine.state.iteration - 1) % engine.state.epoch_length + 1
    return in_epoch % getattr(engine, "accumulation_steps", 1) == 0 or in_epoch == engine.state.epoch_length


def start_copy_to_host(value: torch.Tensor) -> tuple[torch.Tensor, Callable[[], None] | None]:
    """A scalar's copy on the host, and a function that waits for its arrival; None if it has arrived."""
    if not value.is_cuda:
        return value, None
    return value.to("cpu", non_blocking=True), torch.cuda.current_stream(value.device).record_event().synchronize


class PatchOutputs:
    """Turns the output of a step into a list with one dictionary per patch, the loss as a tensor on its device.

    Of several outputs of the network the most accurate logits are kept.

    MONAI's own decollating reads the loss, which waits for the GPU in each step: switch it off in the trainer.
    """

    def attach(self, engine: Engine) -> None:
        """Separate the patches before anything reads the output of the step."""
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._separate)

    def _separate(self, engine: Engine) -> None:
        output = dict(engine.state.output)
        output["pred"] = read_logits(output["pred"], axes=output["image"].dim() - 2)
        loss = output.pop("loss").detach()
        engine.state.output = [{**patch, "loss": loss} for patch in decollate_batch(output)]


def step_loss(engine: Engine) -> torch.Tensor:
    """The loss of the last step, on its device."""
    return torch.as_tensor(engine.state.output[0]["loss"])


def reads_loss_now(engine: Engine) -> bool:
    """Whether a step's loss is read at once: always on a CPU, every `READ_EVERY` steps on a GPU."""
    return not step_loss(engine).is_cuda or engine.state.iteration % READ_EVERY == 1


class StepProgress(ProgressBar):
    """A progress bar of an epoch's steps, with the loss if the engine has one."""

    def __init__(self, desc: str, loss: bool = False) -> None:
        super().__init__(desc=desc, persist=False, disable=None)  # None: in a terminal only, not in log files
        self.show_loss = loss
        self.shown: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Follow the engine's iterations."""
        super().attach(engine, output_transform=(lambda _: self._read(engine)) if self.show_loss else None)

    def _read(self, engine: Engine) -> dict[str, float]:
        if reads_loss_now(engine):
            self.shown = {"loss": float(step_loss(engine))}
        return self.shown


class LossCurve(TensorBoardStatsHandler):
    """MONAI's handler for the loss of every step; on a GPU the losses of several steps are read and written together.

    Args:
        summary_writer: of TensorBoard.
    """

    def __init__(self, summary_writer: Any) -> None:
        super().__init__(summary_writer)
        self.waiting: list[tuple[torch.Tensor, int, float]] = []  # loss, step, time

    def attach(self, engine: Engine) -> None:
        """Follow the engine; kept losses are also written if the run ends within an epoch."""
        super().attach(engine)
        engine.add_event_handler(Events.TERMINATE, self._write)

    def iteration_completed(self, engine: Engine) -> None:
        """Keep the loss, and write all kept ones if it is time to read them."""
        self.waiting.append((step_loss(engine).detach(), engine.state.iteration, time.time()))
        if reads_loss_now(engine):
            self._write()

    def epoch_completed(self, engine: Engine) -> None:
        """Write the kept losses and the metrics of the epoch."""
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
    """A TensorBoard writer that creates its folder with the first value, so that `check` writes nothing."""

    def __init__(self, log_dir: str) -> None:
        self.log_dir = log_dir
        self.writer: SummaryWriter | None = None

    def __getattr__(self, name: str) -> Any:
        if self.writer is None:
            self.writer = SummaryWriter(self.log_dir)
        return getattr(self.writer, name)
