"""Handlers around a training step: seeds, averaging, logs and progress."""

import io
import logging
import random
import re
import sys

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.handlers import from_engine

from scripts.data.sampler import EpochSampler
from scripts.training import handlers
from scripts.training.handlers import (
    EpochSeed,
    LazySummaryWriter,
    LogFile,
    LossCurve,
    PatchOutputs,
    StepProgress,
    WeightAverage,
    existing_handler,
)
from tests.made.one_weight import trainer


def steps(engine: SupervisedTrainer) -> list[float]:
    """How far each batch moved the weight."""
    moved, at = [], [0.0]

    def look() -> None:
        now = float(engine.network.weight.detach())
        moved.append(now - at[0])
        at[0] = now

    engine.add_event_handler(Events.ITERATION_COMPLETED, look)
    engine.run()
    return moved


# ---- seeds ---------------------------------------------------------------------------------------------------------


def drawn(first_epoch: int, epochs: int, seed: int = 3) -> list[tuple]:
    """What an engine draws in each epoch from every generator, from `first_epoch` on."""
    sampler, found = EpochSampler(cases=4, samples=2), []
    engine = Engine(lambda *_: found.append((random.random(), np.random.rand(), float(torch.rand(1)), *sampler)))
    EpochSeed(sampler, seed).attach(engine)

    @engine.on(Events.STARTED)
    def resume() -> None:
        engine.state.epoch = first_epoch

    engine.run([0], max_epochs=epochs)
    return found


def test_resumed_run_draws_the_numbers_of_the_uninterrupted_one():
    whole = drawn(0, epochs=4)
    assert drawn(2, epochs=4) == whole[2:]
    for generator in range(3):
        assert len({draw[generator] for draw in whole}) == 4  # each epoch draws anew
    assert drawn(0, epochs=4, seed=4)[0] != whole[0]


# ---- averaged weights ----------------------------------------------------------------------------------------------


def test_average_follows_the_weights_with_the_given_decay():
    # the weight is 1, 2, 3 after the steps; a decay of 0.1 is below (1 + n) / (10 + n) from the first average on
    engine = trainer([1.0, 1.0, 1.0], [])
    average = WeightAverage(engine.network, decay=0.1)
    average.attach(engine)
    assert steps(engine) == pytest.approx([1, 1, 1])
    expected = 0.1 * (0.1 * 1 + 0.9 * 2) + 0.9 * 3
    assert float(average.network.weight.detach()) == pytest.approx(expected)


def test_the_random_start_is_forgotten_fast():
    # decays of 2/11 and 3/12 in place of 0.999
    engine = trainer([1.0, 1.0, 1.0], [])
    average = WeightAverage(engine.network, decay=0.999)
    average.attach(engine)
    engine.run()
    second = 2 / 11 * 1 + 9 / 11 * 2
    assert float(average.network.weight.detach()) == pytest.approx(3 / 12 * second + 9 / 12 * 3)


def test_averaging_leaves_the_learning_network_alone_and_takes_its_buffers():
    with_average, without = trainer([1.0, 2.0], []), trainer([1.0, 2.0], [])
    average = WeightAverage(with_average.network, decay=0.9)
    average.attach(with_average)
    assert steps(with_average) == steps(without)
    assert float(average.network.seen) == 2.0


def test_resumed_average_continues_its_count():
    engine = trainer([1.0] * 6, [])
    whole = WeightAverage(engine.network, decay=0.999)
    whole.attach(engine)
    engine.run()
    half = trainer([1.0] * 3, [])
    first = WeightAverage(half.network, decay=0.999)
    first.attach(half)
    half.run()
    rest = trainer([1.0] * 3, [], network=half.network)
    second = WeightAverage(half.network, decay=0.999)
    second.load_state_dict(first.state_dict())
    second.attach(rest)
    rest.run()
    assert torch.equal(second.network.weight, whole.network.weight)


@pytest.fixture
def as_from_a_gpu(monkeypatch):
    """Losses are read every third step, as losses of a GPU are every twentieth."""
    monkeypatch.setattr(handlers, "reads_loss_now", lambda engine: engine.state.iteration % 3 == 1)


def test_a_step_gives_each_patch_a_dictionary_with_the_loss():
    found = []
    engine = trainer([1.0, 2.0], [PatchOutputs()], decollate=False)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: found.append(engine.state.output))
    engine.run()
    (patch,) = found[1]
    assert patch["image"].tolist() == [2.0]
    assert not patch["pred"].requires_grad
    assert not patch["loss"].requires_grad
    assert from_engine(["loss"], first=True)(found[1]).item() == -2.0  # as `--tracking mlflow` reads it


# ---- progress and log ----------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A stream that reports to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("loss", [True, False])
def test_terminal_shows_steps_and_loss_but_log_file_no_bar(monkeypatch, loss):
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        trainer([1.0, 2.0, 3.0], [StepProgress("training", loss=loss)]).run()
        assert ("training" in stream.getvalue()) == shown
        assert ("loss=" in stream.getvalue()) == (shown and loss)


def test_tensorboard_makes_its_folder_with_the_first_value_only(tmp_path):
    writer = LazySummaryWriter(str(tmp_path / "log"))
    assert not (tmp_path / "log").exists()
    writer.add_scalar("loss", 0.5, 1)
    writer.add_scalar("loss", 0.4, 2)
    writer.close()
    assert len(list((tmp_path / "log").iterdir())) == 1


@pytest.mark.parametrize("gpu", [False, True])
def test_tensorboard_gets_each_loss_once_however_late_it_is_read(request, gpu):
    if gpu:
        request.getfixturevalue("as_from_a_gpu")
    written, flushed = [], []

    class Writer:
        def add_scalar(self, *row) -> None:
            written.append(row)

        def flush(self) -> None:
            flushed.append(len(written))

    trainer([1.0, 2.0, 3.0, 4.0, 5.0], [PatchOutputs(), LossCurve(Writer())], lr=0.0, decollate=False).run()
    assert [row[:3] for row in written] == [("loss", 0.0, step) for step in range(1, 6)]
    times = [row[3] for row in written]
    assert times == sorted(times)
    assert flushed == ([1, 4, 5, 5] if gpu else [1, 2, 3, 4, 5, 5])


@pytest.mark.usefixtures("as_from_a_gpu")
def test_the_bar_shows_the_last_loss_that_was_read(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    trainer([1.0, 2.0, 3.0, 4.0], [PatchOutputs(), StepProgress("training", loss=True)], decollate=False).run()
    shown = [float(value) for value in re.findall(r"loss=(-?[\d.]+)", stream.getvalue())]
    assert set(shown) == {0.0, -24.0}  # of the first and the fourth step: 4 times a weight of 1 + 2 + 3


@pytest.mark.parametrize("numbers", [[1.0, 2.0], [1.0, 0.0]], ids=["ends", "fails"])
def test_log_file_holds_the_lines_of_all_runs_in_it(tmp_path, numbers):
    file = tmp_path / "run" / "log.txt"

    def step(_: Engine, number: float) -> None:
        logging.getLogger("scripts").warning(f"one over {number:g} is {1 / number:g}")

    for _ in range(2):
        engine = Engine(step)
        LogFile(str(file)).attach(engine)
        engine.run(numbers)
        logging.getLogger("scripts").warning("after the run")
    text = file.read_text()
    assert text.count("  one over 1 is 1\n") == 2
    assert text.count("terminating due to exception: float division by zero") == 2 * numbers.count(0.0)
    assert "after the run" not in text


def test_existing_handler_is_returned_unchanged():
    handler = PatchOutputs()
    assert existing_handler(handler) is handler
