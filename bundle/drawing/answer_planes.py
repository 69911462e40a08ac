"""Pictures of one scan with its mask: three planes through the largest lesion, and the diameters of lesions.

Arrays have axes that run to the patient's right, front and top. Pictures are radiological: the patient's right, or
front, is at the left.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from bundle.drawing.axes import outline_mask
from bundle.drawing.slices import OKABE_ITO, encode_figure, intensity_window, to_radiological

PLANES = {"axial": (2, "RLAP"), "coronal": (1, "RLSI"), "sagittal": (0, "APSI")}  # axis; left, right, top, bottom
PIXELS = 480  # per side of a picture
COLOURS = 128
LINES = "#FFFFFF"  # of diameters


def region_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each region."""
    return {name: OKABE_ITO[place % len(OKABE_ITO)] for place, name in enumerate(names)}


class ScanPictures:
    """Draws slices of one channel with the outlines of regions.

    Args:
        scan: [H, W, D].
        regions: name to mask [H, W, D].
        spacing: mm along each axis.
    """

    def __init__(self, scan: np.ndarray, regions: Mapping[str, np.ndarray], spacing: Sequence[float]) -> None:
        self.scan, self.regions, self.spacing = scan, regions, spacing
        self.grey = intensity_window(scan)
        self.colours = region_colours([*regions])

    def draw_plane(self, plane: str, centre: Sequence[int]) -> bytes:
        """A square PNG of one of `PLANES` through a voxel, with all regions."""
        figure, *_ = self._start(plane, centre, self.regions)
        return encode_figure(figure, COLOURS)

    def draw_diameters(self, region: str, lesion: Mapping[str, Any], ends: Sequence[np.ndarray]) -> bytes:
        """A square PNG of a lesion's axial slice, with its region outlined and its two diameters.

        Args:
            region: its name.
            lesion: with `slice`, `diameter_mm` and `perpendicular_mm`.
            ends: of the two lines, each [2, 3] in voxels.
        """
        slice_number = min(max(lesion["slice"], 0), self.scan.shape[2] - 1)
        figure, cell, place = self._start("axial", (0, 0, slice_number), {region: self.regions[region]})
        sizes = lesion["diameter_mm"], lesion["perpendicular_mm"]
        for line, style, mm in zip(ends, ("-", "--"), sizes, strict=True):
            x, y = np.transpose([place(point) for point in line])
            halo = [withStroke(linewidth=3.5, foreground="black")]  # seen on bright tumours too
            cell.plot(x, y, style, color=LINES, linewidth=1.8, label=f"{mm:.1f} mm", path_effects=halo)
        cell.legend(loc="lower left", fontsize=9, framealpha=0.7)
        return encode_figure(figure, COLOURS)

    def _start(self, plane: str, centre: Sequence[int], regions: Mapping[str, np.ndarray]) -> tuple[Figure, Axes, Any]:
        """A figure, its axes in mm, and the function from a voxel's position to it."""
        axis, letters = PLANES[plane]
        across, up = (other for other in range(3) if other != axis)
        picture = to_radiological(self.scan.take(centre[axis], axis=axis))
        width, height = picture.shape[1] * self.spacing[across], picture.shape[0] * self.spacing[up]
        extent = (0.0, width, height, 0.0)
        figure = Figure(figsize=(PIXELS / 100, PIXELS / 100), facecolor="black")
        cell = figure.add_axes((0, 0, 1, 1))
        cell.imshow(picture, cmap="gray", vmin=self.grey[0], vmax=self.grey[1], extent=extent, interpolation="bilinear")
        for name, mask in regions.items():
            outline_mask(
                cell, to_radiological(mask.take(centre[axis], axis=axis)), self.colours[name], 1.6, extent=extent
            )
        side = max(width, height)
        cell.set(xlim=((width - side) / 2, (width + side) / 2), ylim=((height + side) / 2, (height - side) / 2))
        cell.set_axis_off()
        places = ((0.03, 0.5), (0.97, 0.5), (0.5, 0.97), (0.5, 0.03))
        for letter, (x, y) in zip(letters, places, strict=True):
            cell.text(x, y, letter, transform=cell.transAxes, color="white", ha="center", va="center", fontsize=12)

        def place(voxel: np.ndarray) -> tuple[float, float]:
            shape = self.scan.shape
            return (
                (shape[across] - voxel[across] - 0.5) * self.spacing[across],
                (shape[up] - voxel[up] - 0.5) * self.spacing[up],
            )

        return figure, cell, place
