"""Sampling of the rarest regions first: cases that have one, then its voxels."""

import logging
from collections.abc import Sequence

import numpy as np

from scripts.data.patch_dataset import PatchDataset
from scripts.errors import InputError

KEPT_VOXELS = 1000  # of a region in a case, to centre patches on
logger = logging.getLogger(__name__)


class RareFirst:
    """Weights and centres for `EpochSampler` by a hierarchy of regions, rarest first.

    A case counts by the first region of the hierarchy that it has: its weight is 1 / sqrt(share of the cases with that
    region), as the repeat factor of Gupta et al. 2019 (LVIS); without any region it is 1. A `share` of the patches is
    centred on voxels of that region; the crop chooses the centres of the others.

    Args:
        dataset: of training patches, which keeps `label_indices` (`scripts.data.regions.RegionIndicesd`).
        regions: the names of the regions in `label_indices`.
        hierarchy: names of regions, rarest first; None: counted, by the number of training cases and then of voxels.
        share: of the patches of a case with any region of the hierarchy.
        seed: of the voxels that are kept to choose from.

    Raises:
        InputError: the hierarchy names no region, or the share is not between 0 and 1.
    """

    def __init__(
        self,
        dataset: PatchDataset,
        regions: Sequence[str],
        hierarchy: Sequence[str] | None = None,
        share: float = 0.5,
        seed: int = 0,
    ) -> None:
        if hierarchy is not None and (not hierarchy or not {*hierarchy} <= {*regions}):
            raise InputError(f"hierarchy is {hierarchy}: expected names among {', '.join(regions)}, or null.")
        if not 0 <= share <= 1:
            raise InputError(f"rare_share is {share}: expected a number from 0 to 1.")
        self.dataset, self.regions, self.hierarchy, self.share = dataset, list(regions), hierarchy, share
        self.seed = seed
        self.case_weights: list[float] = []
        self.voxels: list[np.ndarray] = []  # of each case's rarest region

    def weights(self) -> list[float]:
        """The weight of each case; the labels are counted in the first call."""
        if not self.case_weights:
            self._count()
        return self.case_weights

    def centre(self, case: int, random: np.random.Generator) -> int | None:
        """A voxel of the rarest region of the case, in `share` of the calls."""
        self.weights()  # a run that resumes within an epoch asks for centres first
        voxels = self.voxels[case]
        return int(random.choice(voxels)) if len(voxels) and random.random() < self.share else None

    def _count(self) -> None:
        random = np.random.default_rng(self.seed)
        kept, counts = [], []
        for number in range(len(self.dataset)):
            regions = [np.asarray(i) for i in self.dataset.cases.stored_case(number)["label_indices"][1:]]
            counts.append([len(i) for i in regions])
            kept.append([random.choice(i, min(len(i), KEPT_VOXELS), replace=False) for i in regions])
        cases, voxels = (np.array(counts) > 0).sum(0), np.sum(counts, 0)
        order = [self.regions.index(name) for name in self.hierarchy or ()]
        order = order or sorted(range(len(self.regions)), key=lambda region: (cases[region], voxels[region]))
        for own, of_case in zip(kept, counts, strict=True):
            rarest = next((region for region in order if of_case[region]), None)
            self.voxels.append(np.array([], int) if rarest is None else own[rarest])
            self.case_weights.append(1.0 if rarest is None else float(np.sqrt(len(counts) / cases[rarest])))
        found = ", ".join(f"{self.regions[region]} ({cases[region]} of {len(counts)} cases)" for region in order)
        logger.info("regions, rarest first: %s", found)
