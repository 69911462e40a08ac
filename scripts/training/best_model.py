"""Selection of a run's weights: the best validated epoch."""

import logging
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch import nn

from scripts.distributed import synchronized
from scripts.network.weights import unwrap_ddp, without_heads
from scripts.training.budget import SPARE, Budget
from scripts.training.component_thresholds import ComponentStatistics
from scripts.training.run_folder import RunFolder
from scripts.training.validation_score import RegionScore

logger = logging.getLogger(__name__)


class BestModel:
    """Keeps the weights of the best validated epoch, and ends training when the score stops improving.

    Args:
        evaluator: the validation engine; its `val_score` is negative if a region is under the floor.
        scores: of the cases of the same validation pass.
        network: its weights are kept (the averaged ones).
        folder: the run's folder; gets model.pt, settings.yaml, and the scores of the last and of the best validation.
        components: statistics of the same validation pass, for selecting the smallest components.
        budget: gets the duration of a validation.
        patience: validations without a better score before training ends; None: never.
        writes: whether this process writes.

    Attach it to the trainer, after the `ValidationHandler`. The last epoch is always validated.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        scores: RegionScore,
        network: nn.Module,
        folder: RunFolder,
        components: ComponentStatistics,
        budget: Budget,
        patience: int | None = None,
        writes: bool = True,
    ) -> None:
        self.evaluator, self.scores, self.network = evaluator, scores, network
        self.folder, self.components = folder, components
        self.budget, self.patience, self.writes = budget, patience, writes
        self.first = True  # whether the next validation is this process's first
        self.best: dict[str, Any] = {"score": float("-inf"), "epoch": 0, "validated": 0, "without_better": 0}

    def attach(self, engine: Engine) -> None:
        """Check each validation; validate after the last epoch."""
        self.trainer = engine
        self.evaluator.add_event_handler(Events.STARTED, self._start)
        self.evaluator.add_event_handler(Events.COMPLETED, self._score)
        engine.add_event_handler(Events.EPOCH_STARTED, self._end_if_patience_is_spent)  # for a resumed run
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._validate_last)

    def state_dict(self) -> dict[str, Any]:
        """Best score and epoch, and the number of validations since."""
        return dict(self.best)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        self.best = dict(state)

    def _start(self) -> None:
        self.began = self.budget.clock()

    def _score(self) -> None:
        score, epoch = float(self.evaluator.state.metrics["val_score"]), self.trainer.state.epoch
        self.best["validated"] = epoch
        if self.writes:
            self.folder.write_scores("validation", self.scores.cases, epoch, "checkpoint.pt")
        if score > self.best["score"]:
            self.best.update(score=score, epoch=epoch, without_better=0)
            if self.writes:
                self._keep(score, epoch)
        else:
            self.best["without_better"] += 1
            self._end_if_patience_is_spent()
        # the last epoch is validated too
        measured = synchronized(SPARE * (self.budget.clock() - self.began))
        self.budget.reserve = measured if self.first else max(self.budget.reserve, measured)  # the first was estimated
        self.first = False
        if not self.budget.has_time_for_a_step():
            self.trainer.terminate()

    def _end_if_patience_is_spent(self) -> None:
        if self.patience is not None and self.best["without_better"] >= self.patience:
            logger.info("no better score in %d validations: training ends", self.patience)
            self.trainer.terminate()

    def _keep(self, score: float, epoch: int) -> None:
        dice = {k: float(v) for k, v in self.evaluator.state.metrics.items() if k.startswith("dice_")}
        self.folder.keep_weights(
            without_heads(unwrap_ddp(self.network).state_dict()),
            min_component_ml=self.components.select_thresholds(),
            chosen={"epoch": epoch, "score": score if score >= 0 else score + 1, "above_floor": score >= 0, **dice},
        )
        self.folder.write_scores("validation_best", self.scores.cases, epoch, "model.pt")

    def _validate_last(self, engine: Engine) -> None:
        last = engine.should_terminate or engine.state.epoch == engine.state.max_epochs or self.budget.over
        if last and self.best["validated"] != engine.state.epoch:
            self.evaluator.run(engine.state.epoch)
