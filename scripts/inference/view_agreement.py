"""Agreement of the views of a scan, its mirror images and the members of an ensemble, with their mean."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from scripts.data.decision import RegionDecision
from scripts.inference.predicted_dice import MEMBERS, MIRRORS
from scripts.network.ensemble import Ensemble
from scripts.network.outputs import read_logits


class ViewAgreement:
    """Counts, window by window, where the masks of views overlap with the mask of their mean.

    The agreement of a region is 2 |view and mean| / (|view| + |mean|), the Dice, summed over windows and views; NaN
    where neither has a voxel. It takes no further pass of the network.

    Args:
        decision: as for `scripts.data.decision.RegionDecision`, and so are the others.
        regions: region name to label values.
        labels: label name to value.
    """

    def __init__(self, decision: str, regions: Mapping[str, Sequence[int]], labels: Mapping[str, int]) -> None:
        self.decide = RegionDecision(decision, regions, labels, threshold=0.0)
        self.counts: dict[str, torch.Tensor] = {}  # by kind: of each region, twice the overlap and the sum of sizes
        self.seen: list[torch.Tensor] = []  # the masks of members, of the pass that is running

    @contextmanager
    def watch_members(self, network: Any) -> Iterator[None]:
        """Start anew, and keep the masks of each member of an ensemble while it runs."""
        self.counts, self.seen = {}, []
        members = [*network.members] if isinstance(network, Ensemble) else []
        handles = [member.register_forward_hook(self._keep) for member in members]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, member: nn.Module, inputs: tuple, output: Any) -> None:
        self.seen.append(self.decide.masks(read_logits(output, inputs[0].dim() - 2), 1))

    def count_members(self, mean: torch.Tensor) -> None:
        """Compare the members that have run with their mean logits [B, K, ...]."""
        if self.seen:
            self._count(MEMBERS, self.seen, mean)
            self.seen = []

    def count_mirrors(self, views: Iterable[torch.Tensor], mean: torch.Tensor) -> None:
        """Compare the logits of mirrored views, turned back, with their mean; all are [B, K, ...]."""
        self._count(MIRRORS, (self.decide.masks(view, 1) for view in views), mean)

    def _count(self, kind: str, masks: Iterable[torch.Tensor], mean: torch.Tensor) -> None:
        whole = self.decide.masks(mean, 1)
        axes = [axis for axis in range(whole.dim()) if axis != 1]
        for mask in masks:
            found = torch.stack([2 * (mask & whole).sum(axes), mask.sum(axes) + whole.sum(axes)])
            self.counts[kind] = self.counts[kind] + found if kind in self.counts else found

    def as_metadata(self) -> dict[str, torch.Tensor]:
        """The agreement of each region by kind, [1, R]."""
        return {kind: (counts[0] / counts[1])[None].cpu() for kind, counts in self.counts.items()}
