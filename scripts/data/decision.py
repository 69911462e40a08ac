"""What the channels of a network's output are, and which regions a voxel belongs to.

- `decision: regions`: one sigmoid channel per region; a voxel is in every region whose probability is above one half.
- `decision: classes`: softmax over background and the labels; a voxel has the label of highest probability, and is in
  every region that unites this label with others.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from scripts.data.imperfect_labels import split_raters
from scripts.errors import InputError

DECISIONS = ("regions", "classes")
BACKGROUND = -20.0  # logit of every region in the background: a probability of 2e-9


def output_channels(
    decision: str, regions: Mapping[str, Sequence[int]], labels: Mapping[str, int]
) -> dict[str, list[int]]:
    """The label values of each channel of the network's output, by name and in their order.

    Args:
        decision: `regions` or `classes`.
        regions: region name to label values.
        labels: label name to value; background, 0, may be left out.

    Raises:
        InputError: the decision is neither of the two.
    """
    if decision not in DECISIONS:
        raise InputError(f"decision is '{decision}': expected {' or '.join(DECISIONS)}.")
    if decision == "regions":
        return {name: list(values) for name, values in regions.items()}
    by_value = sorted((value, name) for name, value in labels.items())
    background = [] if by_value[0][0] == 0 else [(0, "background")]
    return {name: [value] for value, name in [*background, *by_value]}


def background_logits(outputs: Mapping[str, Sequence[int]]) -> list[float]:
    """Logits of a voxel outside the patient, by channel (`output_channels`)."""
    return [-BACKGROUND if 0 in values else BACKGROUND for values in outputs.values()]


class RegionDecision:
    """Decides which regions a voxel belongs to.

    Args:
        decision: `regions` or `classes`.
        regions: region name to label values.
        labels: label name to value.
        threshold: for `regions`, a voxel is in a region if its value is above this; 0 for logits.

    Shapes: probabilities or logits [K, ...] or, with `axis` 1, [B, K, ...], the channels of `output_channels`.
    """

    def __init__(
        self, decision: str, regions: Mapping[str, Sequence[int]], labels: Mapping[str, int], threshold: float = 0.5
    ) -> None:
        outputs = output_channels(decision, regions, labels)
        self.by_class, self.threshold = decision == "classes", threshold
        self.values = [values[0] for values in outputs.values()]  # of each class
        self.regions = {name: set(values) for name, values in regions.items()}
        parts = [[value in own for value in self.values] for own in self.regions.values()]
        self.of_class = torch.tensor(parts)  # [R, K]
        self.classes_of = [[k for k, is_part in enumerate(own) if is_part] for own in parts]

    def classes(self, probabilities: torch.Tensor) -> torch.Tensor:
        """The label value of each voxel, [1, ...], of probabilities [K, ...]; for `classes`."""
        best = probabilities.argmax(0, keepdim=True)
        return torch.tensor(self.values, device=best.device)[best]

    def masks(self, probabilities: torch.Tensor, axis: int = 0) -> torch.Tensor:
        """Masks of the regions, bool, [R, ...] or [B, R, ...]."""
        if not self.by_class:
            return probabilities > self.threshold
        self.of_class = self.of_class.to(probabilities.device)  # once: a GPU waits for a copy
        return self.of_class[:, probabilities.argmax(axis)].movedim(0, axis)

    def region_probabilities(self, probabilities: torch.Tensor) -> torch.Tensor:
        """The probability of each region, [R, ...]: that of its channel, or the sum of its classes."""
        if not self.by_class:
            return probabilities
        return torch.stack([torch.stack([probabilities[k] for k in own]).sum(0) for own in self.classes_of])


class RegionMasksd(MapTransform):
    """Turn probabilities [K, ...] into masks of the regions [R, ...], zeros and ones (float32).

    Args:
        keys: the probabilities, or labels of the same channels; those of several raters, one after the other, remain.
        decision: which regions a voxel belongs to.
    """

    def __init__(self, keys: KeysCollection, decision: RegionDecision) -> None:
        super().__init__(keys)
        self.decision = decision

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert each key."""
        return {**data, **{key: self._masks(data[key]).float() for key in self.key_iterator(data)}}

    def _masks(self, channels: torch.Tensor) -> torch.Tensor:
        masks = [self.decision.masks(own) for own in split_raters(channels, len(self.decision.values))]
        return masks[0] if len(masks) == 1 else torch.cat(masks)


class ClassesToLabelsd(MapTransform):
    """Turn probabilities of classes [K, ...] into one label map [1, ...] (uint8), the most probable label per voxel.

    Args:
        keys: the probabilities.
        decision: by classes.
    """

    def __init__(self, keys: KeysCollection, decision: RegionDecision) -> None:
        super().__init__(keys)
        self.decision = decision

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert each key."""
        return {**data, **{key: self.decision.classes(data[key]).to(torch.uint8) for key in self.key_iterator(data)}}
