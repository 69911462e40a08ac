"""The page of patches as the network sees them."""

import itertools
import os
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D

from bundle.cohort.fingerprint import Choice
from bundle.drawing.axes import cut_name
from bundle.drawing.page_parts import CELL, draw_heading, turn_slice
from bundle.drawing.slices import OKABE_ITO, intensity_window, outline_labels, save_figure, tumour_slice

ACROSS = 16  # letters of a line left of a patch, the widest of which fit


def write_patch_page(
    path: str | os.PathLike,
    patches: Sequence[Mapping[str, Any]],
    channels: Sequence[str],
    regions: Sequence[str],
    choice: Choice,
    upright: bool = False,
) -> None:
    """Write patches as the network sees them: one row per patch, one column per channel, regions outlined.

    A patch is a dict with its case, image [C, ...] and label [R, ...], after augmentation; `choice` is the
    normalisation that it has, and `upright` as in `write_normalization_pages`. Each channel has one grey scale on the
    whole page, which leaves out the background. Raises InputError where the file cannot be written.
    """
    across = max(1, round(np.sqrt(1.5 * len(patches) / (len(channels) + 0.85))))  # a page somewhat wider than high
    rows = -(-len(patches) // across)
    ratios = [0.85, *[1.0] * len(channels)] * across
    side = np.clip(16 / sum(ratios), CELL, 1.5 * CELL)
    wide, high = side * sum(ratios) + 0.2, 1.25 + side * rows
    figure = Figure(figsize=(wide, high), facecolor="white")
    inside = [patch["label"].any(axis=tuple(range(1, patch["label"].ndim))) for patch in patches]
    held = np.sum(inside, axis=0)
    draw_heading(
        figure,
        f"patches as the network sees them: {' by '.join(choice)}, cut and augmented",
        "One grey scale per channel. Of 3D patches, the slice with most of the label. Sides are not marked, since"
        " augmentation may mirror a patch.",
    )
    palette = dict(zip(range(len(regions)), itertools.cycle(OKABE_ITO)))
    handles = [
        Line2D([], [], color=palette[k], lw=2, label=f"{name}, in {held[k]} of {len(patches)}")
        for k, name in enumerate(regions)
    ]
    place = {"loc": "upper left", "bbox_to_anchor": (0.02 / wide, 1 - 0.6 / high)}
    figure.legend(handles=handles, ncols=len(handles), frameon=False, fontsize=9, **place)
    place = {"left": 0.1 / wide, "right": 1 - 0.1 / wide, "top": 1 - 1.15 / high, "bottom": 0.1 / high}
    grid = GridSpec(rows, len(ratios), figure, width_ratios=ratios, wspace=0.03, hspace=0.03, **place)
    greys = [
        intensity_window(np.concatenate([np.ravel(patch["image"][number]) for patch in patches]))
        for number in range(len(channels))
    ]
    for count, patch in enumerate(patches):
        row, first = count % rows, count // rows * (len(channels) + 1)
        names = figure.add_subplot(grid[row, first])
        names.axis("off")
        held_here = " ".join(np.array(regions)[inside[count]])
        text = "\n".join([*wrap(cut_name(patch["case"], 3 * ACROSS), ACROSS), *wrap(held_here, ACROSS)])
        names.text(0.96, 0.5, text, ha="right", va="center", fontsize=7.5)
        image, label = (array if array.ndim == 4 else array[..., None] for array in (patch["image"], patch["label"]))
        k = tumour_slice(label.any(0), image.shape[-1])
        for number, grey in enumerate(greys):
            cell = figure.add_subplot(grid[row, first + 1 + number])
            seen = turn_slice(image[number, ..., k], upright)
            cell.imshow(seen, cmap="gray", vmin=grey[0], vmax=grey[1], interpolation="nearest")
            for region, colour in palette.items():
                outline_labels(cell, turn_slice(label[region, ..., k], upright).astype(int), {1: colour})
            cell.set(xticks=[], yticks=[])
            if row == 0:
                cell.set_title(channels[number], fontsize=10, pad=3)
    save_figure(figure, path)
