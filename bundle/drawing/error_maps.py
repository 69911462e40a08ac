"""Maps of errors over the brain: the share of patients with an error, projected onto three planes.

A projection shows the cell of its line of sight in which most patients have an error. Planes are radiological: front or
top at the top, the patient's right, or front, at the left.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from bundle.drawing.axes import mark_sides, outline_mask
from bundle.drawing.planes import COLOURS, PLANES, SIDES
from bundle.drawing.slices import encode_figure, to_radiological

CELL = 2.2  # inches per side of a projection


def draw_error_maps(shares: Mapping[str, np.ndarray], brain: np.ndarray, size: Sequence[float]) -> bytes:
    """A PNG with one row per kind of error and one column per plane.

    Args:
        shares: by kind of error, [cell, cell, cell] in RAS, the share of patients.
        brain: of the same shape, the share of each cell that is brain; its outline is drawn.
        size: of the box, in mm.
    """
    figure = Figure(figsize=(CELL * 3.5, CELL * len(shares)), facecolor="black", layout="constrained")
    axes = figure.subplots(len(shares), len(PLANES), squeeze=False)
    top = max(float(share.max()) for share in shares.values()) or 1.0
    for cells, (kind, share) in zip(axes, shares.items(), strict=True):
        for cell, (plane, axis) in zip(cells, PLANES.items(), strict=True):
            across, up = (size[a] for a in range(3) if a != axis)
            extent = (0.0, across, up, 0.0)
            drawn = cell.imshow(
                100 * to_radiological(share.max(axis)), "inferno", vmin=0, vmax=100 * top, extent=extent
            )
            outline_mask(cell, to_radiological(brain.max(axis)) > 0.5, "#bbbbbb", 1.0, extent=extent)
            cell.set(xticks=[], yticks=[], title=f"{kind}, {plane}" if cell is cells[0] else plane)
            cell.title.set(color="white", fontsize=9)
            mark_sides(cell, *SIDES[plane])
            for spine in cell.spines.values():
                spine.set_visible(False)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("% of patients", color="white", fontsize=9)
    bar.ax.tick_params(colors="white", labelsize=8)
    return encode_figure(figure, COLOURS)
