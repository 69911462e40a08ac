"""Tests of `scripts/training/stop_on_sigterm.py`: a training in a process that sends itself SIGTERM."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events

from scripts import stopping
from scripts.network.weights import read_state
from scripts.training.run_state import RunState
from scripts.training.stop_on_sigterm import StopOnSigterm


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def run(
    path: Path,
    change: Callable[[Engine, Engine], None] = lambda trainer, validator: None,
    resume: bool = False,
    requeue: bool = False,
    accumulation_steps: int = 1,
) -> int:
    """The exit code of a training of 3 epochs of 4 steps with dropout, each validated on 3 cases."""

    def train() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        stopping.catch_signals(requeue)
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        scores: list[float] = []

        def step(engine: Engine, _: int) -> None:
            x = torch.randn(4, 2, generator=torch.Generator().manual_seed(engine.state.iteration))
            ((network(x) - 1) ** 2).mean().backward()
            if engine.state.iteration % accumulation_steps == 0:
                optimizer.step()
                optimizer.zero_grad()

        trainer, validator = Engine(step), Engine(lambda *_: scores.append(float(next(network.parameters()).sum())))
        trainer.accumulation_steps = accumulation_steps
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda: torch.manual_seed(trainer.state.epoch))
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: validator.run(range(3)))
        state = RunState(path, {"network": network, "optimizer": optimizer}, resume=resume)
        change(trainer, validator)
        state.attach(trainer)
        StopOnSigterm(state, validator).attach(trainer)
        trainer.run(range(4), max_epochs=3)
        torch.save(scores[-3:], path.with_suffix(".scores"))

    process = get_context("fork").Process(target=train)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def after_step(number: int) -> Callable[[Engine, Engine], None]:
    return lambda trainer, validator: trainer.add_event_handler(Events.ITERATION_COMPLETED(once=number), sigterm)


def in_validation(trainer: Engine, validator: Engine) -> None:
    validator.add_event_handler(
        Events.ITERATION_COMPLETED(once=2), lambda: sigterm() if trainer.state.epoch == 2 else None
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The checkpoint of a run that was never stopped."""
    path = tmp_path_factory.mktemp("run") / "whole.pt"
    assert run(path) == 0
    return path


@pytest.mark.parametrize(
    ("change", "epoch", "iteration"),
    [
        (after_step(1), 0, 1),
        (after_step(6), 1, 6),
        (after_step(8), 1, 8),  # before the second epoch's validation
        (in_validation, 1, 8),
        (after_step(12), 2, 12),
    ],
)
def test_a_stopped_run_resumes_to_the_very_same_weights(tmp_path, whole, change, epoch, iteration):
    path = tmp_path / "state.pt"
    assert run(path, change) == 143
    assert read_state(path)["engine"] == {"epoch": epoch, "iteration": iteration}
    assert run(path, resume=True) == 0
    first, second = read_state(whole), read_state(path)
    assert first["engine"] == second["engine"] == {"epoch": 3, "iteration": 12}
    assert all(torch.equal(value, second["network"][name]) for name, value in first["network"].items())
    assert torch.load(whole.with_suffix(".scores")) == torch.load(path.with_suffix(".scores"))


def test_a_stopped_run_says_how_to_resume_it(tmp_path, capfd):
    run(tmp_path / "state.pt", after_step(6))
    assert capfd.readouterr().err == f"Stopped by SIGTERM; resume with --resume {tmp_path}.\n"


def test_a_run_that_asks_to_be_requeued_exits_with_75(tmp_path):
    assert run(tmp_path / "state.pt", after_step(6), requeue=True) == 75


def test_sigterm_waits_until_a_step_of_several_batches_is_complete(tmp_path):
    run(tmp_path / "state.pt", after_step(5), accumulation_steps=2)
    assert read_state(tmp_path / "state.pt")["engine"]["iteration"] == 6


def test_sigterm_in_the_last_validation_lets_its_run_end(tmp_path):
    def late(trainer: Engine, validator: Engine) -> None:
        validator.add_event_handler(Events.COMPLETED, lambda: sigterm() if trainer.state.epoch == 3 else None)

    assert run(tmp_path / "state.pt", late) == 0


def test_an_echo_of_sigterm_does_not_end_the_step(tmp_path):
    def twice(trainer: Engine, validator: Engine) -> None:
        trainer.add_event_handler(Events.ITERATION_STARTED(once=6), sigterm)
        trainer.add_event_handler(Events.ITERATION_STARTED(once=6), sigterm)

    run(tmp_path / "state.pt", twice)
    assert read_state(tmp_path / "state.pt")["engine"]["iteration"] == 6


def test_a_second_sigterm_ends_a_step_that_hangs(tmp_path, monkeypatch):
    def hang(trainer: Engine, validator: Engine) -> None:
        trainer.add_event_handler(Events.ITERATION_STARTED(once=6), hang_on)

    def hang_on() -> None:
        sigterm()
        time.sleep(0.1)
        sigterm()
        time.sleep(60)

    monkeypatch.setattr(stopping, "ECHO", 0.05)
    assert run(tmp_path / "state.pt", hang, requeue=True) == 143
    assert read_state(tmp_path / "state.pt")["engine"]["iteration"] == 4
