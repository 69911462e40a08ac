"""The history of a run: one row per epoch in history.csv, drawn in history.png, and one line in the log."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

from scripts.data.decision import RegionDecision
from scripts.data.imperfect_labels import IGNORED
from scripts.distributed import is_first_process, process_count, sum_over_processes
from scripts.network.outputs import read_logits
from scripts.scoring.tables import write_table
from scripts.training.budget import Budget
from scripts.training.handlers import completes_step
from scripts.training.history_figure import draw_history

TABLE, FIGURE = "history.csv", "history.png"
logger = logging.getLogger(__name__)


class History:
    """Measures each epoch, and writes all epochs so far to history.csv; draws them after a validation.

    Columns of history.csv, empty where an epoch was not validated:

    - `epoch` and `step` (batches) since the start of the run, and its `minutes` by the budget's clock,
    - `rate`: learning rate of the last step,
    - `train_loss`: mean over the batches of all heads' loss; those that are NaN or infinite are left out,
    - `train_loss_<term>`: the same of each term of a loss that has `values`, without its weight,
    - `train_dice_<region>`: Dice of the finest head over all voxels of the epoch's patches,
    - `val_loss`: mean over the validation cases (`ValidationLoss`),
    - `val_dice_<region>`: mean over the validation cases (`RegionScore`),
    - `skipped_steps`: optimiser steps without effect (`GradientCheck`).

    Args:
        folder: of the run.
        regions: the regions in their order.
        decision: which regions a voxel of logits belongs to; takes labels, which have the same channels, too.
        loss: its `values`, if it has them, are the terms of its last call by name: detached scalars.
        validator: the validation engine.
        optimizer: its rate is recorded.
        budget: gives the minutes.
        best_epoch: returns the epoch with the best score so far.
        writes: whether this process writes.
        imperfect: whether labels may be shares of raters, which are in a region above one half, or hold voxels to
            ignore, which the Dice leaves out.

    Sums stay on the device until the epoch is over. Attach it to the trainer, after the validation. Its state is all
    rows, and the sums of an unfinished epoch; the other processes' sums are lost when a run stops within an epoch.
    """

    def __init__(
        self,
        folder: str,
        regions: Sequence[str],
        decision: RegionDecision,
        loss: nn.Module,
        validator: Engine,
        optimizer: torch.optim.Optimizer,
        budget: Budget,
        best_epoch: Callable[[], int],
        writes: bool = True,
        imperfect: bool = False,
    ) -> None:
        self.imperfect = imperfect
        self.folder, self.regions, self.decision, self.loss = Path(folder), list(regions), decision, loss
        self.validator, self.optimizer, self.budget = validator, optimizer, budget
        self.best_epoch, self.writes = best_epoch, writes
        self.rows: list[dict[str, Any]] = []
        self.sums: dict[str, torch.Tensor] = {}

    def attach(self, engine: Engine) -> None:
        """Add each batch, and write the row when the epoch is over."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._add_batch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def state_dict(self) -> dict[str, Any]:
        """The rows, and the sums of the epoch so far."""
        return {"rows": self.rows, "sums": dict(self.sums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        self.rows = list(state["rows"])
        self.sums = {name: total * is_first_process() for name, total in state["sums"].items()}  # counted once

    def _add(self, name: str, value: torch.Tensor) -> None:
        before = self.sums.get(name)
        self.sums[name] = value.double() if before is None else before.to(value.device) + value

    @torch.no_grad()
    def _add_batch(self, engine: Engine) -> None:
        label, loss = engine.state.output["label"], engine.state.output["loss"].detach()
        logits = read_logits(engine.state.output["pred"], label.dim() - 2)
        certain = label - 0.5 if self.imperfect else label
        predicted, truth = (self.decision.masks(channels, axis=1) for channels in (logits, certain))
        if self.imperfect:
            counted = label[:, :1] != IGNORED
            predicted, truth = predicted & counted, truth & counted
        axes = [axis for axis in range(truth.dim()) if axis != 1]
        voxels = [(predicted & truth).sum(axes), predicted.sum(axes), truth.sum(axes)]
        self._add("voxels", torch.stack(voxels).where(loss.isfinite(), 0))
        terms = {f"train_loss_{name}": value for name, value in getattr(self.loss, "values", {}).items()}
        for name, value in {"train_loss": loss, **terms}.items():
            self._add(name, torch.stack([value, torch.ones_like(value)]).where(value.isfinite(), 0))

    def _add_step(self, engine: Engine) -> None:
        skipped = getattr(engine.state, "skipped", None)
        if skipped is not None and completes_step(engine):
            self._add("skipped_steps", skipped)

    def _finish(self, engine: Engine) -> None:
        totals = {name: sum_over_processes(total).cpu() for name, total in self.sums.items()}
        self.sums = {}
        if not totals:  # the epoch has its row already
            return
        both, predicted, truth = totals.pop("voxels")
        dice = {
            f"train_dice_{region}": _number(value)  # None if both are empty
            for region, value in zip(self.regions, 2 * both / (predicted + truth), strict=True)
        }
        skipped = int(totals.pop("skipped_steps", torch.zeros(())) / process_count())
        validated = self.validator.state.metrics if was_validated(self.validator, engine) else {}
        row = {
            "epoch": engine.state.epoch,
            "step": engine.state.iteration,
            "minutes": round(self.budget.now() / 60, 3),
            "rate": self.optimizer.param_groups[0]["lr"],
            **{name: _number(total / count) for name, (total, count) in totals.items()},
            **dice,
            "val_loss": validated.get("val_loss"),
            **{f"val_dice_{region}": validated.get(f"dice_{region}") for region in self.regions},
            "skipped_steps": skipped,
        }
        engine.state.metrics |= {name: value for name, value in dice.items() if value is not None}  # for TensorBoard
        self.rows = [*(old for old in self.rows if old["epoch"] < row["epoch"]), row]
        if self.writes:
            table = self._as_table()
            write_table(table, self.folder / TABLE)
            if validated:
                draw_history(table, self.regions, self.best_epoch(), self.folder / FIGURE)

    def _as_table(self) -> pd.DataFrame:
        """All rows; terms that start later than others are next to them."""
        table = pd.DataFrame(self.rows).apply(pd.to_numeric)
        terms = [name for name in table if name.startswith("train_loss_")]
        others = [name for name in table if name not in terms]
        place = others.index("train_loss") + 1
        return table[[*others[:place], *terms, *others[place:]]]


class EpochLog:
    """Logs one line per epoch: loss, rate, scores if it was validated, seconds, and the estimated remaining time.

    Seconds and remaining time are those of the budget's clock.

    Args:
        history: has the epoch's row.
        validator: the validation engine.
        scores: returns the scores of its last pass, in words.
        budget: gives the progress.
        best_epoch: returns the epoch with the best score so far.
    """

    def __init__(
        self,
        history: History,
        validator: Engine,
        scores: Callable[[], str],
        budget: Budget,
        best_epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        self.history, self.validator, self.scores = history, validator, scores
        self.budget, self.best_epoch = budget, best_epoch
        self.began = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach it after the history."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._log)

    def _begin(self) -> None:
        self.began = self.budget.clock()

    def _log(self, engine: Engine) -> None:
        row = self.history.rows[-1]
        parts = [f"epoch {engine.state.epoch}/{engine.state.max_epochs}"]
        parts += [] if row["train_loss"] is None else [f"loss {row['train_loss']:.4f}"]
        parts += [f"{row['skipped_steps']} steps skipped"] if row["skipped_steps"] else []
        parts.append(f"rate {row['rate']:.1e}")
        if was_validated(self.validator, engine):
            best = " (best so far)" if self.best_epoch() == engine.state.epoch else ""
            parts.append(f"validation {self.scores()}{best}")
        parts.append(f"{self.budget.clock() - self.began:.0f} s")
        done = self.budget.progress()
        if 0 < done < 1:
            parts.append(f"{_minutes(self.budget.trained() * (1 - done) / done)} left")
        logger.info("  ".join(parts))


def was_validated(validator: Engine, trainer: Engine) -> bool:
    """Whether the validation engine has scored the trainer's current epoch."""
    return bool(validator.state.metrics) and validator.state.epoch == trainer.state.epoch


def _number(value: torch.Tensor) -> float | None:
    """None for NaN: no batch, or no voxel, has been counted."""
    return None if value.isnan() else float(value)


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
