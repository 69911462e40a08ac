"""Numbers that say how good a mask is likely to be, without a reference.

They are measured by region, before small components are removed, on the grid of the network, and take no further pass
of it. `scripts.inference.predicted_dice` turns them into a Dice. docs/quality.md describes both.
"""

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform
from monai.utils import convert_to_tensor

from scripts.data.decision import RegionDecision
from scripts.data.images import connected_components, voxel_ml
from scripts.data.profile import NOTED_FROM, read_profile
from scripts.data.scan_checks import is_served
from scripts.files import write_json
from scripts.inference.feature_profile import FEATURES, measure_distance
from scripts.inference.mask_records import MaskRecords
from scripts.inference.predicted_dice import MEMBERS, MIRRORS, find_obstacle, predict_dice, read_quality, without_value

NUMBERS = "mask_numbers.json"  # in the folder of an evaluation
MINIMA = ("min_component_ml", "min_component_probability")  # of which 0 is none


def measure_region_numbers(probability: torch.Tensor, mask: torch.Tensor, ml: float) -> dict[str, float]:
    """The numbers of a region that its probabilities and its mask give; the mask is not empty.

    - `expected_dice`: 2 sum(p m) / (sum(p) + sum(m)), the Dice of the mask if the probabilities p are calibrated.
    - `border_entropy`: mean entropy, in bits, of the voxels with a face between mask and background.
    - `volume_ml`, and `largest_share`: that of the largest connected component.

    Args:
        probability: of the region, [...].
        mask: bool, [...].
        ml: volume of a voxel.
    """
    inside, all_of = float(mask.sum()), float(probability.sum(dtype=torch.float64))
    overlap = float(probability[mask].sum(dtype=torch.float64))
    rim = torch.zeros_like(mask)
    for axis in range(mask.dim()):
        size = mask.shape[axis] - 1
        changes = mask.narrow(axis, 0, size) != mask.narrow(axis, 1, size)
        rim.narrow(axis, 0, size).logical_or_(changes)
        rim.narrow(axis, 1, size).logical_or_(changes)
    at = probability[rim].double().clamp(1e-7, 1 - 1e-7)
    entropy = float(-(at * at.log2() + (1 - at) * (1 - at).log2()).mean()) if at.numel() else 0.0
    largest = connected_components(mask.numpy(force=True))[1].max()
    return {
        "expected_dice": 2 * overlap / (all_of + inside),
        "border_entropy": entropy,
        "volume_ml": inside * ml,
        "largest_share": float(largest) / inside,
    }


class MaskQuality:
    """Measures the numbers of a mask, and predicts its Dice by region.

    Args:
        calibration: the file of the calibration; None: nothing is predicted.
        profile: the file of the profile, for the distance of deep features; None, or one of fewer than `NOTED_FROM`
            training cases: without.
        weights: the files of the network's weights, which must be those that were calibrated.
        decision: which regions a voxel belongs to.
        made_with: the settings that decide over a mask; where they differ from those of the calibration, nothing is
            predicted.
    """

    def __init__(
        self,
        calibration: str | None,
        profile: str | None,
        weights: Sequence[str | os.PathLike],
        decision: RegionDecision,
        made_with: Mapping[str, Any],
    ) -> None:
        self.known = read_quality(calibration) if calibration is not None else None
        known = read_profile(profile) if profile is not None else None
        self.features = known.features if known is not None and known.cases >= NOTED_FROM else None
        limits = {name: {region: least for region, least in made_with[name].items() if least} for name in MINIMA}
        self.decision, self.made_with = decision, json.loads(json.dumps({**made_with, **limits}, default=list))
        self.obstacle = find_obstacle(self.known, weights, self.made_with)

    def measure(self, probabilities: torch.Tensor, ml: float, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The numbers of each region whose mask is not empty.

        Args:
            probabilities: [K, ...].
            ml: volume of a voxel.
            metadata: of the network's output: agreement of views (`scripts.inference.view_agreement`) and features.
        """
        plain = convert_to_tensor(probabilities, track_meta=False)
        shared = {}
        if (features := metadata.get(FEATURES)) is not None and self.features is not None:
            shared["feature_distance"] = measure_distance(self.features, np.asarray(features, float).reshape(-1))
        views = {kind: np.asarray(metadata[kind]).reshape(-1) for kind in (MIRRORS, MEMBERS) if kind in metadata}
        found = {}
        maps = zip(
            self.decision.regions, self.decision.region_probabilities(plain), self.decision.masks(plain), strict=True
        )
        for place, (name, probability, mask) in enumerate(maps):
            if bool(mask.any()):
                agreement = {kind: float(values[place]) for kind, values in views.items()}
                numbers = {**measure_region_numbers(probability, mask, ml), **shared, **agreement}
                found[name] = {kind: float(f"{value:.6g}") for kind, value in numbers.items()}
        return found

    def predict(self, numbers: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, Any]]:
        """By region: `value`, `lower`, `patients` that calibrated it, and a `sentence`; the first two may be None."""
        return {name: self._predict_region(name, numbers.get(name)) for name in self.decision.regions}

    def _predict_region(self, name: str, numbers: Mapping[str, float] | None) -> dict[str, Any]:
        if self.obstacle or self.known is None:
            return without_value(self.obstacle)
        own = self.known["regions"].get(name, {"reason": "Not calibrated: this region was not.", "patients": 0})
        return predict_dice(own, numbers)


class MeasureQualityd(Transform):
    """Adds a call that measures the numbers of a mask, under MONAI Label the predicted Dice to its results.

    `pred` of the data has the probabilities [K, ...], on the grid of the prepared image. Counting connected components
    takes longer than a GPU needs for a case: `MaskSaver` measures in the thread that writes the mask.
    """

    def __init__(self, quality: MaskQuality) -> None:
        self.quality = quality

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The data with `measure_numbers`, a call without arguments."""
        image = data["pred"]
        measure = partial(self.quality.measure, image, voxel_ml(image), getattr(image, "meta", {}))
        added = {**data, "measure_numbers": measure}
        if is_served():
            added["result"] = {**added.get("result", {}), "predicted_dice": self.quality.predict(measure())}
        return added


def write_mask_numbers(output_dir: str | os.PathLike, records: MaskRecords, quality: MaskQuality) -> None:
    """Write the numbers of all masks of an evaluation, and the settings that they were made with, for `calibrate`."""
    content = {"made_with": quality.made_with, "cases": records.read_numbers()}
    write_json(Path(output_dir) / NUMBERS, content)
