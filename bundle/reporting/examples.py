"""Where was a patient outlined wrongly? Three planes through the worst error, with truth, prediction and what differs.

The worst error is the largest connected part that was missed, or added, and the planes cross where it is thickest. They
are shown as radiologists see them (the patient's right on the left) where the file says how it lies.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from bundle.analysis.evaluation import Evaluation
from bundle.drawing.slices import window
from bundle.reporting.words import amount, share, sign
from scripts.data import datalist as lists
from scripts.data import pictures
from scripts.data.case_checks import air
from scripts.data.images import GridImage, grid_difference, onto_grid, read_labels
from scripts.errors import InputError
from scripts.scoring.prediction_files import find, images_in

TRUTH, PREDICTION = "#56B4E9", "#E69F00"  # sky blue and orange of Okabe and Ito: apart for every kind of colour vision
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # the axis that each looks along, in RAS
PIXELS = 360  # a side of a tile
DETAIL = 0.45  # the side of the detail by that of the overview
COLOURS = 96  # of a tile's palette: grey steps and two colours
RING = 4  # voxels around a region, to which its brightness is compared
AS_SEEN = np.diag([-1.0, -1.0, 1.0, 1.0])  # the affine that shows a picture without one the way it is


@dataclass(frozen=True)
class Tile:
    """One picture: a data URI, and what it shows."""

    source: str
    words: str
    caption: str


@dataclass(frozen=True)
class Example:
    """A patient to look at; `region` and `channel` are what the tiles show, "" without tiles."""

    case: str
    patient: str
    dice: float
    sentences: tuple[str, ...]
    region: str = ""
    channel: str = ""
    tiles: tuple[Tile, ...] = ()


@dataclass(frozen=True)
class Scans:
    """Where the images are: the data list that the evaluation was made with, and the folder of predictions."""

    datalist: Mapping[str, Any]
    dataset_dir: Path
    predictions: Path


def open_scans(
    evaluation: Evaluation, datalist: str, dataset_dir: str | None = None, predictions: str | None = None
) -> Scans:
    """Find the images behind an evaluation.

    Raises:
        InputError: the data list is not the one that was judged, or the predictions are not there.
    """
    content = lists.read(datalist)
    judged = evaluation.judged.get("datalist")
    if judged and judged != lists.list_hash(content):
        raise InputError(
            f"{datalist} is not the data list that {evaluation.folder} was judged with: give that one, or judge again."
        )
    if unknown := [region for region in evaluation.regions if region not in content["regions"]]:
        raise InputError(f"{datalist} has no region {unknown[0]}: give the data list that was judged.")
    folder = predictions or evaluation.judged.get("predictions")
    if not folder or not Path(folder).is_dir():
        raise InputError(
            f"the predictions {folder or ''} are not there: give their folder with --predictions, or leave out"
            " --datalist to report without pictures."
        )
    return Scans(content, Path(dataset_dir or Path(datalist).parent), Path(folder))


def describe(evaluation: Evaluation, case: str) -> Example:
    """A patient in words, from the scores alone."""
    own = evaluation.scores[evaluation.scores["case"] == case]
    unit = sign(evaluation.volume)
    sentences = tuple(_sentence(row, unit) for row in own.itertuples())
    return Example(case, own["patient"].iloc[0], float(own["dice"].mean()), sentences)


def illustrate(evaluation: Evaluation, examples: Sequence[Example], scans: Scans) -> list[Example]:
    """The same examples with their tiles.

    Raises:
        InputError: a case is not in the data list, or a file cannot be read.
    """
    entries = {entry["case"]: entry for entry in lists.select(scans.datalist, scans.dataset_dir, "labelled")}
    if unknown := [example.case for example in examples if example.case not in entries]:
        raise InputError(f"case {unknown[0]} is not in the data list: give the one that was judged.")
    chosen = [entries[example.case] for example in examples]
    found = find(images_in(scans.predictions), chosen)
    if gone := [example.case for example in examples if example.case not in found]:
        raise InputError(f"{scans.predictions} holds no prediction of case {gone[0]} any more: judge again.")
    return [
        _illustrated(evaluation, example, entries[example.case], found[example.case], scans.datalist)
        for example in tqdm(examples, desc="drawing patients", unit="case", leave=False)
    ]


def _sentence(row: Any, unit: str) -> str:
    if row.note == "absent":
        return f"{row.region}: rightly nothing"
    if np.isnan(row.volume_fn) or np.isnan(row.volume_fp):
        return f"{row.region}: Dice {share(row.dice)}"
    if row.note == "missed":
        return f"{row.region}: misses all {amount(row.volume_fn)} {unit}"
    if row.note == "hallucinated":
        return f"{row.region}: adds {amount(row.volume_fp)} {unit} where there is none"
    missed, added = (f"{amount(value)} {unit}" for value in (row.volume_fn, row.volume_fp))
    return f"{row.region}: misses {missed}, adds {added} (Dice {share(row.dice)})"


def _illustrated(
    evaluation: Evaluation, example: Example, entry: Mapping[str, Any], path: str, datalist: Mapping[str, Any]
) -> Example:
    region = _region_to_show(evaluation, example.case)
    values = datalist["regions"][region]
    known = {*datalist["labels"].values(), *(value for some in datalist["regions"].values() for value in some)}
    rename = {int(old): int(new) for old, new in evaluation.judged.get("label_map", {}).items()}
    label, prediction = read_labels(entry["label"], known), read_labels(path, known, rename)
    if grid_difference(label, prediction):
        prediction = onto_grid(prediction, label)
    turn = _Turn(label)
    truth, predicted = (turn(np.isin(image.voxels, values)) for image in (label, prediction))
    scan, channel = _clearest(
        _channels(entry["image"], label), datalist["channels"], turn, truth if truth.any() else predicted
    )
    view = _View(scan, truth, predicted, turn.spacing)
    tiles = []
    for plane, axis in PLANES.items():
        if view.flat(axis):
            continue
        where = f"{plane} " if label.affine is not None else ""
        said = f"{example.case}, {where}plane of {channel} through the worst error of {region}"
        tiles.append(Tile(view.draw(axis, detail=False), f"{said}: truth and prediction outlined.", where.strip()))
        tiles.append(
            Tile(view.draw(axis, detail=True), f"{said}, enlarged: missed and added parts filled.", "enlarged")
        )
    return replace(example, region=region, channel=channel, tiles=tuple(tiles))


def _region_to_show(evaluation: Evaluation, case: str) -> str:
    """The region with the lowest Dice; of equal ones that with the largest error."""
    own = evaluation.scores[evaluation.scores["case"] == case]
    wrong = -(own["volume_fp"].fillna(0) + own["volume_fn"].fillna(0))
    return own.assign(wrong=wrong).sort_values(["dice", "wrong"], kind="stable")["region"].iloc[0]


class _Turn:
    """Turns arrays on the label's grid to RAS, with a third axis of length one where there are two."""

    def __init__(self, label: GridImage):
        affine = AS_SEEN if label.affine is None else label.affine
        self.orientation = nib.io_orientation(affine)
        order = np.argsort(self.orientation[:, 0])
        self.spacing = tuple(float(size) for size in nib.affines.voxel_sizes(affine)[order])

    def __call__(self, array: np.ndarray) -> np.ndarray:
        return nib.apply_orientation(array if array.ndim == 3 else array[..., None], self.orientation)


def _channels(files: str | Sequence[str], label: GridImage) -> list[np.ndarray]:
    """The channels of a case, each on the label's grid."""
    if not isinstance(files, str):
        return [_read_scan(file) for file in files]
    array = _read_scan(files)
    return list(np.moveaxis(array, -1, 0)) if array.ndim > label.voxels.ndim else [array]


def _read_scan(name: str | os.PathLike) -> np.ndarray:
    """The voxels of a scan in the file's axis order; pictures as [column, row] or [column, row, colour]."""
    if pictures.is_picture(name):
        return pictures.read(name).astype(np.float32)
    try:
        array = np.asanyarray(nib.load(name).dataobj).astype(np.float32)
    except Exception as error:  # nibabel has its own set of errors for a damaged file
        raise InputError(f"{name} cannot be read as an image ({str(error)[:200]}): copy it again.") from error
    while array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


def _clearest(
    channels: Sequence[np.ndarray], names: Sequence[str], turn: _Turn, region: np.ndarray
) -> tuple[np.ndarray, str]:
    """The channel in which the region stands out most from what is around it, air at 0, and its name."""
    ring = ndimage.binary_dilation(region, iterations=RING) & ~region
    best, found = -1.0, None
    for array, name in zip(channels, names, strict=True):
        array = turn(array - air(array)[0])
        spread = float(array[ring | region].std()) if region.any() else 0.0
        contrast = abs(float(array[region].mean() - array[ring].mean())) / spread if spread and ring.any() else 0.0
        if contrast > best:
            best, found = contrast, (array, name)
    assert found is not None
    return found


class _View:
    """A case cut to the head, and the planes to look at."""

    def __init__(self, scan: np.ndarray, truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float]):
        seen = (scan != 0) | truth | prediction
        box = tuple(_range(seen.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
        self.scan, self.truth, self.prediction = scan[box], truth[box], prediction[box]
        self.spacing = spacing
        self.grey = window(scan)
        self.centre = _worst(self.truth, self.prediction, spacing)
        self.side = max(size * step for size, step in zip(self.scan.shape, spacing, strict=True))

    def flat(self, axis: int) -> bool:
        """Is there nothing to see along this axis, since another one is a single slice?"""
        return min(size for a, size in enumerate(self.scan.shape) if a != axis) == 1

    def draw(self, axis: int, detail: bool) -> str:
        """A square PNG as a data URI; `detail` is a part of it enlarged, with the errors filled."""
        across, up = (a for a in range(3) if a != axis)
        scan, truth, prediction = (
            _radiological(array.take(self.centre[axis], axis=axis))
            for array in (self.scan, self.truth, self.prediction)
        )
        width, height = scan.shape[1] * self.spacing[across], scan.shape[0] * self.spacing[up]
        extent = (0, width, height, 0)
        x = (self.scan.shape[across] - self.centre[across] - 0.5) * self.spacing[across]
        y = (self.scan.shape[up] - self.centre[up] - 0.5) * self.spacing[up]
        figure = Figure(figsize=(PIXELS / 100, PIXELS / 100), facecolor="black")
        cell = figure.add_axes((0, 0, 1, 1))
        cell.imshow(scan, cmap="gray", vmin=self.grey[0], vmax=self.grey[1], extent=extent, interpolation="bilinear")
        if detail:
            _fill(cell, truth & ~prediction, TRUTH, extent)
            _fill(cell, prediction & ~truth, PREDICTION, extent)
        _outline(cell, truth, TRUTH, extent, 2.0 if detail else 1.4)
        _outline(cell, prediction, PREDICTION, extent, 2.0 if detail else 1.4)
        side = self.side * (DETAIL if detail else 1)
        middle = (x, y) if detail else (width / 2, height / 2)
        cell.set(xlim=(middle[0] - side / 2, middle[0] + side / 2), ylim=(middle[1] + side / 2, middle[1] - side / 2))
        cell.set_axis_off()
        if not detail:
            _corners(cell, x, y, self.side * DETAIL / 2)
        return _png(figure)


def _worst(truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float]) -> tuple[int, ...]:
    """The voxel deepest inside the largest error; inside the truth, or in the middle, where there is no error."""
    parts = [_largest(truth & ~prediction), _largest(prediction & ~truth)]
    mask = max(parts, key=np.count_nonzero)
    mask = mask if mask.any() else truth
    if not mask.any():
        return tuple(size // 2 for size in mask.shape)
    thick = [axis for axis, size in enumerate(mask.shape) if size > 1]  # in a single slice depth is within it
    padded = np.pad(mask.squeeze(), 1)
    depth = ndimage.distance_transform_edt(padded, sampling=[spacing[axis] for axis in thick])
    depth = depth[(slice(1, -1),) * depth.ndim].reshape(mask.shape)
    return tuple(int(i) for i in np.unravel_index(depth.argmax(), depth.shape))


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask; of equal ones the first."""
    numbers, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return numbers == 1 + np.bincount(numbers.ravel())[1:].argmax() if count else mask


def _range(seen: np.ndarray) -> slice:
    where = np.flatnonzero(seen)
    return slice(max(where[0] - 2, 0), where[-1] + 3) if where.size else slice(None)


def _radiological(plane: np.ndarray) -> np.ndarray:
    """A plane [right or front, front or up] as [row from the top, column]; right, or front, at the left."""
    return plane[::-1, ::-1].T


def _outline(cell: Axes, mask: np.ndarray, colour: str, extent: tuple[float, ...], width: float) -> None:
    if not mask.any():
        return
    step_x, step_y = extent[1] / mask.shape[1], extent[2] / mask.shape[0]
    x = (np.arange(-1, mask.shape[1] + 1) + 0.5) * step_x
    y = (np.arange(-1, mask.shape[0] + 1) + 0.5) * step_y
    cell.contour(x, y, np.pad(mask, 1), levels=[0.5], colors=[colour], linewidths=width)


def _fill(cell: Axes, mask: np.ndarray, colour: str, extent: tuple[float, ...]) -> None:
    painted = np.zeros((*mask.shape, 4))
    painted[mask] = to_rgba(colour, 0.6)
    cell.imshow(painted, extent=extent, interpolation="nearest")


def _corners(cell: Axes, x: float, y: float, half: float) -> None:
    """The corners of the part that the detail shows."""
    for right in (-1, 1):
        for down in (-1, 1):
            corner = (x + right * half, y + down * half)
            cell.plot(
                [corner[0] - right * half / 4, corner[0], corner[0]],
                [corner[1], corner[1], corner[1] - down * half / 4],
                color="white",
                linewidth=0.9,
                alpha=0.8,
            )


def _png(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    small = io.BytesIO()
    with Image.open(stream) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(small.getvalue()).decode()
