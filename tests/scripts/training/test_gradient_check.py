"""The largest gradient, and steps whose loss or gradient is NaN or infinite."""

import logging
import math
from itertools import pairwise

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from scripts.errors import InputError
from scripts.network.checkpoint_file import read_state
from scripts.training import gradient_check
from scripts.training.gradient_check import GradientCheck
from scripts.training.handlers import WeightAverage
from scripts.training.run_state import RunState
from tests.made.one_weight import OneWeight, trainer

NAN = math.nan
OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
    "fused adamw": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "fused sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
}


@pytest.fixture(params=[False, True], ids=["cpu", "gpu"])
def device(request, monkeypatch) -> None:
    """With `gpu` the norm arrives after its step, as from a GPU."""
    if request.param:
        monkeypatch.setattr(gradient_check, "start_copy_to_host", lambda value: (value.clone(), lambda: None))


def check(network: torch.nn.Module, max_norm: float | None = None, allowed: int = 5) -> GradientCheck:
    return GradientCheck(network, max_norm, allowed, "runs/x/checkpoint.pt")


def moved(values: list[float], network=None, max_norm=None, **others) -> list[float]:
    """How far each batch moved the weight."""
    network, at = network or OneWeight(), [0.0]
    engine = trainer(values, [check(network, max_norm)], network, **others)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: at.append(float(network.weight.detach())))
    engine.run()
    return [new - old for old, new in pairwise(at)]


# ---- the largest norm ----------------------------------------------------------------------------------------------


def test_only_gradients_above_the_limit_are_clipped_to_it():
    assert moved([0.5, 100.0, 2.0], max_norm=2.0) == pytest.approx([0.5, 2.0, 2.0], abs=1e-4)


@pytest.mark.parametrize("limit", [None, 0])
def test_without_a_limit_gradients_stay_as_they_are(limit):
    assert moved([0.5, 100.0], max_norm=limit) == pytest.approx([0.5, 100.0])


def test_sum_of_several_batches_is_clipped_not_each_one():
    # means of (10, -9) = 0.5, and of the last batch alone 4 / 2 = 2, cut to 1; clipping each would give 0 for the first
    assert moved([10.0, -9.0, 4.0], max_norm=1.0, accumulation_steps=2) == pytest.approx([0, 0.5, 1.0], abs=1e-4)


# ---- skipped steps -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("bad", [NAN, math.inf])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_skipped_step_changes_neither_weights_nor_optimizer_nor_average(name, bad):
    found = []
    for values in ([1.0, 2.0], [bad, 1.0, bad, bad, 2.0]):
        network = OneWeight()
        average = WeightAverage(network, decay=0.9)
        optimizer = OPTIMIZERS[name](network.parameters())
        trainer(values, [check(network), average], network, optimizer=optimizer).run()
        found.append(
            [network.weight.detach(), *average.state_dict().values(), *next(iter(optimizer.state.values())).values()]
        )
    for plain, skipped in zip(*found, strict=True):
        assert torch.equal(plain, skipped)


@pytest.mark.usefixtures("device")
def test_infinite_loss_with_a_finite_gradient_is_skipped():
    network = OneWeight()
    engine = trainer([1.0, 2.0], [check(network)], network)
    engine.loss_function = lambda pred, _: -pred + (math.inf if engine.state.iteration == 2 else 0.0)
    engine.run()
    assert network.weight.item() == 1.0


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("values", [[1.0, NAN, 4.0, 6.0], [NAN, 1.0, 4.0, 6.0]])
def test_gradients_accumulated_with_a_bad_one_are_dropped(values):
    assert moved(values, accumulation_steps=2) == [0.0, 0.0, 0.0, 5.0]


def test_running_statistics_of_a_skipped_step_are_restored():
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(1, momentum=0.5), torch.nn.Linear(1, 1))
    batches = [torch.tensor([[1.0], [3.0]]), torch.tensor([[NAN], [3.0]])]
    engine = trainer([0.0, 0.0], [check(network)], network)
    for batch, image in zip(engine.data_loader, batches, strict=True):
        batch["image"] = image
    engine.run()
    assert network[0].running_mean.item() == 1.0
    assert network[0].num_batches_tracked.item() == 1


def test_each_skipped_step_is_logged_with_its_cases(caplog):
    with caplog.at_level(logging.WARNING, logger=gradient_check.__name__):
        moved([1.0, NAN, 2.0])
    assert caplog.messages == ["the loss became nan in epoch 1, step 2, on a batch of case nan: this step is skipped"]


def test_gradient_that_is_not_finite_names_the_cases_too(caplog):
    network = OneWeight()
    engine = trainer([1.0], [check(network)], network)
    engine.loss_function = lambda pred, _: (-pred).sqrt()  # whose slope is infinite at 0
    with caplog.at_level(logging.WARNING, logger=gradient_check.__name__):
        engine.run()
    assert "the gradient became NaN or infinite in epoch 1, step 1, on a batch of case 1" in caplog.text
    assert network.weight.item() == 0.0


# ---- the end of the run --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("allowed", "before"), [(0, ""), (1, ", the last of 2 such steps in a row")])
def test_too_many_in_a_row_end_the_run(allowed, before):
    network = OneWeight()
    values = [1.0, *[NAN] * allowed, 2.0, *[NAN] * allowed, math.inf, 5.0, 5.0]
    engine = trainer(values, [check(network, allowed=allowed)], network)
    with pytest.raises(InputError) as stopped:
        engine.run()
    step = 3 + 2 * allowed
    cases = ", ".join(["case nan"] * allowed + ["case inf"])
    assert str(stopped.value) == (
        f"the loss became -inf in epoch 1, step {step}{before}, on batches of {cases}: check these scans, or lower the"
        " learning rate; runs/x/checkpoint.pt holds the last good epoch."
    )
    assert network.weight.item() == 3.0


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_run_ends_before_anything_of_its_epoch_is_kept(tmp_path, step):
    network, kept = OneWeight(), []
    state = RunState(tmp_path / "checkpoint.pt", {"network": network}, resume=False)
    engine = trainer([1.0] * 3, [check(network, allowed=0)], network, max_epochs=2)

    @engine.on(IterationEvents.FORWARD_COMPLETED)
    def break_it() -> None:
        if engine.state.iteration == step:
            engine.state.output["pred"] = engine.state.output["pred"] * NAN

    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: kept.append(network.weight.item()))
    state.attach(engine)
    with pytest.raises(InputError, match=f"epoch {1 + (step > 3)}, step {step}"):
        engine.run()
    assert kept == [3.0] * (step > 3)
    assert (tmp_path / "checkpoint.pt").exists() == (step > 3)
    if step > 3:
        assert float(read_state(tmp_path / "checkpoint.pt")["network"]["weight"]) == 3.0


def test_resumed_run_continues_to_count():
    network = OneWeight()
    first = check(network, allowed=2)
    trainer([1.0, NAN, NAN], [first], network).run()
    second = check(network, allowed=2)
    second.load_state_dict(first.state_dict())
    with pytest.raises(InputError, match="the last of 3 such steps in a row, on batches of case nan, case inf"):
        trainer([math.inf], [second], network).run()


def test_nan_in_one_process_is_skipped_in_all_and_named(in_two_processes):
    def train(rank: int) -> tuple[float, str]:
        network = torch.nn.parallel.DistributedDataParallel(OneWeight())
        values = [1.0, NAN if rank else 7.0, 2.0, 8.0 if rank else NAN, NAN]
        try:
            trainer(values, [check(network, allowed=1)], network).run()
        except InputError as error:
            return network.module.weight.item(), str(error)
        raise AssertionError

    (weight, message), (other, same) = in_two_processes(train)
    assert weight == other == 3.0
    assert message == same
    assert "in epoch 1, step 5, the last of 2 such steps in a row, on batches of case nan" in message


# ---- float16 -------------------------------------------------------------------------------------------------------


def half_precision(losses: list[float], scale: float, allowed: int = 0) -> tuple[OneWeight, Engine]:
    """A run with a loss scaler; each loss is a number times the weight, so the number is its gradient."""
    network = OneWeight()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)

    def step(engine: Engine, x: float) -> None:
        optimizer.zero_grad()
        engine.state.batch = {"case": [f"case {x:g}"]}
        engine.state.output = {"loss": -network(torch.tensor([x])).sum()}
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        scaler.scale(engine.state.output["loss"]).backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        scaler.step(optimizer)
        scaler.update()

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    engine.amp, engine.scaler, engine.optimizer, engine.accumulation_steps = True, scaler, optimizer, 1
    check(network, 2.0, allowed).attach(engine)
    engine.run(losses)
    return network, engine


def test_limit_applies_to_the_unscaled_gradient_in_half_precision():
    network, _ = half_precision([0.5, 100.0], scale=1024.0)
    assert network.weight.item() == pytest.approx(2.5, abs=1e-4)


def test_overflow_of_the_scaled_gradient_is_skipped_but_not_counted():
    network, engine = half_precision([1e30, 1.0], scale=1e20)
    assert network.weight.item() == pytest.approx(1.0)
    assert engine.scaler.get_scale() == pytest.approx(5e19)


@pytest.mark.parametrize(("loss", "scale"), [(NAN, 1024.0), (1e39, 0.5)])
def test_in_half_precision_what_no_scale_helps_is_counted(loss, scale):
    with pytest.raises(InputError, match="in epoch 1, step 1"):
        half_precision([loss], scale=scale)


# ---- a whole training ----------------------------------------------------------------------------------------------


@pytest.fixture
def train_on_poison(small_train):
    """A short training in which some cases hold NaN after they were prepared; gives trainer and average."""

    def train(poisoned: slice, **settings) -> tuple:
        config = small_train(batch_size=1, max_epochs=1, begin="$@folder.open()", **settings)
        dataset, trainer = (config.get_parsed_content(name) for name in ("train#dataset", "train#trainer"))
        config.get_parsed_content("begin")
        dataset.cases.prepare()
        for case in dataset.cases.held[poisoned]:
            case["image"].fill_(NAN)
        trainer.run()
        return trainer, config.get_parsed_content("average")

    return train


def test_training_leaves_out_a_poisoned_case(train_on_poison, caplog):
    with caplog.at_level(logging.WARNING, logger=gradient_check.__name__):
        trainer, average = train_on_poison(slice(1), steps_per_epoch=6)
    skipped = sum("this step is skipped" in message for message in caplog.messages)
    assert skipped == 2  # each of the three cases was drawn twice
    assert {state["step"].item() for state in trainer.optimizer.state.values()} == {4}
    assert average.model.n_averaged == 4
    assert all(weight.isfinite().all() for weight in average.network.parameters())


def test_training_on_poisoned_cases_alone_ends_and_names_them(train_on_poison):
    with pytest.raises(InputError, match=r"the last of 4 such steps in a row, on batches of (?:\w+(?:, )?){3}:"):
        train_on_poison(slice(3), steps_per_epoch=6, bad_steps=3)
