"""Correction of one scan's regions by clicks: which windows a click runs again, and what the annotator gets back."""

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from monai.utils import convert_to_tensor

from scripts.data.click_channels import ClickChannels, Prompt
from scripts.data.clicks import Click, map_voxel, read_clicks
from scripts.data.decision import RegionDecision
from scripts.errors import InputError
from scripts.inference.click_pieces import set_similar_voxels
from scripts.inference.sliding_window import MirroringSlidingWindowInferer

Windows = dict[tuple[int, ...], tuple[tuple[Click, ...], torch.Tensor]]  # by first voxel: clicks in it, and logits


class Correction(NamedTuple):
    """A region after a click.

    Attributes:
        mask: on the scan's own grid, bool, [...]; every voxel that was clicked is as the clicks say. Nested regions
            stay nested: see `ClickSession.mask`.
        notes: a sentence for each click that the network itself did not follow, which says what was set.
        windows: how many the network was run on.
    """

    mask: np.ndarray
    notes: list[str]
    windows: int


class RegionState(NamedTuple):
    """What a session keeps of a region.

    Attributes:
        clicks: on the scan, in their order.
        windows: those with clicks.
        mask: on the prepared grid, [...].
        inverted: the mask on the scan's grid, before single voxels that were clicked are set.
        grown: of the clicks that the network did not follow, how many similar voxels were set.
    """

    clicks: list[Click]
    windows: Windows
    mask: torch.Tensor
    inverted: np.ndarray
    grown: dict[Click, int]


class ClickSession:
    """The automatic masks of one prepared scan, and their correction by clicks, region by region.

    A window without a click has its automatic logits; one with clicks is run with them and with the region's mask from
    before the last of them. So a click runs those windows alone that it lies in. Where regions overlap and the network
    does not follow a click, the connected voxels around it of similar intensity and logit are set. Clicks on one region
    also change the others, so that the masks of an annotator fit together (`mask`). All windows of the scan are kept in
    memory, K channels in float32: 0.4 GiB for 18 windows of 128 voxels per side and three regions.

    Args:
        case: as `preprocessing` returns it, with `image` [C, ...].
        network: trained by the recipe `clicks`.
        inferer: of the network, with its `ClickChannels`; the session has its own copy.
        preprocessing: the transform that has prepared the case, which is inverted.
        decision: which regions a voxel belongs to, of probabilities.
        device: of the network.

    Raises:
        InputError: the network takes no clicks.
    """

    def __init__(
        self,
        case: Mapping[Hashable, Any],
        network: Callable,
        inferer: MirroringSlidingWindowInferer,
        preprocessing: Compose,
        decision: RegionDecision,
        device: str | torch.device = "cpu",
    ) -> None:
        if not isinstance(inferer.window_channels, ClickChannels):
            raise InputError("this network takes no clicks: train one with the recipe clicks.")
        if isinstance(network, torch.nn.Module):
            network.eval()
        self.case, self.network, self.decision, self.device = dict(case), network, decision, device
        self.inferer, self.channels = copy.copy(inferer), copy.copy(inferer.window_channels)
        self.inferer.window_channels, self.inferer.kept = self.channels, self
        self.inferer.observer = self.inferer.agreement = None
        self.invert = Invertd("pred", preprocessing, "image", nearest_interp=False, to_tensor=True)
        self.automatic: Windows = {}
        self.corrected: Windows = {}  # of the region that is clicked
        self.runs = 0
        self.grown: dict[Click, int] = {}  # of the last run, by the click in the prepared image
        masks, inverted = self._run(None)
        self.inferer.auto = self.inferer.auto_batch = False  # the windows stay as the first run has found them
        self.affine = np.asarray(inverted.affine)
        on_scan = decision.masks(convert_to_tensor(inverted, track_meta=False)).numpy(force=True)
        self.start = {
            name: RegionState([], {}, mask, own, {})
            for name, mask, own in zip(self.channels.regions, masks, on_scan, strict=True)
        }
        self.states: dict[tuple[str, str], RegionState] = {}  # by annotator and region

    def mask(self, region: str, annotator: str = "") -> np.ndarray:
        """The mask of a region on the scan's own grid, bool, after the annotator's clicks so far.

        What clicks have added to a region is in all regions that contain it (ET in TC and WT), and in none that shares
        no label with it; what they have removed is in no region that it contains. Where clicks on two regions
        contradict each other, those on the region that was clicked last decide. Automatic masks are nested as in the
        label map that is saved: what is in a region is in those that contain it.
        """
        self._state(region, annotator)
        labels, start = self.decision.regions, self.start
        masks = {
            name: np.logical_or.reduce([start[inner].inverted for inner in start if labels[inner] <= labels[name]])
            for name in start
        }
        clicked = [(name, state) for (owner, name), state in self.states.items() if owner == annotator]
        for name, state in clicked:  # in the order of their last clicks
            own = _with_clicks(state)
            changed = own != start[name].inverted
            for click in state.clicks:
                changed[click.voxel] = True
            for other, mask in masks.items():
                if labels[name] <= labels[other]:
                    mask |= changed & own
                if labels[other] <= labels[name]:
                    mask &= ~changed | own
                if not labels[name] & labels[other]:
                    mask &= ~(changed & own)
        return masks[region]

    def click(self, region: str, foreground: Any = (), background: Any = (), annotator: str = "") -> Correction:
        """Correct a region by all clicks on it so far, the former ones included; without one of those it starts anew.

        New clicks that come together are answered by a single run.

        Args:
            region: its name.
            foreground: voxels of the scan that belong to it, [[i, j, k], ...], from 0, in the order of its file.
            background: voxels that do not.
            annotator: whose clicks they are; those of others remain.

        Raises:
            InputError: the region is unknown, or see `scripts.data.clicks.read_clicks`.
        """
        state = self._state(region, annotator)
        given = read_clicks(region, foreground, background, state.inverted.shape)
        if not {*state.clicks} <= {*given}:
            state = self.start[region]
        new = [click for click in given if click not in state.clicks]
        clicks, before = [*state.clicks, *new], self.runs
        places = {click: self._map(click) for click in clicks}
        if any(places[click] for click in new):
            self.channels.prompt = Prompt(
                self.channels.regions.index(region), tuple(filter(None, places.values())), state.mask
            )
            self.corrected = dict(state.windows)
            number = self.channels.prompt.region
            masks, inverted = self._run(self.channels.prompt)
            on_scan = self.decision.masks(convert_to_tensor(inverted, track_meta=False))
            own = on_scan[number if self.decision.by_class else 0].numpy(force=True)
            grown = {click: self.grown[place] for click, place in places.items() if place in self.grown}
            state = RegionState(clicks, self.corrected, masks[number], own, grown)
        self.states.pop((annotator, region), None)  # so that the region that was clicked last comes last
        self.states[annotator, region] = state = state._replace(clicks=clicks)
        notes = [
            self._explain(region, click, places[click] is None, state.grown.get(click, 0))
            for click in clicks
            if click in state.grown or state.inverted[click.voxel] != click.positive
        ]
        return Correction(self.mask(region, annotator), notes, self.runs - before)

    def find(self, start: Sequence[int], size: Sequence[int]) -> torch.Tensor | None:
        """The logits of a window whose clicks have not changed; see `KeptWindows`."""
        clicks = self.channels.reaching(start, size)
        known = (self.corrected if clicks else self.automatic).get(tuple(start))
        return known[1] if known and known[0] == clicks else None

    def keep(self, start: Sequence[int], size: Sequence[int], logits: torch.Tensor) -> None:
        """Remember the logits of a window; see `KeptWindows`."""
        clicks = self.channels.reaching(start, size)
        (self.corrected if clicks else self.automatic)[tuple(start)] = (
            clicks,
            logits.clone(),
        )  # MONAI weights the windows in place
        self.runs += 1

    def _state(self, region: str, annotator: str) -> RegionState:
        if region not in self.start:
            raise InputError(f"there is no region {region}: expected one of {', '.join(self.start)}.")
        return self.states.get((annotator, region), self.start[region])

    @torch.no_grad()
    def _run(self, prompt: Prompt | None) -> tuple[torch.Tensor, MetaTensor]:
        """The masks [R, ...] on the prepared grid, and the probabilities [K, ...] on the scan's grid.

        Of these only that of the region clicked, [1, ...], where each region has its own: it is half of a click's time.
        """
        self.channels.prompt = prompt
        image = self.case["image"]
        inputs = convert_to_tensor(image, track_meta=False).float()[None].to(self.device)
        logits = convert_to_tensor(self.inferer(inputs, self.network), track_meta=False)[0]
        self.grown = {}
        if prompt is not None and not self.decision.by_class:
            self.grown = set_similar_voxels(image, prompt, logits[prompt.region], self.channels.radius)
        probabilities = (logits.softmax(0) if self.decision.by_class else logits.sigmoid()).cpu()
        wanted = probabilities if prompt is None or self.decision.by_class else probabilities[[prompt.region]]
        inverted = self.invert({**self.case, "pred": MetaTensor(wanted, meta=image.meta)})["pred"]
        return self.decision.masks(probabilities), inverted

    def _map(self, click: Click) -> Click | None:
        """The click in voxels of the prepared image; None if it lies outside it."""
        image = self.case["image"]
        place = map_voxel(click.voxel, self.affine, np.asarray(image.affine), image.shape[1:])
        return None if place is None else click._replace(voxel=place)

    def _explain(self, region: str, click: Click, outside: bool, grown: int) -> str:
        """What was done with a click that the network did not follow."""
        side = "into" if click.positive else "out of"
        if grown:
            return (
                f"The click at {list(click.voxel)} moved {grown} connected voxels of similar intensity {side} {region},"
                f" since the network still takes it for {'background' if click.positive else region}."
            )
        if outside:
            reason = "it lies in the background around the patient, which the network does not see"
        else:
            reason = f"the network still takes it for {'background' if click.positive else region}"
        return (
            f"The click at {list(click.voxel)} moved this one voxel alone {side} {region}, since {reason}: click again"
            " next to it, or draw that part."
        )


def _with_clicks(state: RegionState) -> np.ndarray:
    mask = state.inverted.copy()
    for click in state.clicks:
        mask[click.voxel] = click.positive
    return mask
