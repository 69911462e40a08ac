"""Weights of classes in a loss, typed or counted from the training cases."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events

from scripts.data.imperfect_labels import IGNORED
from scripts.data.patch_dataset import PatchDataset
from scripts.errors import InputError


class ClassWeights:
    """The weight of each class, in a tensor that losses share; `CountClasses` fills it when training starts.

    Args:
        weights: None: equal; `inverse_frequency`: 1 / (classes x the class's share of the voxels of all training
            cases), which is 1 in the mean over voxels; or class name to weight.
        classes: names of the output channels.
        device: of the tensor.

    Attributes:
        tensor: the weights [K].

    Raises:
        InputError: the weights are none of these.
    """

    def __init__(
        self, weights: str | Mapping[str, float] | None, classes: Sequence[str], device: str | torch.device = "cpu"
    ) -> None:
        self.weights, self.classes = weights, list(classes)
        self.tensor = torch.ones(len(self.classes), device=device)
        if isinstance(weights, Mapping) and list(weights) == self.classes and all(map(_is_weight, weights.values())):
            self.tensor.copy_(torch.tensor([*weights.values()]))
        elif weights not in (None, "inverse_frequency"):
            raise InputError(
                f"class_weights is {weights}: expected inverse_frequency, null, or a weight of 0 or more for each of"
                f" {', '.join(self.classes)}, in this order."
            )


class CountClasses:
    """Fills `ClassWeights` that are to be counted, before the first step; attach it to the trainer.

    Args:
        weights: to fill.
        dataset: the training cases; no other is counted.
        measure_once: keeps the counted weights in the run's settings.yaml (`RunFolder.measure_once`).
    """

    def __init__(
        self, weights: ClassWeights, dataset: PatchDataset, measure_once: Callable[[str, Callable[[], Any]], Any]
    ) -> None:
        self.weights, self.dataset, self.measure_once = weights, dataset, measure_once

    def attach(self, engine: Engine) -> None:
        """Count before the first step."""
        if self.weights.weights == "inverse_frequency":
            engine.add_event_handler(Events.STARTED, self._count)

    def _count(self) -> None:
        found = self.measure_once("class_weights", self._measure)
        self.weights.tensor.copy_(torch.tensor([found[name] for name in self.weights.classes]))

    def _measure(self) -> dict[str, float]:
        classes = self.weights.classes
        voxels = torch.zeros(len(classes), dtype=torch.float64)
        for place in range(len(self.dataset.cases)):
            label = torch.as_tensor(self.dataset.cases.stored_case(place)["label"])
            every = label.masked_fill(label == IGNORED, 0).flatten(1).sum(1, dtype=torch.float64)
            voxels += every.unflatten(0, (-1, len(classes))).sum(0)  # of all raters
        inverse = torch.where(voxels > 0, voxels.sum() / voxels.clamp_min(1.0), 0.0)  # a class of no case: 0
        return dict(zip(classes, (inverse / (voxels > 0).sum()).tolist(), strict=True))


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf
