"""A training of max_minutes ends in time: the start of the program and the first validation are counted."""

from __future__ import annotations

import logging
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events

from scripts.data.patch_dataset import PreparedCases
from scripts.inference.sliding_window import MirroringSlidingWindowInferer
from scripts.training import budget as budgets
from scripts.training.budget import ENDING, Budget, time_of_start
from scripts.training.validation_time import ReserveFirstValidation, estimate_validation_seconds

STEP, WINDOW = 0.01, 0.03  # s


@pytest.fixture
def own_program(monkeypatch) -> None:
    """This process counts as a command of `python -m`."""
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name=budgets.COMMANDS[0]))


@pytest.mark.usefixtures("own_program")
def test_clock_starts_with_the_process():
    assert time_of_start() < time.monotonic() - 0.5  # imports alone took longer
    assert Budget(1, 1, max_minutes=10).seconds == 600 - ENDING


def test_clock_starts_with_the_training_inside_another_program():
    assert time_of_start() is None
    assert Budget(1, 1, max_minutes=10).now() < 0.5


def test_preparation_counts_but_does_not_move_the_schedule():
    budget = Budget(max_epochs=10, steps_per_epoch=1000, max_minutes=0.4 / 60)
    time.sleep(0.2)  # cases are prepared
    shares = []
    engine = Engine(lambda *_: (time.sleep(STEP), shares.append(budget.progress())))
    budget.attach(engine)
    engine.run(range(1000), max_epochs=10)
    assert budget.now() < 0.5
    assert shares[0] == 0
    assert len(shares) < 25


class SlowNetwork(torch.nn.Module):
    """Takes the same time for each window."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        time.sleep(WINDOW * len(image))
        return image


def validation(sizes: list[tuple[int, int, int]], roi_size=(8, 8, 8), overlap: float = 0.0) -> tuple:
    """An engine that validates with slow windows, and its cases."""
    entries = [{"case": str(k), "size": size} for k, size in enumerate(sizes)]
    dataset = PreparedCases(entries, lambda entry: {**entry, "image": torch.rand(1, *entry["size"])}, keep=["image"])
    inferer = MirroringSlidingWindowInferer(roi_size, patch_size=(8, 8, 8), overlap=overlap)
    evaluator = SimpleNamespace(inferer=inferer, network=SlowNetwork(), state=SimpleNamespace(device="cpu"))
    return evaluator, dataset


@pytest.mark.parametrize(
    ("sizes", "roi_size", "overlap", "windows"),
    [
        ([(16, 16, 8)], (8, 8, 8), 0.0, 4),
        ([(16, 8, 8), (4, 4, 4)], (8, 8, 8), 0.0, 3),
        ([(16, 8, 8)], (8, 8, 8), 0.5, 3),
        ([(16, 8, 8), (8, 8, 8)], "auto", 0.0, 1.5),
    ],
)
def test_estimate_counts_the_windows_of_all_cases(sizes, roi_size, overlap, windows):
    seconds = estimate_validation_seconds(*validation(sizes, roi_size, overlap), time.monotonic)
    assert windows * WINDOW <= seconds < windows * WINDOW * 1.6


def test_reserve_and_run_count_the_same_clock():
    evaluator, dataset = validation([(40, 8, 8)])  # whose windows wait and compute nothing
    budget = Budget(max_epochs=1, steps_per_epoch=2, max_minutes=0.1 / 60, clock="cpu")
    engine = Engine(lambda *_: None)
    budget.attach(engine)
    ReserveFirstValidation(budget, evaluator, dataset).attach(engine)
    engine.run(range(2), max_epochs=1)
    assert budget.reserve < 2 * WINDOW
    assert not budget.over


def test_short_run_leaves_time_for_its_first_validation():
    evaluator, dataset = validation([(40, 8, 8)])
    budget = Budget(max_epochs=10, steps_per_epoch=1000, max_minutes=0.6 / 60)
    engine = Engine(lambda *_: time.sleep(STEP))
    budget.attach(engine)
    ReserveFirstValidation(budget, evaluator, dataset).attach(engine)
    began = time.monotonic()
    engine.add_event_handler(Events.COMPLETED, lambda: time.sleep(5 * WINDOW))  # the validation
    engine.run(range(1000), max_epochs=10)
    assert 0.3 < time.monotonic() - began < 0.65


def test_limit_below_one_validation_is_said_at_once(caplog):
    evaluator, dataset = validation([(40, 8, 8)])
    budget = Budget(max_epochs=1, steps_per_epoch=5, max_minutes=0.1 / 60)
    engine = Engine(lambda *_: None)
    budget.attach(engine)
    ReserveFirstValidation(budget, evaluator, dataset).attach(engine)
    with caplog.at_level(logging.WARNING):
        engine.run(range(5), max_epochs=1)
    assert "training ends after its first step" in caplog.text
    assert engine.state.iteration == 1
