"""Simulated clicks on the errors of the network that is trained, so that it learns to follow those of an annotator.

As in RITM (Sofiiuk et al. 2022): the network is run without a gradient, a click is placed in the middle of the largest
error of its mask, and again with that click and that mask as input; only the last run is learned from. Some clicks are
on pieces that the annotator takes for another label than the label's (`scripts.training.click_disputes`); these come
first, and the loss is of the annotator's label.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.utils import CommonKeys

from scripts.data.click_channels import ClickChannels, Prompt
from scripts.data.clicks import Click
from scripts.data.decision import RegionDecision
from scripts.data.images import bounding_box, connected_components, deepest_voxel
from scripts.data.imperfect_labels import IGNORED
from scripts.errors import InputError
from scripts.network.outputs import read_logits
from scripts.network.precision import PrecisionInferer
from scripts.network.weights import unwrap_ddp
from scripts.training.click_disputes import draw_dispute


def find_next_click(mask: np.ndarray, truth: np.ndarray) -> Click | None:
    """The voxel furthest inside the largest connected component of the errors of a mask; None without errors.

    Of the components of missing voxels and of those of excess voxels; a missing one of the same size comes first.

    Args:
        mask: bool, [...].
        truth: as the mask.
    """
    found, box = [], bounding_box(mask != truth, [0] * mask.ndim)
    inner, true = mask[box], truth[box]
    for errors, positive in ((true & ~inner, True), (inner & ~true, False)):
        numbered, sizes = connected_components(errors)
        if sizes.size:
            found.append((int(sizes.max()), positive, numbered == 1 + int(sizes.argmax())))
    if not found:
        return None
    _, positive, component = max(found, key=lambda item: item[:2])
    voxel = deepest_voxel(component, [1.0] * mask.ndim)
    return Click(tuple(place + (side.start or 0) for place, side in zip(voxel, box, strict=True)), positive)


class ClickSimulation(PrecisionInferer):
    """An inferer for training that adds the channels of clicks, attached to the trainer as a handler as well.

    A patch draws, from its own seed, whether it gets clicks, how many, and an order of the regions, the first of which
    with errors is clicked. In other calls than a step of the trainer no patch has clicks.

    Args:
        channels: the encoding of clicks.
        decision: which regions a voxel belongs to, of logits.
        share: of the patches with clicks, 0 to 1.
        most: clicks on a patch; each number from 1 is as likely.
        half: as in `PrecisionInferer`.
        disputes: share of the clicks on disputed pieces, 0 to 1.

    Raises:
        InputError: `share`, `most` or `disputes` is out of range.
    """

    def __init__(
        self,
        channels: ClickChannels,
        decision: RegionDecision,
        share: float,
        most: int,
        half: str | None = None,
        disputes: float = 0.0,
    ) -> None:
        super().__init__(half)
        for name, given, of in (("click_share", share, "patches"), ("dispute_share", disputes, "clicks")):
            if not 0 <= given <= 1:
                raise InputError(f"{name} is {given}: expected a share of the {of}, from 0 to 1.")
        if not isinstance(most, int) or most < 1:
            raise InputError(f"most_clicks is {most}: expected a whole number of clicks on a patch, 1 or more.")
        self.channels, self.decision, self.share, self.most = channels, decision, share, most
        self.disputes = disputes
        self.engine: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Take labels and seeds from the steps of the trainer."""
        self.engine = engine

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Logits of inputs [B, C, ...], without the channels of clicks."""
        guidance = inputs.new_zeros(len(inputs), self.channels.guides, *inputs.shape[2:])
        step = self.engine.state.output if self.engine else None
        if isinstance(step, dict) and step[CommonKeys.IMAGE] is inputs:
            assert self.engine is not None
            assert isinstance(network, torch.nn.Module)
            self._simulate(guidance, inputs, network, step[CommonKeys.LABEL], self.engine.state.batch["seed"].tolist())
        return super().__call__(torch.cat([inputs, guidance], 1), network, *args, **kwargs)

    def draw(self, seed: int) -> tuple[list[int], int]:
        """Of the patch of a seed: its regions, the first of which with errors is clicked, and the number of clicks."""
        rng = np.random.default_rng([seed, 3])  # 2 draws the rater
        number = int(rng.integers(1, self.most + 1)) if rng.random() < self.share else 0
        return rng.permutation(len(self.channels.regions)).tolist(), number

    @torch.no_grad()
    def _simulate(
        self,
        guidance: torch.Tensor,
        inputs: torch.Tensor,
        network: torch.nn.Module,
        label: torch.Tensor,
        seeds: list[int],
    ) -> None:
        """Fill in the guidance [B, G, ...] of each patch, click after click; disputes change its label."""
        draws, axes = [self.draw(seed) for seed in seeds], inputs.dim() - 2
        waiting = [row for row, (_, number) in enumerate(draws) if number]
        if not waiting:
            return
        prompts: dict[int, Prompt] = {}
        disputed = {row: self._dispute(seeds[row], *draws[row], inputs[row], label[row]) for row in waiting}
        truths = self.decision.masks(label - 0.5, axis=1)  # of shares of raters too
        ignored = (label == IGNORED).any(1).numpy(force=True)
        plain, training = unwrap_ddp(network), network.training  # the processes of DDP would wait for each other
        plain.eval()
        while waiting:
            rows = waiting * 2 if len(waiting) == 1 and inputs.is_cpu else waiting  # torch is slow with one small patch
            given = torch.cat([inputs[rows], guidance[rows]], 1)
            masks = self.decision.masks(read_logits(super().__call__(given, plain), axes), axis=1)
            left = []
            for own, row in zip(masks, waiting, strict=False):
                former, (regions, number) = prompts.get(row), draws[row]
                clicks = former.clicks if former else ()
                for region in [former.region] if former else disputed[row] or regions:
                    mask, truth = (every[region].numpy(force=True) & ~ignored[row] for every in (own, truths[row]))
                    for click in clicks:  # a voxel that was clicked is no error, whatever the network answers
                        mask[click.voxel] = click.positive
                    new = () if former else tuple(disputed[row].get(region, ()))
                    if not new and (following := find_next_click(mask, truth)) is not None:
                        new = (following,)
                    if new:
                        prompts[row] = Prompt(region, (*clicks, *new), own[region].cpu())
                        guidance[row] = self.channels.guide(prompts[row], [0] * axes, inputs.shape[2:]).to(guidance)
                        left += [row] if len(clicks) + len(new) < number else []
                        break
            waiting = left
        plain.train(training)
        torch.clear_autocast_cache()  # or an outer autocast would reuse weights that were cast without a gradient

    def _dispute(
        self, seed: int, regions: list[int], number: int, image: torch.Tensor, label: torch.Tensor
    ) -> dict[int, list[Click]]:
        """Change the label [K, ...] of a patch where its annotator disagrees: the clicks there, by their region."""
        rng = np.random.default_rng([seed, 4])
        wanted = rng.binomial(number, self.disputes)
        scan = image[: self.channels.scan_channels(len(image))].numpy(force=True)
        locked = (label == IGNORED).any(0).numpy(force=True)
        for region in regions if wanted else ():
            clicks: list[Click] = []
            for _ in range(2 * wanted):  # half of the places drawn may be in the background
                mask = self.decision.masks(label - 0.5)[region].numpy(force=True)
                found = draw_dispute(scan, mask, locked, rng) if len(clicks) < wanted else None
                if found is not None:
                    found.apply(label)
                    locked[found.voxels] = True
                    clicks.append(found.click)
            if clicks:
                return {region: clicks}
        return {}
