"""Which epoch's weights are the run's result? A weighted score of regions, with a floor under the worst of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import DiceMetric
from torch import nn

from scripts.checkpoint import save, unwrapped, without_heads
from scripts.components import ComponentStatistics
from scripts.errors import InputError
from scripts.run_folder import RunFolder
from scripts.schedule import Budget, agreed

logger = logging.getLogger(__name__)


class RegionScore(IgniteMetricHandler):
    """The weighted mean over regions of the mean Dice over cases, lowered by 1 while any region is under the floor.

    An epoch under the floor so ranks below every accepted one, however good its mean. A region that a case lacks counts
    1 where nothing was predicted and 0 where something was: hallucinations count. Needs binary `pred` and `label`
    [R, ...]. Puts `dice_<region>` beside itself into the metrics.

    Args:
        regions: the regions in channel order.
        weights: region name to weight; None: all alike.
        floor: the smallest mean Dice that any region may have.
    """

    def __init__(self, regions: Sequence[str], weights: Mapping[str, float] | None = None, floor: float = 0.0) -> None:
        dice = DiceMetric(include_background=True, reduction="mean_batch", ignore_empty=False)
        super().__init__(metric_fn=dice, output_transform=from_engine(["pred", "label"]), save_details=False)
        self.regions, self.floor = list(regions), floor
        if weights is not None and list(weights) != self.regions:  # in order, since the loss takes them by channel
            raise InputError(
                f"region_weights names {', '.join(weights)}: expected a weight for each of {', '.join(self.regions)},"
                " in this order."
            )
        self.weights = [1.0 if weights is None else float(weights[name]) for name in self.regions]

    def compute(self) -> float:
        """The score of the pass that just ended."""
        dice = self.metric_fn.aggregate().tolist()
        self.metric_fn.reset()
        metrics = self._engine.state.metrics
        metrics.update({f"dice_{name}": value for name, value in zip(self.regions, dice, strict=True)})
        mean = sum(w * d for w, d in zip(self.weights, dice, strict=True)) / sum(self.weights)
        return mean if min(dice) >= self.floor else mean - 1.0


class BestModel:
    """Keeps the weights of the best validated epoch, and ends training when it no longer gets better.

    Args:
        evaluator: the validation engine; its metrics hold `score_name`.
        network: whose weights are kept (the averaged ones).
        folder: the run's folder; gets model.pt and knobs.yaml.
        components: statistics of the same validation pass, from which the smallest components are chosen.
        budget: told how long a validation takes.
        score_name: the metric to maximise; negative means that a region is under the floor.
        patience: validations without a better score before training ends; None: never.
        writes: whether this process writes.

    Attach it to the trainer, after the `ValidationHandler`. The last epoch is validated whatever the interval.
    """

    def __init__(
        self,
        evaluator: Engine,
        network: nn.Module,
        folder: RunFolder,
        components: ComponentStatistics,
        budget: Budget,
        score_name: str = "val_score",
        patience: int | None = None,
        writes: bool = True,
    ) -> None:
        self.evaluator, self.network, self.folder, self.components = evaluator, network, folder, components
        self.budget, self.score_name, self.patience, self.writes = budget, score_name, patience, writes
        self.best: dict[str, Any] = {"score": float("-inf"), "epoch": 0, "validated": 0, "without_better": 0}

    def attach(self, engine: Engine) -> None:
        """Judge each validation; validate after the last epoch."""
        self.trainer = engine
        self.evaluator.add_event_handler(Events.STARTED, self._start)
        self.evaluator.add_event_handler(Events.COMPLETED, self._judge)
        engine.add_event_handler(
            Events.EPOCH_STARTED, self._end_if_patience_is_spent
        )  # a resumed run may have ended so
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._validate_last)

    def state_dict(self) -> dict[str, Any]:
        """Best score and epoch, and how long nothing was better."""
        return dict(self.best)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.best = dict(state)

    def _start(self) -> None:
        self.began = time.monotonic()

    def _judge(self) -> None:
        score, epoch = float(self.evaluator.state.metrics[self.score_name]), self.trainer.state.epoch
        self.best["validated"] = epoch
        if score > self.best["score"]:
            self.best.update(score=score, epoch=epoch, without_better=0)
            if self.writes:
                self._keep(score, epoch)
        else:
            self.best["without_better"] += 1
            self._end_if_patience_is_spent()
        # the last epoch is validated too, and a slow machine may take longer then
        self.budget.reserve = max(self.budget.reserve, agreed(1.5 * (time.monotonic() - self.began)))

    def _end_if_patience_is_spent(self) -> None:
        if self.patience is not None and self.best["without_better"] >= self.patience:
            logger.info("no better score in %d validations: training ends", self.patience)
            self.trainer.terminate()

    def _keep(self, score: float, epoch: int) -> None:
        save(self.folder.path / "model.pt", without_heads(unwrapped(self.network).state_dict()))
        metrics = {k: float(v) for k, v in self.evaluator.state.metrics.items() if k.startswith("dice_")}
        self.folder.keep_choice(
            min_component_ml=self.components.choose(),
            chosen={"epoch": epoch, "score": score if score >= 0 else score + 1, "above_floor": score >= 0, **metrics},
        )

    def _validate_last(self, engine: Engine) -> None:
        last = engine.should_terminate or engine.state.epoch == engine.state.max_epochs or self.budget.over
        if last and self.best["validated"] != engine.state.epoch:
            self.evaluator.run(engine.state.epoch)
