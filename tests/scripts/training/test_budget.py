"""The length of training and the learning rate along it."""

import math
import time

import pytest
import torch
from ignite.engine import Engine, Events
from torch.optim.lr_scheduler import LambdaLR

from scripts.errors import InputError
from scripts.training.budget import Budget, rate_factor

STEP = 0.01  # s


def trainer(budget: Budget) -> tuple[Engine, list[str]]:
    """An engine whose steps take 10 ms, and the events that it fired."""
    engine, told = Engine(lambda *_: time.sleep(STEP)), []
    budget.attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: told.append(f"epoch {e.state.epoch}"))
    engine.add_event_handler(Events.COMPLETED, lambda: told.append("completed"))
    return engine, told


def seconds(function) -> float:
    began = time.monotonic()
    function()
    return time.monotonic() - began


def test_minutes_end_training_within_an_epoch_which_still_completes():
    budget = Budget(max_epochs=10, steps_per_epoch=1000, max_minutes=0.2 / 60)
    engine, told = trainer(budget)
    assert 0.15 < seconds(lambda: engine.run(range(1000), max_epochs=10)) < 1
    assert told == ["epoch 1", "completed"]  # so the checkpoint is written
    assert budget.over


def test_time_after_the_last_step_is_reserved():
    budget = Budget(max_epochs=10, steps_per_epoch=1000, max_minutes=61.1 / 60)
    budget.reserve = 60.0
    engine, _ = trainer(budget)
    assert seconds(lambda: engine.run(range(1000), max_epochs=10)) < 2
    assert budget.progress() == 1.0  # the rate has fallen to its end by then


@pytest.mark.parametrize(("clock", "over"), [("wall", True), ("cpu", False)])
def test_waiting_costs_elapsed_time_but_no_processor_time(clock, over):
    budget = Budget(max_epochs=1, steps_per_epoch=10, max_minutes=0.05 / 60, clock=clock)
    engine, _ = trainer(budget)  # its steps sleep for 0.1 s
    engine.run(range(10), max_epochs=1)
    assert budget.over == over


def test_processor_time_ends_a_run_that_computes():
    def compute(*_) -> None:
        end = time.process_time() + STEP
        while time.process_time() < end:
            pass

    budget = Budget(max_epochs=1, steps_per_epoch=1000, max_minutes=0.1 / 60, clock="cpu")
    engine = Engine(compute)
    budget.attach(engine)
    engine.run(range(1000), max_epochs=1)
    assert 5 <= engine.state.iteration <= 10


def test_unknown_clock_is_refused():
    with pytest.raises(InputError, match="clock is 'gpu': expected wall or cpu"):
        Budget(max_epochs=1, steps_per_epoch=1, clock="gpu")


def test_without_minutes_the_epochs_end_training():
    budget = Budget(max_epochs=2, steps_per_epoch=3)
    engine, told = trainer(budget)
    engine.run(range(3), max_epochs=2)
    assert told == ["epoch 1", "epoch 2", "completed"]
    assert not budget.over


def test_progress_is_the_share_of_steps():
    budget = Budget(max_epochs=2, steps_per_epoch=5)
    engine, _ = trainer(budget)
    shares = []
    engine.add_event_handler(Events.ITERATION_STARTED, lambda: shares.append(budget.progress()))
    engine.run(range(5), max_epochs=2)
    assert shares == pytest.approx([k / 10 for k in range(10)])
    assert budget.progress() == 1.0


def test_progress_is_the_share_of_minutes_if_these_end_first():
    budget = Budget(max_epochs=10, steps_per_epoch=10, max_minutes=1)
    budget.step, budget.elapsed = 10, 15.0
    assert budget.progress() == pytest.approx(15 / 60)
    budget.reserve = 30.0
    assert budget.progress() == pytest.approx(15 / 30)
    budget.step = 80
    assert budget.progress() == pytest.approx(80 / 100)


def test_resumed_run_continues_with_the_remaining_steps_and_minutes():
    first = Budget(max_epochs=10, steps_per_epoch=1000, max_minutes=0.3 / 60)
    engine, _ = trainer(first)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=10), lambda e: e.terminate())
    engine.run(range(1000), max_epochs=10)
    second = Budget(max_epochs=10, steps_per_epoch=1000, max_minutes=0.3 / 60)
    second.load_state_dict(first.state_dict())
    assert second.step == 10
    assert second.elapsed == pytest.approx(first.elapsed, abs=0.02)
    assert second.elapsed >= 10 * STEP
    engine, told = trainer(second)
    assert seconds(lambda: engine.run(range(1000), max_epochs=10)) < 0.3 - 10 * STEP + 0.15
    assert told == ["epoch 1", "completed"]


def test_processes_whose_clocks_differ_end_at_the_same_step(in_two_processes):
    def steps(rank: int) -> int:
        budget = Budget(max_epochs=10, steps_per_epoch=1000, max_minutes=0.1 / 60)
        budget.spent_before = -1000.0 * rank  # the second process has all the time in the world
        engine, _ = trainer(budget)
        engine.run(range(1000), max_epochs=10)
        return engine.state.iteration

    first, second = in_two_processes(steps)
    assert first == second


def factor(shape: str, warmup: float, progress: float) -> float:
    return rate_factor(lambda: progress, shape, warmup)(0)


@pytest.mark.parametrize(
    ("progress", "cosine", "poly"),
    [(0.0, 1.0, 1.0), (0.25, 0.5 + math.sqrt(2) / 4, 0.75**0.9), (0.5, 0.5, 0.5**0.9), (1.0, 0.0, 0.0)],
)
def test_the_rate_falls_along_the_curve_that_was_asked_for(progress, cosine, poly):
    assert factor("cosine", 0, progress) == pytest.approx(cosine)
    assert factor("poly", 0, progress) == pytest.approx(poly)


@pytest.mark.parametrize("shape", ["cosine", "poly"])
def test_rate_rises_linearly_to_the_peak_and_then_falls(shape):
    assert factor(shape, 0.2, 0.0) == 0.01  # a step of no size at all would be a batch thrown away
    assert factor(shape, 0.2, 0.05) == pytest.approx(0.25)
    assert factor(shape, 0.2, 0.1) == pytest.approx(0.5)
    assert factor(shape, 0.2, 0.2) == pytest.approx(1.0)
    assert factor(shape, 0.2, 0.6) == pytest.approx(factor(shape, 0, 0.5))
    assert factor(shape, 0.2, 1.0) == pytest.approx(0.0)


def test_every_group_of_weights_keeps_its_own_peak():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups)
    budget = Budget(max_epochs=1, steps_per_epoch=4)
    rates = []
    engine = Engine(lambda *_: rates.append([group["lr"] for group in optimizer.param_groups]))
    budget.attach(engine)
    schedule = LambdaLR(optimizer, rate_factor(budget.progress, shape="poly", warmup=0))
    engine.add_event_handler(Events.ITERATION_COMPLETED, schedule.step)
    engine.run(range(4), max_epochs=1)
    expected = [[(1 - k / 4) ** 0.9 * peak for peak in (1.0, 0.1)] for k in range(4)]
    assert torch.allclose(torch.tensor(rates), torch.tensor(expected))


def test_resumed_schedule_falls_from_the_peak_not_the_reached_rate():
    progress = 0.5
    first = [torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0) for _ in range(2)]
    schedules = [LambdaLR(optimizer, rate_factor(lambda: progress, warmup=0)) for optimizer in first]
    first[1].load_state_dict(first[0].state_dict())
    schedules[1].load_state_dict(schedules[0].state_dict())
    progress = 0.75
    schedules[1].step()
    assert first[1].param_groups[0]["lr"] == pytest.approx(factor("cosine", 0, 0.75))


def test_invalid_shape_is_refused():
    with pytest.raises(InputError, match="the schedule is 'linear': expected cosine, poly, constant"):
        rate_factor(lambda: 0.0, "linear")


def test_rate_reaches_its_end_even_with_gradient_accumulation(small_train):
    config = small_train(accumulation_steps=3)
    batches = len(config.get_parsed_content("train#dataloader"))
    assert config.get_parsed_content("budget").total_steps == config["max_epochs"] * batches
