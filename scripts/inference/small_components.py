"""Removal of small components of a region, by thresholds selected on validation cases.

Predictions contain many specks, and lesion-wise scores count each of them.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from scripts.data.images import connected_components, voxel_ml


class RemoveSmallComponentsd(MapTransform):
    """Set the probability to zero in components (above `threshold`) that are smaller than their region's minimum.

    Args:
        keys: region probabilities [R, ...]; a voxel's volume comes from the affine.
        regions: the regions in channel order.
        min_component_ml: region name to ml (of pictures: thousands of pixels); other regions keep all components.
        threshold: voxels with a probability above it belong to the region.
    """

    def __init__(
        self,
        keys: KeysCollection,
        regions: Sequence[str],
        min_component_ml: Mapping[str, float],
        threshold: float = 0.5,
    ) -> None:
        super().__init__(keys)
        self.regions, self.minimum, self.threshold = list(regions), dict(min_component_ml), threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Clean each key."""
        cleaned = dict(data)
        for key in self.key_iterator(cleaned):
            image = cleaned[key]
            ml = voxel_ml(image)
            for channel, region in enumerate(self.regions):
                if self.minimum.get(region, 0.0) <= 0:
                    continue
                numbered, sizes = connected_components((image[channel] > self.threshold).cpu().numpy())
                small = np.flatnonzero(sizes * ml < self.minimum[region]) + 1
                if small.size:
                    image[channel][torch.from_numpy(np.isin(numbered, small)).to(image.device)] = 0
        return cleaned
