"""Weights of classes in a loss, typed or counted from the training cases."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events

from scripts.data.patch_dataset import PatchDataset
from scripts.errors import InputError


class ClassWeights:
    """The weight of each class, in a tensor that losses share; counted when training starts.

    Args:
        weights: None: equal; `inverse_frequency`: 1 / (classes x the class's share of the voxels of all training
            cases), which is 1 in the mean over voxels; or class name to weight.
        classes: names of the output channels.
        dataset: the training cases; no other is counted.
        measure_once: keeps the counted weights in the run's settings.yaml (`RunFolder.measure_once`).
        device: of the tensor.

    Attributes:
        tensor: the weights [K]; attach this object to the trainer, which fills it before the first step.

    Raises:
        InputError: the weights are none of these.
    """

    def __init__(
        self,
        weights: str | Mapping[str, float] | None,
        classes: Sequence[str],
        dataset: PatchDataset,
        measure_once: Callable[[str, Callable[[], Any]], Any],
        device: str | torch.device = "cpu",
    ) -> None:
        self.weights, self.classes, self.dataset, self.measure_once = weights, list(classes), dataset, measure_once
        self.tensor = torch.ones(len(self.classes), device=device)
        if isinstance(weights, Mapping) and list(weights) == self.classes and all(map(_is_weight, weights.values())):
            self.tensor.copy_(torch.tensor([*weights.values()]))
        elif weights not in (None, "inverse_frequency"):
            raise InputError(
                f"class_weights is {weights}: expected inverse_frequency, null, or a weight of 0 or more for each of"
                f" {', '.join(self.classes)}, in this order."
            )

    def attach(self, engine: Engine) -> None:
        """Count before the first step."""
        if self.weights == "inverse_frequency":
            engine.add_event_handler(Events.STARTED, self._count)

    def _count(self) -> None:
        found = self.measure_once("class_weights", self._measure)
        self.tensor.copy_(torch.tensor([found[name] for name in self.classes]))

    def _measure(self) -> dict[str, float]:
        voxels = torch.zeros(len(self.classes), dtype=torch.float64)
        for place in range(len(self.dataset.cases)):
            label = torch.as_tensor(self.dataset.cases.stored_case(place)["label"])
            voxels += label.flatten(1).sum(1, dtype=torch.float64)
        inverse = torch.where(voxels > 0, voxels.sum() / voxels.clamp_min(1.0), 0.0)  # a class of no case: 0
        return dict(zip(self.classes, (inverse / (voxels > 0).sum()).tolist(), strict=True))


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf
