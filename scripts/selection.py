"""Which epoch's weights are the run's result? A weighted score of regions, with a floor under the worst of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from ignite.engine import Engine, Events
from torch import nn

from scripts import metrics
from scripts.checkpoint import save, unwrapped, without_heads
from scripts.components import ComponentStatistics
from scripts.errors import InputError
from scripts.processes import agreed, gathered
from scripts.run_folder import RunFolder
from scripts.schedule import Budget
from scripts.scoring import COLUMNS
from scripts.summary import LOW_DICE, summary

# what costs next to nothing; distances and lesions are for `evaluating`, on the label files' own grid
MEASURED = (*metrics.OVERLAP, *metrics.VOLUMES)
logger = logging.getLogger(__name__)


class RegionScore:
    """Measures each case of a validation; the score is the weighted mean over regions of the mean Dice over cases.

    It is lowered by 1 while any region is under the floor: such an epoch ranks below every accepted one, however good
    its mean. A region that a case lacks counts 1 where nothing was predicted and 0 where something was:
    hallucinations count. Puts `dice_<region>` (the mean), `dice_median_<region>` and `dice_under_0.7_<region>` (cases)
    beside itself into the metrics.

    Args:
        regions: the regions in channel order.
        patients: case to patient, for the cases of this process.
        weights: region name to weight; None: all alike.
        floor: the smallest mean Dice that any region may have.
        unit: mm, or pixel where nobody knows how large one is.

    Attributes:
        cases: the rows of the last pass (`scripts.scoring.COLUMNS`), of all processes, sorted by case.

    Attach it to an evaluator whose batches are lists of cases, with binary `pred` and `label` [R, ...] in its output.
    """

    def __init__(
        self,
        regions: Sequence[str],
        patients: Mapping[str, str],
        weights: Mapping[str, float] | None = None,
        floor: float = 0.0,
        unit: str = "mm",
    ) -> None:
        self.regions, self.patients, self.floor, self.unit = list(regions), dict(patients), floor, unit
        if weights is not None and list(weights) != self.regions:  # in order, since the loss takes them by channel
            raise InputError(
                f"region_weights names {', '.join(weights)}: expected a weight for each of {', '.join(self.regions)},"
                " in this order."
            )
        self.weights = [1.0 if weights is None else float(weights[name]) for name in self.regions]
        self.rows: list[list] = []
        self.cases = pd.DataFrame(columns=COLUMNS)

    def attach(self, engine: Engine, name: str) -> None:
        """Start anew with each pass, measure each case, and leave the score as the metric of this name at the end."""
        engine.add_event_handler(Events.STARTED, lambda: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._measure)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._score, name)

    def in_words(self) -> str:
        """Mean, median and number of low cases of each region, for a line of the log."""
        table = summary(self.cases)
        numbers = [f"{name} {row['mean']:.3f} {row['median']:.3f} {row['low']:.0f}" for name, row in table.iterrows()]
        return f"Dice (mean, median, under {LOW_DICE} of {table['n'].iloc[0]})  {'  '.join(numbers)}"

    def _measure(self, engine: Engine) -> None:
        for item, source in zip(engine.state.output, engine.state.batch, strict=True):
            case, pixels = source["case"], self.unit == "pixel"
            units = {"": "", "volume": "pixel" if pixels else "ml"}
            voxel = 1.0 if pixels else float(source["voxel_ml"])
            for region, *masks in zip(self.regions, item["label"], item["pred"], strict=True):
                truth, prediction = (mask.cpu().numpy() > 0 for mask in masks)
                note, sizes = metrics.state(truth, prediction), [voxel] + [1.0] * (truth.ndim - 1)
                for name, value in metrics.measure(truth, prediction, sizes, wanted=MEASURED).items():
                    unit = units[metrics.METRICS[name].unit]
                    self.rows.append([case, self.patients[case], region, name, value, unit, note])

    def _score(self, engine: Engine, name: str) -> None:
        self.cases = pd.DataFrame(sorted(gathered(self.rows), key=lambda row: row[0]), columns=COLUMNS)
        table = summary(self.cases).loc[self.regions]
        for prefix, column in (("dice", "mean"), ("dice_median", "median"), (f"dice_under_{LOW_DICE}", "low")):
            engine.state.metrics |= {f"{prefix}_{region}": float(table[column][region]) for region in self.regions}
        mean = float(np.average(table["mean"], weights=self.weights))
        engine.state.metrics[name] = mean if table["mean"].min() >= self.floor else mean - 1.0


class BestModel:
    """Keeps the weights of the best validated epoch, and ends training when it no longer gets better.

    Args:
        evaluator: the validation engine; its metrics hold `score_name`.
        scores: of the cases of the same validation pass.
        network: whose weights are kept (the averaged ones).
        folder: the run's folder; gets model.pt, knobs.yaml, and the scores of the last and of the best validation.
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
        scores: RegionScore,
        network: nn.Module,
        folder: RunFolder,
        components: ComponentStatistics,
        budget: Budget,
        score_name: str = "val_score",
        patience: int | None = None,
        writes: bool = True,
    ) -> None:
        self.evaluator, self.scores, self.network = evaluator, scores, network
        self.folder, self.components = folder, components
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
        if self.writes:
            self.folder.keep_scores("validation", self.scores.cases, epoch, "checkpoint.pt")
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
        self.folder.keep_scores("validation_best", self.scores.cases, epoch, "model.pt")
        dice = {k: float(v) for k, v in self.evaluator.state.metrics.items() if k.startswith("dice_")}
        self.folder.keep_choice(
            min_component_ml=self.components.choose(),
            chosen={"epoch": epoch, "score": score if score >= 0 else score + 1, "above_floor": score >= 0, **dice},
        )

    def _validate_last(self, engine: Engine) -> None:
        last = engine.should_terminate or engine.state.epoch == engine.state.max_epochs or self.budget.over
        if last and self.best["validated"] != engine.state.epoch:
            self.evaluator.run(engine.state.epoch)
