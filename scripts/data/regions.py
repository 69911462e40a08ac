"""Label values as regions, and regions as one label map again.

A region is a union of label values (whole tumour = {1, 2, 4}); regions may overlap, so each has its own channel.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple

from scripts.data.background import foreground
from scripts.data.images import ROUNDING
from scripts.data.imperfect_labels import IGNORED, combine_raters
from scripts.data.raters import check_ignore
from scripts.errors import InputError


class RoundLabelsd(MapTransform):
    """Round label maps [R, ...], one per rater, to the whole numbers of the declared scheme.

    Args:
        keys: the label maps.
        labels: the scheme, name to value; 0 is background and may be left out.
        ignore: the value of voxels to ignore, which is allowed too; None: there are none.

    Raises:
        InputError: a value is not within 0.001 of a whole number, or outside the scheme; names file and value.
    """

    def __init__(self, keys: KeysCollection, labels: Mapping[str, int], ignore: int | None = None) -> None:
        super().__init__(keys)
        check_ignore(ignore, labels, {})
        self.labels, self.allowed = dict(labels), {0, *labels.values(), *([] if ignore is None else [ignore])}

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
            if unknown := sorted(values - self.allowed):
                raise InputError(
                    f"{name} holds the label {unknown[0]}: the scheme has {self.labels}; check the task"
                    " (configs/tasks/)."
                )
            rounded[key] = whole
        return rounded


class LabelsToRegionsd(MapTransform):
    """Turn label maps [1, ...] into region masks [K, ...] of zeros and ones (uint8).

    Label maps of several raters, [R, ...], are combined (`scripts.data.imperfect_labels.combine_raters`).

    Args:
        keys: the label maps.
        regions: region name to the label values that it unites, in channel order.
        ignore: the value of voxels to ignore, which are `IGNORED` (2) in every mask; None: there are none.
        raters: how several raters' masks are combined.
    """

    def __init__(
        self,
        keys: KeysCollection,
        regions: Mapping[str, Sequence[int]],
        ignore: int | None = None,
        raters: str = "draw",
    ) -> None:
        super().__init__(keys)
        self.regions = {name: list(values) for name, values in regions.items()}
        self.ignore, self.raters = ignore, raters

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert each key."""
        converted = dict(data)
        for key in self.key_iterator(converted):
            label = converted[key]
            masks = [torch.isin(label, torch.tensor(values, dtype=label.dtype)) for values in self.regions.values()]
            together = torch.stack(masks, dim=1).to(torch.uint8)
            if self.ignore is not None:
                together = together.masked_fill((label == self.ignore).unsqueeze(1), IGNORED)
            converted[key] = combine_raters(together, self.raters)
        return converted


class RegionIndicesd(MapTransform):
    """Flat indices of the voxels on which patches are centred, computed once, for MONAI's crops.

    Adds to each key, for `RandCropByPosNegLabeld`, `<key>_fg_indices` (voxels of any centre region) and
    `<key>_bg_indices` (other voxels that are not 0 in the image; any other voxel if the whole image is 0); and for
    `RandCropByLabelClassesd`, `<key>_indices`: a list of the background and of each centre region.

    MONAI's `FgBgToIndicesd` takes the first of several channels for a background, and expects images above 0.

    Args:
        keys: masks [K, ...], or [R * K, ...] of several raters: a region is where any of them drew it. Voxels that any
            of them ignores are not background.
        regions: region name to the label values that it unites.
        channels: name of each mask to the label values in it, in channel order; None: one mask per region. A region
            is the union of the masks whose values are all its own.
        centre_regions: names of the regions on which patches are centred, all of them in a case that has none of
            these; None: all.
        image_key: the image [C, ...], 0 in the background.

    Raises:
        InputError: `centre_regions` is empty or names no region.
    """

    def __init__(
        self,
        keys: KeysCollection,
        regions: Mapping[str, Sequence[int]],
        channels: Mapping[str, Sequence[int]] | None = None,
        centre_regions: Sequence[str] | None = None,
        image_key: str = "image",
    ) -> None:
        super().__init__(keys)
        names = list(regions) if centre_regions is None else ensure_tuple(centre_regions)
        if not names or not {*names} <= {*regions}:
            raise InputError(f"centre_regions is {centre_regions}: expected names among {', '.join(regions)}, or null.")
        masks = list((channels or regions).values())
        self.channels = len(masks)
        self.parts = [[k for k, values in enumerate(masks) if {*values} <= {*regions[name]}] for name in names]
        every = {value for values in regions.values() for value in values}
        self.every = [k for k, values in enumerate(masks) if {*values} <= every]
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the indices of each key."""
        indexed = dict(data)
        for key in self.key_iterator(indexed):
            label = torch.as_tensor(indexed[key])
            by_rater = label.unflatten(0, (-1, self.channels))
            masks = ((by_rater > 0) & (by_rater != IGNORED)).any(0)
            regions = torch.stack([masks[parts].any(0) for parts in self.parts])
            centres = regions.any(0) if regions.any() else masks[self.every].any(0)
            unlabelled = ~(centres | (label == IGNORED).any(0))
            background = foreground(torch.as_tensor(indexed[self.image_key])).any(0) & unlabelled
            found = [mask.flatten().nonzero().flatten() for mask in (centres, background, *regions)]
            indexed[f"{key}_fg_indices"], indexed[f"{key}_bg_indices"], *_ = found
            indexed[f"{key}_indices"] = found[1:]
        return indexed


class RegionsToLabelsd(MapTransform):
    """Turn region probabilities [R, ...] into one label map [1, ...] (uint8).

    Args:
        keys: the probabilities.
        regions: region name to label values, in channel order.
        labels_out: region name to its value in the label map, in painting order: later regions overwrite earlier ones.
        fill: the value outside all regions, whose probabilities are 0.5 or less.
    """

    def __init__(
        self, keys: KeysCollection, regions: Mapping[str, Sequence[int]], labels_out: Mapping[str, int], fill: int = 0
    ) -> None:
        super().__init__(keys)
        unknown = [name for name in labels_out if name not in regions]
        if unknown:
            raise InputError(f"labels_out has {unknown[0]}, which is not a region: expected {', '.join(regions)}.")
        self.painting = [(list(regions).index(name), int(value)) for name, value in labels_out.items()]
        self.fill = int(fill)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Paint each key."""
        painted = dict(data)
        for key in self.key_iterator(painted):
            regions = painted[key]
            labels = torch.full_like(regions[:1], self.fill, dtype=torch.uint8)
            for channel, value in self.painting:
                labels[regions[channel : channel + 1] > 0.5] = value
            painted[key] = labels
        return painted
