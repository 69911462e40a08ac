"""Removal of small or doubtful components of a region from a label map, without losing a region or making a hole.

Predictions contain many specks, and lesion-wise scores count each of them. The largest component of a region always
stays, and so does one that holds the largest component of a region inside it. What is dropped from a region belongs to
the region around it: enhancing tumour becomes tumour core, and only what is in no other region becomes background.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from scripts.data.decision import RegionDecision
from scripts.data.images import bounding_box, connected_components, voxel_ml


class RegionComponents(NamedTuple):
    """The components of a region in a label map.

    Attributes:
        numbered: the number of each voxel's component, 0 outside the region.
        ml: volume of each, from component 1 on (of pictures: thousands of pixels).
        probability: mean probability of each; None if it is unknown.
        stays: whether a component may not be dropped.
    """

    numbered: np.ndarray
    ml: np.ndarray
    probability: np.ndarray | None
    stays: np.ndarray

    def find_dropped(self, ml: float = 0.0, probability: float = 0.0) -> np.ndarray:
        """Which components are below the given minima, each of which counts if it is above 0: bool, [components]."""
        below = ~self.stays & bool(ml or probability)
        below &= (self.ml < ml) if ml else True
        if probability and self.probability is not None:
            below = below & (self.probability < probability)
        return below & bool(ml or self.probability is not None)

    def voxels_of(self, chosen: np.ndarray) -> np.ndarray:
        """The mask of some components; `chosen` is bool, [components]."""
        return np.append(False, chosen)[self.numbered]


def find_components(
    labels: np.ndarray,
    region: str,
    regions: Mapping[str, Sequence[int]],
    ml: float,
    probability: np.ndarray | None = None,
) -> RegionComponents:
    """The components of a region in a label map [...].

    Args:
        labels: label values.
        region: one of `regions`.
        regions: name to label values.
        ml: volume of a voxel.
        probability: of the region, on the same grid.
    """
    numbered, sizes = connected_components(np.isin(labels, regions[region]))
    stays = sizes == sizes.max(initial=0)
    for values in regions.values() if len(sizes) > 1 else ():
        if {*values} < {*regions[region]}:
            inner, inner_sizes = connected_components(np.isin(labels, values))
            largest = np.flatnonzero(inner_sizes == inner_sizes.max(initial=0)) + 1
            stays[numbered[np.isin(inner, largest)] - 1] = True
    means = None
    if probability is not None:
        sums = np.bincount(numbered.ravel(), weights=probability.ravel(), minlength=len(sizes) + 1)[1:]
        means = sums / np.maximum(sizes, 1)
    return RegionComponents(numbered, sizes * ml, means, stays)


def label_around(
    region: str, regions: Mapping[str, Sequence[int]], labels_out: Mapping[str, int], fill: int = 0
) -> int:
    """The label that a voxel gets when it is dropped from a region: of the smallest region around it, or `fill`."""
    own = {*regions[region]}
    around = sorted((len(values), name) for name, values in regions.items() if {*values} > own)
    if not around:
        return fill
    left = {*regions[around[0][1]]} - own
    painted = labels_out.get(around[0][1])
    return painted if painted in left else min(left)


class RemoveSmallComponentsd(MapTransform):
    """Drop the components of each region that are below all of its minima, inner regions first.

    Args:
        keys: label maps [1, ...]; a voxel's volume comes from the affine.
        decision: gives the probability of each region.
        labels_out: region name to the label of its voxels in the map.
        min_component_ml: region name to ml (of pictures: thousands of pixels).
        min_component_probability: region name to mean probability, 0 to 1; needs the network's probabilities [K, ...]
            as `component_probabilities`.
        fill: the label outside all regions.
    """

    def __init__(
        self,
        keys: KeysCollection,
        decision: RegionDecision,
        labels_out: Mapping[str, int] | None,
        min_component_ml: Mapping[str, float],
        min_component_probability: Mapping[str, float] | None = None,
        fill: int = 0,
    ) -> None:
        super().__init__(keys)
        self.decision, self.labels_out, self.fill = decision, dict(labels_out or {}), fill
        self.volumes, self.means = dict(min_component_ml), dict(min_component_probability or {})

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Clean each key."""
        cleaned = dict(data)
        regions = {name: sorted(values) for name, values in self.decision.regions.items()}
        limited = [name for name in regions if self.volumes.get(name) or self.means.get(name)]
        for key in self.key_iterator(cleaned) if limited else ():
            image = cleaned[key]
            whole = image[0].cpu().numpy().copy()
            here = bounding_box(whole != self.fill, margin=[0] * whole.ndim)
            labels, every = whole[here], (slice(None), *here)
            for region in sorted(limited, key=lambda name: len(regions[name])):
                probability = None
                if self.means.get(region):
                    maps = self.decision.region_probabilities(cleaned["component_probabilities"][every])
                    probability = maps[list(regions).index(region)].cpu().numpy()
                found = find_components(labels, region, regions, voxel_ml(image), probability)
                dropped = found.find_dropped(self.volumes.get(region, 0.0), self.means.get(region, 0.0))
                labels[found.voxels_of(dropped)] = label_around(region, regions, self.labels_out, self.fill)
            cleaned[key] = convert_to_dst_type(torch.from_numpy(whole)[None], image, dtype=image.dtype)[0]
        return cleaned
