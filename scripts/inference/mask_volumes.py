"""The volumes of a mask's regions, and their check against those of the training cases' labels.

A network that was trained too little, or sees a scan unlike its own, may segment half of a brain, or nothing: the scan
is sound then, and its mask is not.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Transform

from scripts.data.decision import RegionDecision
from scripts.data.images import voxel_ml
from scripts.data.imperfect_labels import IGNORED, split_raters
from scripts.data.profile import NOTED_FROM, read_profile
from scripts.data.profile_checks import compare_kind
from scripts.data.scan_checks import add_check

KIND = "volume"  # of a number of a profile: `volume WT`, ml


def measure_label_volumes(label: torch.Tensor, decision: RegionDecision, ml: float) -> dict[str, float]:
    """The volume of each region that is not empty, in ml.

    Args:
        label: a prepared label, [K, ...] or [R * K, ...] of several raters, whose mean counts.
        decision: which regions a voxel belongs to.
        ml: volume of a voxel.
    """
    of_raters = split_raters(label, len(decision.values))
    masks = [decision.masks(((own > 0.5) & (own != IGNORED)).float()) for own in of_raters]
    voxels = torch.stack([mask.flatten(1).sum(1) for mask in masks]).double().mean(0)
    return {f"{KIND} {name}": float(count) * ml for name, count in zip(decision.regions, voxels, strict=True) if count}


class CheckVolumesd(Transform):
    """Adds the check of a mask's volumes to the checks of its scan; `pred` of the data is the label map [1, ...].

    A region that no voxel has is compared where every training case has it.

    Args:
        profile: the file of the profile of the training cases; None: nothing is added.
        regions: region name to label values.
    """

    def __init__(self, profile: str | None, regions: Mapping[str, Sequence[int]]) -> None:
        known = read_profile(profile) if profile is not None else None
        self.profile = known if known is not None and known.cases >= NOTED_FROM else None
        self.regions = regions

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The data with one more check, where checks are made and the profile has volumes."""
        if self.profile is None or "checks" not in data:
            return dict(data)
        labels, volumes = data["pred"], {}
        voxels = torch.bincount(labels.flatten().int()).tolist()  # of each label, in one copy from a GPU
        for region, values in self.regions.items():
            name = f"{KIND} {region}"
            volume = sum(voxels[value] for value in values if value < len(voxels)) * voxel_ml(labels)
            if volume or len(self.profile.numbers.get(name, ())) == self.profile.cases:
                volumes[name] = volume
        check = compare_kind(KIND, volumes, self.profile, {})
        return add_check(data, check._replace(place=None)) if check is not None else dict(data)
