"""Slices of cases in grey, with outlines of their labels.

Arrays come in RAS: the first axis runs to the patient's right, the second to the front, the third up. Pictures are
radiological: axial slices, front at the top, the patient's right on the left. A case is a dict,

    {"case": name, "image": [C, H, W, D] or one [H, W, D] a channel, "label": [H, W, D] or None, "spacing": mm by axis}

or the same without D. The spacing is None where there is none; "background" is the label's value outside, if not 0.
Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color), which colour-blind readers can tell apart.
"""

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from textwrap import wrap
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image as Picture

from bundle.drawing.axes import mark_sides, outline_mask
from scripts.data.images import bounding_box, voxel_size
from scripts.errors import InputError
from scripts.files import atomic_write
from scripts.progress import progress_bar

OKABE_ITO = ("#56B4E9", "#009E73", "#D55E00", "#F0E442", "#CC79A7", "#E69F00", "#0072B2")
MOST_CASES = 24  # on one sheet, at most
MOST_PREDICTIONS = 3
CELL = 1.7  # inches per side
TITLES = 1.9  # inches left of the rows, for their titles
MARGIN = 1.0  # inches above the rows, for title, legend and channel names
DPI = 100
ROOM = 2  # voxels shown around the foreground

Item = TypeVar("Item")


def evenly_spaced(items: Sequence[Item], most: int = MOST_CASES) -> list[Item]:
    """At most `most` of the items, evenly spaced from the first to the last."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))]


def tumour_slice(label: np.ndarray | None, depth: int = 1, background: int = 0) -> int:
    """The axial slice of a label [H, W, D] with most foreground; the middle one if there is none."""
    if label is None or not np.any(label != background):
        return (depth if label is None else label.shape[-1]) // 2
    return int(np.argmax((label != background).sum((0, 1))))


def intensity_window(image: np.ndarray) -> tuple[float, float]:
    """The 1st and 99th percentile of the voxels that are not 0: the intensities to show as black and white."""
    seen = image[image != 0]
    low, high = np.percentile(seen, [1, 99]) if seen.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))


def label_colours(labels: Mapping[str, int]) -> dict[int, str]:
    """A colour for each label value, the same for the same labels."""
    return {value: OKABE_ITO[i % len(OKABE_ITO)] for i, value in enumerate(sorted(labels.values()))}


def format_volume(label: np.ndarray, spacing: Sequence[float] | None, background: int = 0) -> str:
    """The size of the foreground: "12.3 ml", or "4.5 cm²" in 2D, with `spacing` in mm; "67 px" without."""
    count = np.count_nonzero(label != background)
    if spacing is None:
        return f"{count} px"
    return f"{count * voxel_size(spacing) / 10 ** len(spacing):.1f} {'cm²' if len(spacing) == 2 else 'ml'}"


class CaseView:
    """The slice of a case with most of its label, cropped to the brain; small enough to send to another process.

    Args:
        case: see above.
        masks: the keys of its masks.
        title: None: its name and the size of its label.
    """

    def __init__(self, case: Mapping[str, Any], masks: Sequence[str] = ("label",), title: str | None = None):
        if title is None:
            title = f"{_wrap(case['case'])}\n{'no label' if case.get('label') is None else _amount(case, 'label')}"
        image = [np.atleast_3d(channel) for channel in case["image"]]
        found = {name: None if case.get(name) is None else np.atleast_3d(case[name]) for name in masks}
        mask = next((mask for mask in found.values() if mask is not None), None)
        k = tumour_slice(mask, image[0].shape[-1], case.get("background", 0))
        seen = np.any([channel[..., k] != 0 for channel in image], axis=0)
        cut = (*bounding_box(seen, (ROOM, ROOM)), k)
        depth = image[0].shape[-1]
        self.volume = depth > 1 and case["spacing"] is not None
        self.title = f"{title}\nslice {k + 1}/{depth} from below" if self.volume else title
        self.image = [to_radiological(channel[cut]) for channel in image]
        self.windows = [intensity_window(channel) for channel in image]
        self.masks = {name: None if mask is None else to_radiological(mask[cut]) for name, mask in found.items()}
        wide, high = (case["spacing"] or (1.0, 1.0))[:2]
        self.aspect = float(high / wide)  # of a voxel
        self.shape = self.image[0].shape[1] / self.image[0].shape[0] / self.aspect  # width by height


def draw_contact_sheet(
    cases: Iterable[Mapping[str, Any] | CaseView],
    path: str | os.PathLike,
    channels: Sequence[str],
    labels: Mapping[str, int],
    of: int | None = None,
    title: str = "",
) -> None:
    """Write a PNG with one row per case and one column per channel, which shows swapped channels or labels.

    Each row is the slice with most tumour, the labels outlined, with the name of the case, the size of its label and
    the number of the slice; R and L are the patient's sides.
    Of a sequence at most 24 cases spread evenly are drawn; of a generator the first 24, one in memory at a time:
    `contact_sheet(map(load, evenly_spaced(entries)), ..., of=len(entries))`. The title ends in "24 of 1251 cases", of
    which the second number is `of`. Raises InputError where the file cannot be written.
    """
    if isinstance(cases, Sequence):
        of = of or len(cases)
        cases = evenly_spaced(cases)
    shown = progress_bar(islice(cases, MOST_CASES), desc="drawing", unit="case")
    views = [case if isinstance(case, CaseView) else CaseView(case) for case in shown]
    heading = f"{title}{': ' if title else ''}{len(views)} of {of or len(views)} cases"
    figure, axes = _grid(views, channels, [], heading, labels)
    for cells, view in zip(axes, views, strict=True):
        for cell in cells:
            outline_labels(cell, view.masks["label"], label_colours(labels))
    save_figure(figure, path)


def draw_predictions(
    cases: Iterable[Mapping[str, Any]],
    path: str | os.PathLike,
    channels: Sequence[str],
    labels: Mapping[str, int],
    title: str = "",
) -> None:
    """Write a PNG with the channels, the label and the prediction of the first three cases, one row each.

    A case holds a "prediction" as well, of the form of the label. Raises InputError where the file cannot be written.
    """
    views = []
    for case in islice(cases, MOST_PREDICTIONS):
        amounts = [
            f"{name} {_amount(case, key)}"
            for name, key in (("label", "label"), ("predicted", "prediction"))
            if case.get(key) is not None
        ]
        views.append(CaseView(case, ("label", "prediction"), "\n".join([_wrap(case["case"]), *amounts])))
    figure, axes = _grid(views, channels, ["label", "prediction"], title, labels)
    for cells, view in zip(axes, views, strict=True):
        for cell, (name, mask) in zip(cells[-2:], view.masks.items(), strict=True):
            if mask is None:
                place = {"ha": "center", "va": "center", "transform": cell.transAxes}
                cell.text(0.5, 0.5, f"no {name}", color="white", backgroundcolor="black", fontsize=11, **place)
            else:
                fill_labels(cell, mask, label_colours(labels), 0.75, aspect=view.aspect)
    save_figure(figure, path)


def _amount(case: Mapping[str, Any], key: str) -> str:
    return format_volume(case[key], case["spacing"], case.get("background", 0))


def _wrap(name: str) -> str:
    return "\n".join(wrap(name, 26))


def to_radiological(array: np.ndarray) -> np.ndarray:
    """A slice [right, front] as [row from the front, column from the right side]; a copy, so that the volume can go.

    Other planes likewise: [right or front, front or up] as [row from the top, column].
    """
    return array[::-1, ::-1].T.copy()


def _grid(
    views: Sequence[CaseView], channels: Sequence[str], masks: Sequence[str], title: str, labels: Mapping[str, int]
) -> tuple[Figure, np.ndarray]:
    """A figure with the channels of a view in each row, the last one again for each mask; title and legend above."""
    if not views:
        raise InputError("there is no case to draw: give at least one.")
    columns = [*channels, *masks]
    across = CELL * min(max(view.shape for view in views), 1.5)
    wide, high = TITLES + across * len(columns), MARGIN + CELL * len(views)
    figure = Figure(figsize=(wide, high), facecolor="white")
    axes = figure.subplots(len(views), len(columns), squeeze=False)
    figure.subplots_adjust(TITLES / wide, 0.02 / high, 1 - 0.02 / wide, 1 - MARGIN / high, 0.03, 0.03)
    figure.suptitle(title, x=0.1 / wide, y=1 - 0.1 / high, ha="left", va="top", fontsize=13)
    patches = [Patch(color=label_colours(labels)[value], label=f"{value} {name}") for name, value in labels.items()]
    place = {"loc": "upper left", "bbox_to_anchor": (0.05 / wide, 1 - 0.35 / high)}
    figure.legend(handles=patches, ncols=len(patches), frameon=False, **place)
    for cell in axes.flat:
        cell.set(xticks=[], yticks=[], facecolor="black")
    for cell, name in zip(axes[0], columns, strict=True):
        cell.set_title(name, fontsize=12, pad=4)
    for cells, view in zip(axes, views, strict=True):
        if view.volume:
            mark_sides(cells[0], "R", "L")
        cells[0].set_ylabel(view.title, rotation=0, ha="right", va="center", fontsize=10, labelpad=6)
        for cell, k in zip(cells, [*range(len(view.image)), *[-1] * len(masks)], strict=True):
            channel, (low, high) = view.image[k], view.windows[k]
            channel = np.where(channel == 0, low, channel)  # background is black in images with values below 0 too
            cell.imshow(channel, cmap="gray", vmin=low, vmax=high, aspect=view.aspect, interpolation="nearest")
    return figure, axes


def outline_labels(cell: Axes, label: np.ndarray | None, palette: Mapping[int, str]) -> None:
    """Draw each label's outline just inside it and the smallest last, so that neighbours do not hide each other."""
    masks = [] if label is None else [(label == value, colour) for value, colour in palette.items()]
    for mask, colour in sorted(masks, key=lambda pair: -pair[0].sum()):
        outline_mask(cell, mask, colour, 1.3, level=0.8, closed=False)


def fill_labels(cell: Axes, label: np.ndarray, palette: Mapping[int, str], alpha: float, **place: Any) -> None:
    """Fill each value of a label [row, column] with its colour; `place` is the aspect or extent of `imshow`."""
    painted = np.zeros((*label.shape, 4))
    for value, colour in palette.items():
        painted[label == value] = to_rgba(colour, alpha)
    cell.imshow(painted, interpolation="nearest", **place)


def encode_figure(figure: Figure, most: int, method: Picture.Quantize | None = None) -> bytes:
    """A figure as PNG with a palette of at most `most` colours, small enough for a page with many."""
    drawn, encoded = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    with Picture.open(drawn) as picture:
        few = picture.convert("RGB").quantize(most, method, dither=Picture.Dither.NONE)
    few.save(encoded, format="png", optimize=True)
    return encoded.getvalue()


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png", bbox_inches="tight")  # long names widen it
