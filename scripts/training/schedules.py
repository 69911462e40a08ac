"""Schedules other than one curve of the rate along the run: torch's, the momentum, or a reduction by the score."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch.nn import Parameter
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from scripts.errors import InputError


def scheduler_share(
    progress: Callable[[], float], scheduler: Callable[[Optimizer], LRScheduler], steps: int = 1000
) -> Callable[[int], float]:
    """The share of the peak rate by any scheduler of torch, stretched over the run, for `LambdaLR`.

    The scheduler is run once over `steps` steps, without a network; a training of minutes then follows the curve.

    Args:
        progress: returns the completed share of the run, 0 to 1 (`Budget.progress`).
        scheduler: makes the scheduler of an optimiser; it counts to `steps`.
        steps: points of the curve.

    Raises:
        InputError: the scheduler needs a score in each step, or gives a rate that is not a number.
    """
    optimizer = SGD([Parameter(torch.zeros(1))], lr=1.0)
    try:
        made, curve = scheduler(optimizer), []
        for _ in range(steps):
            curve.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            made.step()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the scheduler cannot be run over {steps} steps ({error}): one that follows a score is the recipe plateau."
        ) from error
    if not all(0 <= rate < float("inf") for rate in curve):
        lowest, highest = min(curve), max(curve)
        raise InputError(f"the scheduler gives rates from {lowest} to {highest} of the peak: expected 0 or more.")
    return lambda _: curve[min(steps - 1, int(progress() * steps))]


class MomentumSchedule(LambdaLR):
    """`LambdaLR` whose momentum falls as the learning rate rises, and rises as it falls (the 1cycle policy).

    Args:
        optimizer: has `betas`, of which the first is the momentum, or `momentum`.
        lr_lambda: the share of the peak rate, 0 to 1 (`scripts.training.budget.rate_factor`).
        momenta: the momentum at the peak rate, and at a rate of 0.

    Source: Smith 2018, as in `torch.optim.lr_scheduler.OneCycleLR`, which counts steps and so does not fit minutes.

    Raises:
        InputError: the optimiser has no momentum, or the momenta are not two numbers from 0 to below 1.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float], momenta: Sequence[float]) -> None:
        if not any(name in optimizer.defaults for name in ("betas", "momentum")):
            raise InputError(
                f"{type(optimizer).__name__} has no momentum to schedule: use AdamW or SGD, or another schedule."
            )
        if len(momenta) != 2 or not all(0 <= momentum < 1 for momentum in momenta):
            raise InputError(f"the momentum is {momenta}: expected two numbers from 0 to below 1.")
        self.momenta = list(momenta)
        super().__init__(optimizer, lr_lambda)

    def get_lr(self) -> list[Any]:
        """The rate of each group of weights; sets the momentum."""
        at_peak, at_lowest = self.momenta
        for group, share in zip(self.optimizer.param_groups, self.lr_lambdas, strict=True):
            momentum = at_lowest + (at_peak - at_lowest) * share(self.last_epoch)
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum
        return super().get_lr()


class PlateauSchedule(LambdaLR):
    """`LambdaLR` whose rates are multiplied by a factor each time the validation score has stalled.

    Args:
        optimizer: its learning rates are set.
        lr_lambda: the share of the peak rate apart from that (`scripts.training.budget.rate_factor`).
        factor: of each reduction, 0 to below 1.
        patience: validations without a better score that change nothing; the next one reduces the rate.
        threshold: a score is better if it is higher than the best by more than this.

    Attach it to the evaluator, whose `val_score` is better if higher. The rule is that of
    `torch.optim.lr_scheduler.ReduceLROnPlateau`, which cannot be combined with a warm-up that follows the run's
    progress. Its state holds the reductions so far.

    Raises:
        InputError: the factor or the patience is out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float],
        factor: float = 0.2,
        patience: int = 5,
        threshold: float = 1e-3,
    ) -> None:
        if not (0 <= factor < 1 and patience >= 0):
            raise InputError(
                f"the plateau schedule has factor {factor} and patience {patience}: expected a factor from 0 to below"
                " 1, and a patience of 0 or more validations."
            )
        self.factor, self.patience, self.threshold = factor, patience, threshold
        self.reduction, self.best, self.without_better = 1.0, float("-inf"), 0
        super().__init__(optimizer, lr_lambda)

    def attach(self, engine: Engine) -> None:
        """Follow the score of each validation."""
        engine.add_event_handler(Events.COMPLETED, self._follow)

    def get_lr(self) -> list[Any]:
        """The rate of each group of weights."""
        return [self.reduction * rate for rate in super().get_lr()]

    def _follow(self, engine: Engine) -> None:
        score = float(engine.state.metrics["val_score"])
        better = score > self.best + self.threshold
        self.best, self.without_better = (score, 0) if better else (self.best, self.without_better + 1)
        if self.without_better > self.patience:
            self.reduction, self.without_better = self.reduction * self.factor, 0
