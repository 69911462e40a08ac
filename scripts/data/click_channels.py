"""Channels of a window with the clicks on one region, as balls, and the mask that they correct.

Each region has a channel of foreground and one of background clicks: a constant channel that names the region would be
removed by the instance norm after the first convolution. A window in which no click lies has zeros in all of them, as
the patches without clicks have in training, so that it is segmented as without the recipe's clicks.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage

from scripts.data.clicks import Click
from scripts.data.input_channels import WindowChannels
from scripts.data.patch_dataset import cut_box


class Prompt(NamedTuple):
    """What is asked of the network.

    Attributes:
        region: its number.
        clicks: on it, in voxels of the prepared image.
        mask: of the region before the last click, [...].
    """

    region: int
    clicks: tuple[Click, ...]
    mask: torch.Tensor


@lru_cache(maxsize=8)
def ball_profile(radius: int, axes: int) -> torch.Tensor:
    """A ball [2 radius + 1, ...] of depths: 1 in its centre, falling with the distance to its rim, 0 outside.

    The Euclidean distance transform of a ball, as in nnInteractive (Isensee et al. 2025).
    """
    steps = np.indices([2 * radius + 1] * axes) - radius
    depth = ndimage.distance_transform_edt(np.pad((steps**2).sum(0) <= radius**2, 1))
    return torch.from_numpy(depth[(slice(1, -1),) * axes] / depth.max()).float()


class ClickChannels(WindowChannels):
    """The channels of a window's place, and after them those of a prompt.

    Args:
        patch_size: of training, in voxels.
        coordinates: as in `WindowChannels`.
        context: as in `WindowChannels`.
        regions: names, in the order of their channels.
        radius: of the ball around a click, in voxels of the prepared image.

    Attributes:
        prompt: what is asked of the network; None: the automatic mask.
    """

    def __init__(
        self,
        patch_size: Sequence[int],
        coordinates: bool = False,
        context: int = 0,
        *,
        regions: Iterable[str],
        radius: int = 4,
    ) -> None:
        super().__init__(patch_size, coordinates, context)
        self.regions, self.radius = list(regions), radius
        self.prompt: Prompt | None = None

    def __bool__(self) -> bool:
        return True

    @property
    def guides(self) -> int:
        """How many channels a prompt has."""
        return 1 + 2 * len(self.regions)

    def count(self, channels: int) -> int:
        """How many channels a window of an image with this many gets."""
        return super().count(channels) + self.guides

    def scan_channels(self, channels: int) -> int:
        """How many of the channels of a window without clicks are those of the scan, which come first."""
        return (channels - len(self.patch_size) * self.coordinates) // (1 + bool(self.context))

    def __call__(self, image: torch.Tensor, start: Sequence[int], size: Sequence[int]) -> torch.Tensor:
        """The channels [K, *size] of one window, float32; see `WindowChannels`."""
        if self.reaching(start, size):
            guidance = self.guide(self.prompt, start, size).to(image.device)
        else:  # made on the device
            guidance = image.new_zeros((self.guides, *size), dtype=torch.float32)
        return torch.cat([super().__call__(image, start, size), guidance]) if super().__bool__() else guidance

    def reaching(self, start: Sequence[int], size: Sequence[int]) -> tuple[Click, ...]:
        """The clicks of the prompt that lie in a window."""
        return () if self.prompt is None else _within(self.prompt.clicks, start, size)

    def guide(self, prompt: Prompt | None, start: Sequence[int], size: Sequence[int]) -> torch.Tensor:
        """The channels of a prompt [1 + 2 R, *size]: its mask, then foreground and background clicks of each region.

        Args:
            prompt: None: zeros.
            start: the window's first voxel, which may lie outside the image.
            size: of the window, in voxels.
        """
        channels = torch.zeros(self.guides, *size)
        clicks = _within(prompt.clicks, start, size) if prompt else ()
        if prompt and clicks:
            channels[0] = cut_box(prompt.mask[None], start, size)[0]
            ball = ball_profile(self.radius, len(size))
            for click in clicks:
                channel = channels[1 + 2 * prompt.region + (not click.positive)]
                firsts = [place - begin - self.radius for place, begin in zip(click.voxel, start, strict=True)]
                ends = [(max(0, a), min(n, a + len(ball))) for a, n in zip(firsts, size, strict=True)]
                there = tuple(slice(low, high) for low, high in ends)
                own = tuple(slice(low - a, high - a) for (low, high), a in zip(ends, firsts, strict=True))
                channel[there] = torch.maximum(channel[there], ball[own])
        return channels


def _within(clicks: Iterable[Click], start: Sequence[int], size: Sequence[int]) -> tuple[Click, ...]:
    return tuple(
        click
        for click in clicks
        if all(0 <= place - first < length for place, first, length in zip(click.voxel, start, size, strict=True))
    )
