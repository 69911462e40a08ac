"""Label values as regions, and regions as one label map again.

A region is a union of label values (whole tumour = {1, 2, 4}); regions may overlap, so each has its own channel.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from scripts.data.images import ROUNDING
from scripts.errors import InputError


class RoundLabelsd(MapTransform):
    """Round label maps [1, ...] to the whole numbers of the declared scheme.

    Args:
        keys: the label maps.
        labels: the scheme, name to value; 0 is background and may be left out.

    Raises:
        InputError: a value is not within 0.001 of a whole number, or outside the scheme; names file and value.
    """

    def __init__(self, keys: KeysCollection, labels: Mapping[str, int]) -> None:
        super().__init__(keys)
        self.labels = dict(labels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Round each key."""
        rounded = dict(data)
        for key in self.key_iterator(rounded):
            label = rounded[key]
            name = label.meta.get("filename_or_obj", key) if isinstance(label, MetaTensor) else key
            whole = torch.round(label)
            broken = (label - whole).abs() > ROUNDING
            if bool(broken.any()):
                raise InputError(
                    f"{name} holds the label {float(label[broken][0]):g}: labels must be whole numbers; it may have"
                    " been resampled with interpolation: resample it with nearest neighbour."
                )
            values = {int(v) for v in torch.unique(whole)}
            if unknown := sorted(values - {0, *self.labels.values()}):
                raise InputError(
                    f"{name} holds the label {unknown[0]}: the scheme has {self.labels}; check the task"
                    f" (configs/tasks/)."
                )
            rounded[key] = whole
        return rounded


class LabelsToRegionsd(MapTransform):
    """Turn label maps [1, ...] into region masks [R, ...] of zeros and ones (uint8).

    Args:
        keys: the label maps.
        regions: region name to the label values that it unites, in channel order.
    """

    def __init__(self, keys: KeysCollection, regions: Mapping[str, Sequence[int]]) -> None:
        super().__init__(keys)
        self.regions = {name: list(values) for name, values in regions.items()}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert each key."""
        converted = dict(data)
        for key in self.key_iterator(converted):
            label = converted[key]
            masks = [torch.isin(label, torch.tensor(values, dtype=label.dtype)) for values in self.regions.values()]
            converted[key] = torch.cat(masks).to(torch.uint8)
        return converted


class RegionIndicesd(MapTransform):
    """Indices of background and region voxels, for crops that choose among them (`RandCropByLabelClassesd`).

    Adds `<key>_indices`, R + 1 vectors of flat voxel indices: first the voxels in no region that are not 0 in the
    image, then those of each region.

    Args:
        keys: region masks [R, ...].
        image_key: the image [C, ...], 0 in the background.
    """

    def __init__(self, keys: KeysCollection, image_key: str = "image") -> None:
        super().__init__(keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the indices of each key."""
        indexed = dict(data)
        for key in self.key_iterator(indexed):
            regions = torch.as_tensor(indexed[key]) > 0
            background = (torch.as_tensor(indexed[self.image_key]) != 0).any(0) & ~regions.any(0)
            indexed[f"{key}_indices"] = [mask.flatten().nonzero().flatten() for mask in (background, *regions)]
        return indexed


class RegionsToLabelsd(MapTransform):
    """Turn region probabilities [R, ...] into one label map [1, ...] (uint8).

    Args:
        keys: the probabilities.
        regions: region name to label values, in channel order.
        labels_out: region name to its value in the label map, in painting order: later regions overwrite earlier ones.
        fill: the value outside all regions.
        threshold: a voxel belongs to a region if its probability is above this.
    """

    def __init__(
        self,
        keys: KeysCollection,
        regions: Mapping[str, Sequence[int]],
        labels_out: Mapping[str, int],
        fill: int = 0,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(keys)
        unknown = [name for name in labels_out if name not in regions]
        if unknown:
            raise InputError(f"labels_out has {unknown[0]}, which is not a region: expected {', '.join(regions)}.")
        self.painting = [(list(regions).index(name), int(value)) for name, value in labels_out.items()]
        self.fill, self.threshold = int(fill), threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Paint each key."""
        painted = dict(data)
        for key in self.key_iterator(painted):
            regions = painted[key]
            labels = torch.full_like(regions[:1], self.fill, dtype=torch.uint8)
            for channel, value in self.painting:
                labels[regions[channel : channel + 1] > self.threshold] = value
            painted[key] = labels
        return painted
