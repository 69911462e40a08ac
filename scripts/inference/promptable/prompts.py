"""Clicks and a box on a scan as prompts of its slices, in the coordinates of a model of pictures."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from scripts.data.clicks import Click
from scripts.errors import InputError
from scripts.inference.promptable.planes import SliceView

CORNERS = (2, 3)  # the labels of a box's corners among points, in SAM and SAM 2


class Box(NamedTuple):
    """A box of voxels of the scan.

    Attributes:
        first: the corner with the lowest indices.
        last: the opposite corner, which is in the box.
    """

    first: tuple[int, ...]
    last: tuple[int, ...]


class SlicePrompt(NamedTuple):
    """What is prompted on one slice.

    Attributes:
        clicks: their voxels are row and column.
        box: first and last row and column, (row, column, row, column).
    """

    clicks: tuple[Click, ...] = ()
    box: tuple[int, int, int, int] | None = None

    @property
    def finds(self) -> bool:
        """Whether there is something to find, not only to leave out."""
        return self.box is not None or any(click.positive for click in self.clicks)


def read_box(corners: Any, shape: Sequence[int]) -> Box:
    """A box from six indices: of its first voxel, then of its last, which is in it.

    Args:
        corners: [i, j, k, i, j, k].
        shape: of the scan, in voxels.

    Raises:
        InputError: they are not six numbers, not in order, or outside the scan.
    """
    axes = len(shape)
    try:
        found = np.rint(np.asarray(corners, dtype=float)).ravel()
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.size != 2 * axes or not np.isfinite(found).all():
        raise InputError(
            f"the box is {corners!r}: expected {2 * axes} numbers, the indices of its first voxel and of its last one,"
            " which is in it."
        )
    first, last = (tuple(map(int, corner)) for corner in (found[:axes], found[axes:]))
    if any(low > high for low, high in zip(first, last, strict=True)):
        raise InputError(
            f"the box runs from voxel {list(first)} to {list(last)}: give the lowest index of each axis first, then the"
            " highest."
        )
    if min(first) < 0 or any(high >= length for high, length in zip(last, shape, strict=True)):
        raise InputError(
            f"the box from voxel {list(first)} to {list(last)} reaches outside the scan, which has"
            f" {' x '.join(map(str, shape))} voxels, counted from 0: give one within it."
        )
    return Box(first, last)


def split_prompts(
    view: SliceView, clicks: Sequence[Click], box: Box | None
) -> tuple[dict[int, SlicePrompt], tuple[int, int] | None]:
    """The prompts of each slice, in the order of the clicks, and the first and last slice of the box.

    The middle slice of a box has it as its prompt, and comes first; so has any other slice of the box with clicks.
    """
    by_slice: dict[int, SlicePrompt] = {}
    if box is None:
        edges, limits = None, None
    else:
        corners = sorted(view.place(corner) for corner in box)  # sorted by slice, so that limits are in order
        (_, *ones), (_, *others) = corners
        low, high = np.sort([ones, others], axis=0).tolist()
        edges, limits = (*low, *high), (corners[0][0], corners[1][0])
        by_slice[sum(limits) // 2] = SlicePrompt(box=edges)
    for click in clicks:
        number, row, column = view.place(click.voxel)
        within = limits is not None and limits[0] <= number <= limits[1]
        known = by_slice.get(number, SlicePrompt(box=edges if within else None))
        by_slice[number] = known._replace(clicks=(*known.clicks, Click((row, column), click.positive)))
    return by_slice, limits


def box_of(mask: np.ndarray, margin: float = 0.0) -> tuple[int, int, int, int] | None:
    """The first and last row and column of a slice's mask, grown by a share of its sides; None if it is empty."""
    if not mask.any():
        return None
    places, sides = np.argwhere(mask), np.array(mask.shape)
    grow = np.rint(margin * sides)
    low, high = np.maximum(places.min(0) - grow, 0), np.minimum(places.max(0) + grow, sides - 1)
    row, column, last_row, last_column = map(int, (*low, *high))
    return row, column, last_row, last_column


def to_tensors(
    prompt: SlicePrompt, sides: Sequence[int], size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Points [1, 1, N, 2], labels [1, 1, N] and box [1, 1, 4] (x, y, x, y) in the pixels of a model's square picture.

    A voxel's point is its centre, a box's corners are its outer edges. The models add half a pixel to each, which is
    taken off here.

    Args:
        prompt: of the slice.
        sides: its numbers of rows and columns.
        size: the side of the picture, to which both are stretched.
    """
    scale = torch.tensor([size / sides[1], size / sides[0]])  # x, y
    points = torch.tensor([click.voxel[::-1] for click in prompt.clicks], dtype=torch.float32).reshape(1, 1, -1, 2)
    labels = torch.tensor([[[int(click.positive) for click in prompt.clicks]]], dtype=torch.int32)
    if prompt.box is None:
        return (points + 0.5) * scale - 0.5, labels, None
    row, column, last_row, last_column = prompt.box
    edges = torch.tensor([[column, row], [last_column + 1, last_row + 1]], dtype=torch.float32) * scale - 0.5
    return (points + 0.5) * scale - 0.5, labels, edges.reshape(1, 1, 4)
