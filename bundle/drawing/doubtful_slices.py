"""Pictures of what a check of a scan objected to: a slice of the doubtful channel, and the same slice of another."""

from collections.abc import Mapping
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

from bundle.drawing.axes import mark_sides, outline_mask
from bundle.drawing.slices import OKABE_ITO, encode_figure, intensity_window, to_radiological
from scripts.data.brain_masks import background_value
from scripts.data.images import to_ras

HEIGHT, COLOURS = 3.6, 64  # inches; of the palette
OUTLINE = OKABE_ITO[0]


def draw_doubtful_slice(channels: Mapping[str, np.ndarray], affine: np.ndarray, place: Mapping[str, Any]) -> bytes:
    """A PNG of the slice of a place, by default the middle axial one, with the outline of the other channel's brain.

    Args:
        channels: name to voxels [H, W, D], without a skull.
        affine: 4 x 4, to mm.
        place: `channel`, `axis`, `slice` and `other`, as `scripts.data.check_results.ScanPlace` has them.
    """
    name = place["channel"]
    other = place.get("other") or next((one for one in channels if one != name), name)
    turn = nib.io_orientation(affine)
    spacing = nib.affines.voxel_sizes(affine)[np.argsort(turn[:, 0])]
    axis, number = 2, channels[name].shape[int(np.argmax(turn[:, 0] == 2))] // 2
    if place["axis"] is not None:
        axis, number = int(turn[place["axis"], 0]), place["slice"]
        number = number if turn[place["axis"], 1] > 0 else channels[name].shape[place["axis"]] - 1 - number
    across, up = (spacing[free] for free in range(3) if free != axis)
    names = [name, other] if other != name else [name]
    figure = Figure(figsize=(HEIGHT * len(names), HEIGHT), facecolor="black")
    turned = {one: to_ras(channels[one], affine) for one in names}
    brain = to_radiological((turned[other] != background_value(turned[other])[0]).take(number, axis))
    for cell, one in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        low, high = intensity_window(turned[one])
        cell.imshow(
            to_radiological(turned[one].take(number, axis)), cmap="gray", vmin=low, vmax=high, aspect=up / across
        )
        outline_mask(cell, brain, OUTLINE, 1.2)
        mark_sides(cell, *("AP" if axis == 0 else "RL"))
        cell.set_title(one, color="white", fontsize=11)
        cell.set_axis_off()
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.9, wspace=0.03)
    return encode_figure(figure, COLOURS)
