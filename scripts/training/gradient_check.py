"""The gradient of an optimiser step: its largest norm, and skipping it if it is NaN or infinite."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents

from scripts.distributed import gather_items, is_first_process
from scripts.errors import InputError
from scripts.training.handlers import completes_step, start_copy_to_host

SHOWN_CASES = 10  # in a message
logger = logging.getLogger(__name__)


class GradientCheck:
    """Limits the norm of the gradient, and skips optimiser steps whose loss or gradient is NaN or infinite.

    A skipped step changes neither weights nor optimiser nor running statistics; all that was accumulated for it is
    dropped. `engine.state.skipped` is a tensor on the device: 1 if the last step was skipped, else 0.

    The norm decides. A loss that is not finite gets NaN as its gradient, which `DistributedDataParallel` adds to those
    of all processes, so that all skip the step. A fused optimiser skips on the device, and the norm is read one step
    later or at the end of the epoch; a GPU waits with any other optimiser. A float16 overflow, which the loss scaler
    skips, is not counted unless the loss itself is not finite or the scale has fallen below 1.

    Args:
        network: its gradients are limited.
        max_norm: the largest norm; None or 0: any.
        allowed: steps in a row that may be skipped; the next one ends the run.
        checkpoint: the file that the message names.

    Attach it before the handlers that validate and save. Its state is the number of steps skipped in a row.

    Raises:
        InputError: more steps in a row than allowed were skipped; names their cases.
    """

    def __init__(self, network: torch.nn.Module, max_norm: float | None, allowed: int, checkpoint: str) -> None:
        self.parameters, self.buffers = list(network.parameters()), list(network.buffers())  # collecting takes long
        self.max_norm, self.allowed, self.checkpoint = max_norm, allowed, checkpoint
        self.in_row, self.cases = 0, list[str]()  # skipped last, and the cases of their batches
        self.batches: list[tuple[list[str], torch.Tensor]] = []  # of this step: cases and loss
        self.saved: list[torch.Tensor] = []  # buffers before this step
        self.waiting: tuple[torch.Tensor, Callable[[], None] | None, list, str] | None = None

    def attach(self, engine: SupervisedTrainer) -> None:
        """Check each step, and read all results before the epoch is over."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._begin)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._follow_loss)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._check)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._read)
        engine.add_event_handler(Events.TERMINATE, self._read)

    def state_dict(self) -> dict[str, Any]:
        """The steps skipped last, and their cases."""
        return {"in_row": self.in_row, "cases": self.cases}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        self.in_row, self.cases = state["in_row"], state["cases"]

    def _begin(self) -> None:
        if not self.batches:
            self.saved = [buffer.clone() for buffer in self.buffers]

    def _follow_loss(self, engine: SupervisedTrainer) -> None:
        loss = engine.state.output["loss"]
        value = loss.detach()
        loss.register_hook(lambda gradient: gradient.where(value.isfinite(), torch.nan))
        self.batches.append((list(engine.state.batch["case"]), value))

    @torch.no_grad()
    def _check(self, engine: SupervisedTrainer) -> None:
        if not completes_step(engine):
            return
        optimizer, scaler = engine.optimizer, engine.scaler if engine.amp else None
        if scaler is not None:
            scaler.unscale_(optimizer)  # the norm is of the unscaled gradient
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.max_norm:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.max_norm, norm)
        skipped = engine.state.skipped = (~norm.isfinite()).float()
        for buffer, saved in zip(self.buffers, self.saved, strict=True):
            buffer.copy_(saved.where(skipped > 0, buffer))
        self._read(engine)
        if scaler is not None:
            pass  # the scaler has seen the same gradients
        elif getattr(optimizer, "_step_supports_amp_scaling", False) and optimizer.state:
            optimizer.found_inf = skipped  # type: ignore[attr-defined]  # as `GradScaler` does
        elif bool(skipped):  # also in the first step of a fused optimiser, which has no momentum yet
            optimizer.zero_grad(set_to_none=True)  # no gradient, no step
        where = f"epoch {engine.state.epoch}, step {engine.state.iteration}"
        self.waiting = (*start_copy_to_host(skipped), self.batches, where)
        self.batches = []
        if self.waiting[1] is None:
            self._read(engine)

    def _read(self, engine: SupervisedTrainer) -> None:
        """Count the waiting step."""
        if self.waiting is None:
            return
        (skipped, arrive, batches, where), self.waiting = self.waiting, None
        if arrive is not None:
            arrive()
        if not skipped:
            self.in_row, self.cases = 0, []
            return
        lost = gather_items([(cases, float(loss)) for cases, loss in batches if not loss.isfinite()])
        if not lost and engine.amp and engine.scaler is not None and engine.scaler.get_scale() >= 1:
            return
        what = f"loss became {lost[0][1]}" if lost else "gradient became NaN or infinite"
        cases = [case for own, _ in lost for case in own] or gather_items([case for own, _ in batches for case in own])
        self.in_row += 1
        self.cases = list(dict.fromkeys([*self.cases, *cases]))
        message = f"the {what} in {where}"
        if self.in_row > self.allowed:
            row = f", the last of {self.in_row} such steps in a row" if self.in_row > 1 else ""
            raise InputError(
                f"{message}{row}, on batches of {_named(self.cases)}: check these scans, or lower the learning rate;"
                f" {self.checkpoint} holds the last good epoch."
            )
        if is_first_process():
            logger.warning(f"{message}, on a batch of {_named(cases)}: this step is skipped")


def _named(cases: list[str]) -> str:
    more = f" and {len(cases) - SHOWN_CASES} more" if len(cases) > SHOWN_CASES else ""
    return ", ".join(cases[:SHOWN_CASES]) + more
