"""Time of the first validation, estimated before any, so that a short run ends in time."""

import logging
import math
from collections.abc import Callable

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from monai.utils import fall_back_tuple

from scripts.data.patch_dataset import PreparedCases
from scripts.distributed import synchronized
from scripts.inference.sliding_window import MirroringSlidingWindowInferer
from scripts.training.budget import SPARE, Budget

logger = logging.getLogger(__name__)


class ReserveFirstValidation:
    """Reserves the time of a validation in a budget of minutes, before the first one shows how long it takes.

    Args:
        budget: gets the reserve; without a limit of minutes nothing is estimated.
        evaluator: the validation engine; its inferer and its network are timed.
        dataset: the validation cases.

    Attach it to the trainer, after the budget.
    """

    def __init__(self, budget: Budget, evaluator: SupervisedEvaluator, dataset: PreparedCases) -> None:
        self.budget, self.evaluator, self.dataset = budget, evaluator, dataset

    def attach(self, engine: Engine) -> None:
        """Estimate when training starts."""
        engine.add_event_handler(Events.STARTED, self._reserve)

    def _reserve(self) -> None:
        if self.budget.seconds is None:
            return
        seconds = synchronized(SPARE * estimate_validation_seconds(self.evaluator, self.dataset, self.budget.clock))
        self.budget.reserve = max(self.budget.reserve, seconds)
        left = self.budget.seconds - self.budget.now() - seconds
        if left <= 0:
            logger.warning(
                f"max_minutes is less than the start of the program ({self.budget.now():.0f} s), one validation (about"
                f" {seconds:.0f} s) and the end take: training ends after its first step, and later than asked for."
            )


@torch.no_grad()
def estimate_validation_seconds(
    evaluator: SupervisedEvaluator, dataset: PreparedCases, clock: Callable[[], float]
) -> float:
    """The seconds of one validation: the time of one window, times the voxels of all windows of all cases.

    `clock` returns seconds (`Budget.clock`). Windows of background, which are skipped, are counted too.
    """
    inferer, network, device = evaluator.inferer, evaluator.network, evaluator.state.device or torch.device("cpu")
    if not isinstance(inferer, MirroringSlidingWindowInferer):
        return 0.0
    known = range(len(dataset)) if dataset.cache != "none" else range(min(1, len(dataset)))  # none: prepared anew
    sizes = [tuple(dataset.stored_case(number)["image"].shape) for number in known]
    if not sizes:
        return 0.0
    channels, *size = sizes[0]
    window = size if inferer.auto else fall_back_tuple(inferer.roi_size, size)
    ramp = torch.linspace(0, 1, channels * math.prod(window), device=device).view(1, channels, *window)
    if inferer.auto:
        inferer.ask_network(network, channels)  # once per run, so it is not part of the time
    mode = network.training
    network.eval()
    for _ in range(2 if ramp.is_cuda else 1):  # a GPU loads its kernels first
        began = clock()
        inferer(ramp, network)
        if ramp.is_cuda:
            torch.cuda.synchronize(device)
    seconds = clock() - began
    network.train(mode)
    voxels = sum(math.prod(own) if inferer.auto else inferer.count_window_voxels(own) for _, *own in sizes)
    return seconds * voxels / math.prod(window) * len(dataset) / len(sizes)
