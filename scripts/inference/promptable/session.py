"""Masks of one scan by a promptable model, with the interface of `scripts.inference.click_session.ClickSession`."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from scripts.data.clicks import Click, read_clicks
from scripts.errors import InputError
from scripts.inference.click_session import Correction
from scripts.inference.promptable.prompts import Box


class PromptSegmenter(Protocol):
    """A promptable model on one scan."""

    def segment(self, clicks: Sequence[Click], box: Box | None) -> tuple[np.ndarray, int]:
        """The mask on the scan's own grid, bool [H, W, D], and how often the network was run.

        Args:
            clicks: voxels of the scan; at least one is positive, or there is a box.
            box: of voxels of the scan.
        """


class PromptSession:
    """The masks of regions of one scan, which begin empty: a promptable model finds what is clicked.

    Args:
        segmenter: the model on this scan.
        shape: of the scan, in voxels.
        regions: their names; the model knows none of them, each is what is clicked in it. Empty: any name.
    """

    def __init__(self, segmenter: PromptSegmenter, shape: Sequence[int], regions: Sequence[str] = ()) -> None:
        self.segmenter, self.shape, self.regions = segmenter, tuple(shape), tuple(regions)
        self.masks: dict[tuple[str, str], np.ndarray] = {}  # by annotator and region

    def mask(self, region: str, annotator: str = "") -> np.ndarray:
        """The mask of a region on the scan's own grid, bool, after the annotator's clicks so far."""
        self._require(region)
        found = self.masks.get((annotator, region))
        return np.zeros(self.shape, bool) if found is None else found.copy()

    def click(
        self, region: str, foreground: Any = (), background: Any = (), annotator: str = "", box: Box | None = None
    ) -> Correction:
        """Segment a region by all clicks on it so far, the former ones included, and by a box.

        Every voxel that was clicked is as the clicks say in the mask that comes back.

        Args:
            region: its name.
            foreground: voxels of the scan that belong to it, [[i, j, k], ...], from 0, in the order of its file.
            background: voxels that do not.
            annotator: whose clicks they are.
            box: around the region; with it, no click is needed.

        Raises:
            InputError: the region is unknown, or see `read_prompts`.
        """
        self._require(region)
        clicks = read_prompts(region, foreground, background, box, self.shape)
        found, runs = self.segmenter.segment(clicks, box)
        notes = [_explain(region, click) for click in clicks if found[click.voxel] != click.positive]
        for click in clicks:
            found[click.voxel] = click.positive
        self.masks[annotator, region] = found
        return Correction(found.copy(), notes, runs)

    def _require(self, region: str) -> None:
        if self.regions and region not in self.regions:
            raise InputError(f"there is no region {region}: expected one of {', '.join(self.regions)}.")


def read_prompts(region: str, foreground: Any, background: Any, box: Box | None, shape: Sequence[int]) -> list[Click]:
    """The clicks on a region; there may be none if there is a box.

    Raises:
        InputError: nothing is to be found, or see `scripts.data.clicks.read_clicks`.
    """
    if box is not None and not any(points is not None and len(points) for points in (foreground, background)):
        return []
    clicks = read_clicks(region, foreground, background, shape)
    if box is None and not any(click.positive for click in clicks):
        raise InputError(
            f"all clicks on {region} are background: this model begins with a voxel of the region; click one as"
            " foreground, or give a box."
        )
    return clicks


def _explain(region: str, click: Click) -> str:
    side, other = ("into", "outside") if click.positive else ("out of", "inside")
    return (
        f"The click at {list(click.voxel)} moved this one voxel alone {side} {region}, since the model still takes it"
        f" for {other}: click again next to it, or draw that part."
    )
