"""The rows of history.csv, the figure of them, and the lines of the log."""

import logging
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from PIL import Image

from scripts.data.decision import RegionDecision
from scripts.data.imperfect_labels import IGNORED
from scripts.scoring.tables import read_table
from scripts.training.budget import Budget
from scripts.training.gradient_check import GradientCheck
from scripts.training.history import EpochLog, History
from tests.made.one_weight import OneWeight, trainer

NAN = math.nan
SCORES = {"val_score": 0.65, "val_loss": 0.7, "dice_WT": 0.6}


class Run:
    """Epochs of batches of one voxel each, whose logit is the number in it and whose loss is minus this number.

    Args:
        validated: number of an epoch to the metrics of its validation.
        terms: the loss's terms, by batch.
    """

    def __init__(self, folder: Path, logits: list[float], labels: list[float], **others) -> None:
        imperfect = others.pop("imperfect", False)
        validated, terms = others.pop("validated", {}), others.pop("terms", ({} for _ in range(100)))
        self.budget = others.pop("budget", None) or Budget(others.get("max_epochs", 1), len(logits))
        network = OneWeight()
        network.weight.data.fill_(1.0)
        self.trainer: SupervisedTrainer = trainer(logits, [], network, lr=0.0, **others)
        for batch, label in zip(self.trainer.data_loader, labels, strict=True):
            batch["label"] = torch.tensor([[label]])
        loss, validator = SimpleNamespace(values={}), Engine(lambda *_: None)
        self.trainer.loss_function = lambda pred, _: (setattr(loss, "values", next(terms)), -pred)[1]
        decision = RegionDecision("regions", {"WT": [1]}, {"tumour": 1}, threshold=0.0)
        self.history = History(
            str(folder),
            ["WT"],
            decision,
            loss,
            validator,
            self.trainer.optimizer,
            self.budget,
            lambda: max(validated, default=0),
            imperfect=imperfect,
        )
        self.budget.attach(self.trainer)
        GradientCheck(network, None, 5, "checkpoint.pt").attach(self.trainer)

        @self.trainer.on(Events.EPOCH_COMPLETED)
        def validate(engine: Engine) -> None:
            if engine.state.epoch in validated:
                validator.state.metrics, validator.state.epoch = validated[engine.state.epoch], engine.state.epoch

        self.history.attach(self.trainer)
        EpochLog(self.history, validator, lambda: "Dice WT 0.812", self.budget, lambda: 1).attach(self.trainer)

    def rows(self) -> list[dict]:
        """Run, and read history.csv."""
        self.trainer.run()
        return read_table(self.history.folder / "history.csv", na_values=[""]).to_dict("records")


def test_training_dice_is_that_of_all_voxels_of_an_epoch(tmp_path):
    (row,) = Run(tmp_path, [1.0, -1.0, 2.0, 3.0], [1.0, 0.0, 0.0, 1.0]).rows()
    assert row["train_dice_WT"] == pytest.approx(2 * 2 / (3 + 2))
    assert row["train_loss"] == pytest.approx(-(1 - 1 + 2 + 3) / 4)
    assert (row["epoch"], row["step"], row["rate"], row["skipped_steps"]) == (1, 4, 0.0, 0)


def test_training_dice_is_of_counted_voxels_and_most_raters(tmp_path):
    (row,) = Run(tmp_path, [1.0, -1.0, 2.0, 3.0], [0.6, 0.4, 0.4, IGNORED], imperfect=True).rows()
    assert row["train_dice_WT"] == pytest.approx(2 * 1 / (2 + 1))


def test_batch_with_nan_is_left_out_and_counted(tmp_path):
    (row,) = Run(tmp_path, [1.0, NAN, 2.0, NAN], [1.0, 1.0, 1.0, 0.0]).rows()
    assert row["train_dice_WT"] == 1.0
    assert row["train_loss"] == -1.5
    assert row["skipped_steps"] == 2


def test_skipped_steps_of_several_batches_count_once(tmp_path):
    (row,) = Run(tmp_path, [1.0, NAN, NAN, 2.0], [1.0] * 4, accumulation_steps=4).rows()
    assert row["skipped_steps"] == 1


def test_epoch_without_region_or_good_batch_has_empty_cells(tmp_path):
    (row,) = Run(tmp_path, [-1.0, -1.0], [0.0, 0.0]).rows()
    assert math.isnan(row["train_dice_WT"])
    assert row["train_loss"] == 1.0
    (row,) = Run(tmp_path, [NAN, NAN], [1.0, 1.0]).rows()
    assert math.isnan(row["train_loss"])


def test_each_term_of_the_loss_has_a_column_of_means(tmp_path):
    terms = iter(
        [
            {"dice": torch.tensor(value)} | more
            for value, more in ((1.0, {}), (3.0, {}), (5.0, {"edge": torch.tensor(7.0)}), (5.0, {}))
        ]
    )
    first, second = Run(tmp_path, [1.0, 2.0], [1.0, 1.0], max_epochs=2, terms=terms).rows()
    assert (first["train_loss_dice"], second["train_loss_dice"]) == (2.0, 5.0)
    assert math.isnan(first["train_loss_edge"])
    assert second["train_loss_edge"] == 7.0
    assert list(first)[4:8] == ["train_loss", "train_loss_dice", "train_loss_edge", "train_dice_WT"]


def test_validated_epochs_have_loss_and_dice_and_are_drawn(tmp_path):
    first, second = Run(tmp_path, [1.0], [1.0], max_epochs=2, validated={2: SCORES}).rows()
    assert math.isnan(first["val_loss"])
    assert math.isnan(first["val_dice_WT"])
    assert (second["val_loss"], second["val_dice_WT"]) == (0.7, 0.6)
    with Image.open(tmp_path / "history.png") as figure:
        assert figure.size == (1100, 400)


def test_figure_is_drawn_after_validations_only(tmp_path):
    Run(tmp_path, [1.0], [1.0]).rows()
    assert not (tmp_path / "history.png").exists()


def test_resumed_run_replaces_rows_of_repeated_epochs(tmp_path):
    first = Run(tmp_path, [1.0], [1.0], max_epochs=2)
    states = []
    first.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: states.append(first.history.state_dict()))
    first.rows()  # killed before the state of its second epoch was saved
    second = Run(tmp_path, [4.0], [1.0], max_epochs=3)
    second.history.load_state_dict(states[0])
    second.trainer.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "epoch", 1))
    rows = second.rows()
    assert [(row["epoch"], row["train_loss"]) for row in rows] == [(1, -1.0), (2, -4.0), (3, -4.0)]


def test_all_processes_enter_the_row_of_the_first(tmp_path, in_two_processes):
    def train(rank: int) -> dict:
        run = Run(tmp_path / str(rank), [1.0, 2.0], [1.0, float(rank)])
        run.history.writes = rank == 0
        run.trainer.run()
        return run.history.rows[0]

    first, _ = in_two_processes(train)
    assert first["train_dice_WT"] == pytest.approx(2 * 3 / (4 + 3))
    assert first["train_loss"] == -1.5
    assert [path.name for path in tmp_path.glob("*/history.csv")] == ["history.csv"]


def test_processes_stopped_after_a_last_step_finish_its_row(tmp_path, in_two_processes):
    def resume(rank: int) -> float:
        run = Run(tmp_path / str(rank), [1.0], [1.0])
        run.history.load_state_dict(state)
        run.trainer.fire_event(Events.EPOCH_COMPLETED)
        return run.history.rows[0]["train_loss"]

    stopped = Run(tmp_path, [1.0, 3.0], [1.0, 1.0])
    states = []
    stopped.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: states.append(stopped.history.state_dict()))
    stopped.trainer.run()
    state = states[-1]
    assert in_two_processes(resume) == [-2.0, -2.0]


# ---- the log -------------------------------------------------------------------------------------------------------


@pytest.fixture
def logged(caplog, tmp_path):
    """The lines of a run of two epochs of two batches."""

    def run(validated: tuple[int, ...] = (), logits=(1.0, 3.0), budget: Budget | None = None) -> list[str]:
        scores = dict.fromkeys(validated, SCORES)
        made = Run(tmp_path, list(logits), [1.0, 1.0], max_epochs=2, validated=scores, budget=budget)
        with caplog.at_level(logging.INFO, logger="scripts.training.history"):
            made.trainer.run()
        return [record.getMessage() for record in caplog.records if record.name == "scripts.training.history"]

    return run


def test_each_epoch_is_one_line_with_loss_and_rate(logged):
    first, second = logged()
    assert first.startswith("epoch 1/2  loss -2.0000  rate 0.0e+00")
    assert second.startswith("epoch 2/2  loss -2.0000")
    assert "Dice" not in first + second
    assert "skipped" not in first + second


def test_line_says_how_many_steps_were_skipped(logged):
    assert logged(logits=(1.0, NAN))[0].startswith("epoch 1/2  loss -1.0000  1 steps skipped")
    assert "loss" not in logged(logits=(NAN, NAN))[-1]


def test_only_the_validated_epochs_line_has_scores(logged):
    first, second = logged(validated=(1,))
    assert "validation Dice WT 0.812 (best so far)" in first
    assert "Dice" not in second


def test_score_that_is_not_the_best_is_not_called_best(logged):
    _, second = logged(validated=(1, 2))
    assert "validation Dice WT 0.812" in second
    assert "best so far" not in second


@pytest.mark.parametrize(("spent", "left"), [(30, "about 30 s"), (600, "about 10 min"), (7200, "about 2.0 h")])
def test_log_line_estimates_the_remaining_time(logged, spent, left):
    budget = Budget(max_epochs=2, steps_per_epoch=2)
    budget.spent_before = spent
    first, second = logged(budget=budget)
    assert f"{left} left" in first
    assert "left" not in second


def test_log_line_shows_the_seconds_of_the_budgets_clock(logged):
    budget = Budget(max_epochs=2, steps_per_epoch=2)
    budget.clock = lambda: 60.0 * budget.step
    assert "120 s" in logged(budget=budget)[0]
