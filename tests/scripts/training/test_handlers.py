"""Handlers around a training step: seeds, averaging, clipping, the check for NaN, log and progress."""

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
from monai.engines.utils import IterationEvents
from monai.handlers import from_engine

from scripts.data.sampler import EpochSampler
from scripts.errors import InputError
from scripts.network.checkpoint_file import read_state
from scripts.training import handlers
from scripts.training.budget import Budget
from scripts.training.handlers import (
    EpochLog,
    EpochSeed,
    GradientClipping,
    LazySummaryWriter,
    LossCurve,
    PatchOutputs,
    StepProgress,
    StopOnNan,
    WeightAverage,
    existing_handler,
)
from scripts.training.run_state import RunState


class OneWeight(torch.nn.Module):
    """x times a weight that starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.detach().mean().reshape(1)
        return x * self.weight


def trainer(values: list[float], handlers: list, network=None, lr: float = 1.0, **others) -> SupervisedTrainer:
    """MONAI's trainer on batches of one number x; the loss is -x times the weight, so its gradient is -x."""
    network = network or OneWeight()
    batches = [{"image": torch.tensor([[v]]), "label": torch.zeros(1, 1), "case": [f"case {v:g}"]} for v in values]
    return SupervisedTrainer(
        device="cpu",
        max_epochs=others.pop("max_epochs", 1),
        train_data_loader=batches,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=lr),
        loss_function=lambda pred, _: -pred,
        train_handlers=handlers,
        **others,
    )


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


# ---- clipping and NaN ----------------------------------------------------------------------------------------------


def test_only_gradients_above_the_limit_are_clipped_to_it():
    network = OneWeight()
    clipped = trainer([0.5, 100.0, 2.0], [GradientClipping(network, 2.0)], network)
    assert steps(clipped) == pytest.approx([0.5, 2.0, 2.0], abs=1e-4)


@pytest.mark.parametrize("limit", [None, 0])
def test_without_a_limit_gradients_stay_as_they_are(limit):
    network = OneWeight()
    assert steps(trainer([0.5, 100.0], [GradientClipping(network, limit)], network)) == pytest.approx([0.5, 100.0])


def test_sum_of_several_batches_is_clipped_not_each_one():
    # means of (10, -9) = 0.5, and of the last batch alone 4 / 2 = 2, cut to 1; clipping each would give 0 for the first
    network = OneWeight()
    engine = trainer([10.0, -9.0, 4.0], [GradientClipping(network, 1.0)], network, accumulation_steps=2)
    assert steps(engine) == pytest.approx([0, 0.5, 1.0], abs=1e-4)


def test_limit_applies_to_the_unscaled_gradient_in_half_precision():
    network = OneWeight()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step(engine: Engine, x: float) -> None:
        optimizer.zero_grad()
        scaler.scale(-network(torch.tensor([x])).sum()).backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        scaler.step(optimizer)
        scaler.update()

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    engine.amp, engine.scaler, engine.optimizer, engine.accumulation_steps = True, scaler, optimizer, 1
    GradientClipping(network, 2.0).attach(engine)
    engine.run([0.5, 100.0])
    assert float(network.weight.detach()) == pytest.approx(2.5, abs=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nonfinite_loss_names_the_cases_and_never_reaches_the_weights(value):
    network = OneWeight()
    engine = trainer([1.0, value], [StopOnNan("runs/x/checkpoint.pt")], network)
    with pytest.raises(InputError) as stopped:
        engine.run()
    message = str(stopped.value)
    assert "in epoch 1, step 2" in message
    assert f"case {value:g}" in message
    assert "runs/x/checkpoint.pt holds the last good epoch" in message
    assert float(network.weight.detach()) == 1.0


@pytest.fixture
def as_from_a_gpu(monkeypatch):
    """Losses arrive after their step, and are read every third step, as losses of a GPU are every twentieth."""
    monkeypatch.setattr(handlers, "start_copy_to_host", lambda value: (value.clone(), lambda: None))
    monkeypatch.setattr(handlers, "reads_loss_now", lambda engine: engine.state.iteration % 3 == 1)


@pytest.mark.usefixtures("as_from_a_gpu")
@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_nan_on_a_gpu_ends_before_anything_is_kept(tmp_path, step):
    network, kept = OneWeight(), []
    state = RunState(tmp_path / "checkpoint.pt", {"network": network}, resume=False)
    engine = trainer([1.0] * 3, [StopOnNan("runs/x/checkpoint.pt")], network, max_epochs=2)
    engine.data_loader[(step - 1) % 3]["case"] = ["the broken one"]

    @engine.on(IterationEvents.FORWARD_COMPLETED)
    def break_it() -> None:
        if engine.state.iteration == step:
            engine.state.output["pred"] = engine.state.output["pred"] * float("nan")

    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: kept.append(float(network.weight.detach())))
    state.attach(engine)
    with pytest.raises(InputError) as stopped:
        engine.run()
    where = f"epoch {1 + (step > 3)}, step {step}, on a batch of the broken one"
    assert f"the loss became nan in {where}" in str(stopped.value)
    assert kept == [3.0] * (step > 3)
    assert (tmp_path / "checkpoint.pt").exists() == (step > 3)
    if step > 3:
        assert float(read_state(tmp_path / "checkpoint.pt")["network"]["weight"]) == 3.0


def test_nan_in_one_process_ends_the_epoch_of_all(in_two_processes):
    def scored(rank: int) -> str:
        watch = StopOnNan("c")
        watch.waiting = (torch.tensor(float("nan") if rank else 1.0), None, f"step 4, of process {rank}")
        engine = Engine(lambda *_: None)
        engine.register_events(*IterationEvents)
        watch.attach(engine)
        try:
            engine.fire_event(Events.EPOCH_COMPLETED)
        except InputError as error:
            return str(error)
        return "went on"

    assert all("became nan in step 4, of process 1" in said for said in in_two_processes(scored))


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


def logged(caplog, validated: list[int], budget: Budget | None = None, best: int = 0) -> list[str]:
    """The lines of a run of two epochs whose losses are 1 and 3, and 5 and 5."""
    losses = iter([1.0, 3.0, 5.0, 5.0])
    engine = Engine(lambda *_: [{"loss": next(losses)}])
    validator = Engine(lambda *_: None)
    budget = budget or Budget(max_epochs=2, steps_per_epoch=2)
    budget.attach(engine)

    @engine.on(Events.EPOCH_COMPLETED)
    def validate(engine: Engine) -> None:
        if engine.state.epoch in validated:
            validator.state.metrics = {"val_score": 0.65}
            validator.state.epoch = engine.state.epoch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.5e-3)
    EpochLog(validator, lambda: "Dice WT 0.812", optimizer, budget, best_epoch=lambda: best).attach(engine)
    with caplog.at_level(logging.INFO, logger="scripts.training.handlers"):
        engine.run([0, 1], max_epochs=2)
    return [record.getMessage() for record in caplog.records if record.name == "scripts.training.handlers"]


def test_each_epoch_is_one_line_with_loss_and_rate(caplog):
    first, second = logged(caplog, validated=[])
    assert first.startswith("epoch 1/2  loss 2.0000  rate 2.5e-03")
    assert second.startswith("epoch 2/2  loss 5.0000")
    assert "Dice" not in first + second


def test_only_the_validated_epochs_line_has_scores(caplog):
    first, second = logged(caplog, validated=[1], best=1)
    assert "validation Dice WT 0.812 (best so far)" in first
    assert "Dice" not in second


def test_score_that_is_not_the_best_is_not_called_best(caplog):
    _, second = logged(caplog, validated=[1, 2], best=1)
    assert "validation Dice WT 0.812" in second
    assert "best so far" not in second


@pytest.mark.parametrize(("spent", "left"), [(30, "about 30 s"), (600, "about 10 min"), (7200, "about 2.0 h")])
def test_log_line_estimates_the_remaining_time(caplog, spent, left):
    budget = Budget(max_epochs=2, steps_per_epoch=2)
    budget.spent_before = spent
    first, second = logged(caplog, validated=[], budget=budget)
    assert f"{left} left" in first
    assert "left" not in second


def test_log_line_shows_the_seconds_of_the_budgets_clock(caplog):
    budget = Budget(max_epochs=2, steps_per_epoch=2)
    budget.clock = lambda: 60.0 * budget.step
    first, _ = logged(caplog, validated=[], budget=budget)
    assert "120 s" in first


def test_existing_handler_is_returned_unchanged():
    handler = StopOnNan("x")
    assert existing_handler(handler) is handler
