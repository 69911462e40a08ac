"""The momentum against the learning rate, and the rate reduced when the score stalls."""

import pytest
import torch
from ignite.engine import Engine, Events
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR

from scripts.errors import InputError
from scripts.training.schedules import MomentumSchedule, PlateauSchedule, scheduler_share


def optimizer(kind: type = torch.optim.SGD, **settings) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (1.0, 0.1)]
    return kind(groups, **settings)


def test_any_scheduler_of_torch_is_stretched_over_the_run():
    where = [0.0]
    share = scheduler_share(lambda: where[0], lambda one: StepLR(one, step_size=50, gamma=0.1), steps=100)
    found = []
    for where[0] in (0.0, 0.49, 0.51, 1.0):
        found.append(share(0))
    assert found == pytest.approx([1.0, 1.0, 0.1, 0.1])


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (ReduceLROnPlateau, "one that follows a score is the recipe plateau"),
        (lambda one: LambdaLR(one, lambda step: 1 - step), "the scheduler gives rates from -8.* expected 0 or more"),
    ],
)
def test_scheduler_without_a_curve_is_refused(scheduler, expected):
    with pytest.raises(InputError, match=expected):
        scheduler_share(lambda: 0.0, scheduler, steps=10)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_momentum_depends_on_the_rate_as_in_torch(kind):
    settings = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    theirs, ours = optimizer(kind, **settings), optimizer(kind, **settings)
    reference = OneCycleLR(theirs, [1.0, 0.1], total_steps=10, div_factor=1e9)  # momentum 0.85 to 0.95
    schedule = MomentumSchedule(ours, lambda _: theirs.param_groups[0]["lr"], [0.85, 0.95])
    for _ in range(9):
        reference.step()
        schedule.step()
        for own, right in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert own["lr"] == pytest.approx(right["lr"])
            momenta = [group["betas"] if "betas" in group else group["momentum"] for group in (own, right)]
            assert momenta[0] == pytest.approx(momenta[1])


@pytest.mark.parametrize(
    ("kind", "momenta", "said"),
    [
        (torch.optim.Adagrad, [0.85, 0.95], "Adagrad has no momentum"),
        (torch.optim.SGD, [0.9], "expected two numbers"),
        (torch.optim.SGD, [0.9, 1.0], "expected two numbers"),
    ],
)
def test_wrong_momentum_is_refused(kind, momenta, said):
    with pytest.raises(InputError, match=said):
        MomentumSchedule(optimizer(kind), lambda _: 1.0, momenta)


SCORES = [0.1, 0.3, 0.3005, 0.2, 0.3, 0.31, 0.1, -0.7, 0.3, 0.31, 0.2, 0.1, 0.4, 0.2, 0.2, 0.2, 0.2]


class Validation:
    """A validation that gives the next of the scores each time."""

    def __init__(self, schedule: PlateauSchedule, scores: list[float]) -> None:
        self.engine, left = Engine(lambda *_: None), iter(scores)
        self.engine.add_event_handler(
            Events.EPOCH_COMPLETED, lambda engine: engine.state.metrics.update(val_score=next(left))
        )
        schedule.attach(self.engine)

    def run(self) -> None:
        self.engine.run([0])


def test_rate_is_reduced_by_the_rule_of_torch():
    theirs, ours = optimizer(), optimizer()
    reference = ReduceLROnPlateau(theirs, "max", 0.5, patience=2, threshold=1e-3, threshold_mode="abs")
    schedule = PlateauSchedule(ours, lambda _: 1.0, 0.5, patience=2, threshold=1e-3)
    validation, rates = Validation(schedule, SCORES), set()
    for score in SCORES:
        validation.run()
        schedule.step()
        reference.step(score)
        rates.add(theirs.param_groups[0]["lr"])
        assert schedule.get_last_lr() == reference.get_last_lr()
    assert rates == {1.0, 0.5, 0.25, 0.125, 0.0625}


def test_warm_up_multiplies_the_reductions():
    warm_up, made = 0.5, optimizer()
    schedule = PlateauSchedule(made, lambda _: warm_up, 0.1, patience=0)
    validation = Validation(schedule, [0.5, 0.5])
    validation.run()
    validation.run()
    schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.05, 0.005])


def test_resumed_plateau_continues_with_its_reductions_and_patience():
    whole = PlateauSchedule(optimizer(), lambda _: 1.0, 0.5, patience=2, threshold=1e-3)
    first = Validation(whole, SCORES)
    for _ in SCORES[:9]:
        first.run()
    resumed = PlateauSchedule(optimizer(), lambda _: 1.0, 0.5, patience=2, threshold=1e-3)
    resumed.load_state_dict(whole.state_dict())
    second = Validation(resumed, SCORES[9:])
    for _ in SCORES[9:]:
        for validation, schedule in ((first, whole), (second, resumed)):
            validation.run()
            schedule.step()
        assert resumed.get_last_lr() == whole.get_last_lr()
    assert resumed.reduction < 0.5


@pytest.mark.parametrize("wrong", [{"factor": 1.0}, {"factor": -0.1}, {"patience": -1}])
def test_plateau_out_of_range_is_refused(wrong):
    with pytest.raises(InputError, match="expected a factor"):
        PlateauSchedule(optimizer(), lambda _: 1.0, **wrong)
