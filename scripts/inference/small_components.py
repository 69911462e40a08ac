"""Removal of small components of a region, by thresholds selected on validation cases.

Predictions contain many specks, and lesion-wise scores count each of them.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from scripts.data.decision import RegionDecision
from scripts.data.images import connected_components, voxel_ml


class RemoveSmallComponentsd(MapTransform):
    """Take components that are smaller than their region's minimum out of the region.

    Args:
        keys: probabilities [K, ...]; a voxel's volume comes from the affine.
        decision: which regions a voxel belongs to.
        min_component_ml: region name to ml (of pictures: thousands of pixels); other regions keep all components.
    """

    def __init__(self, keys: KeysCollection, decision: RegionDecision, min_component_ml: Mapping[str, float]) -> None:
        super().__init__(keys)
        self.decision, self.minimum = decision, dict(min_component_ml)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Clean each key."""
        cleaned = dict(data)
        for key in self.key_iterator(cleaned):
            image = cleaned[key]
            ml = voxel_ml(image)
            for place, region in enumerate(self.decision.regions):
                if self.minimum.get(region, 0.0) <= 0:
                    continue
                mask = self.decision.masks(image)[place]  # anew, since a removal in another region may have changed it
                numbered, sizes = connected_components(mask.cpu().numpy())
                small = np.flatnonzero(sizes * ml < self.minimum[region]) + 1
                if small.size:
                    self.decision.remove(image, region, torch.from_numpy(np.isin(numbered, small)).to(image.device))
        return cleaned
