"""Example patients: missed and added volumes in words, and planes through the worst error.

Planes are shown as radiologists see them (the patient's right on the left) where the file has an orientation.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from bundle.analysis.evaluation import Evaluation
from bundle.drawing.planes import PLANES, WorstError
from bundle.reporting.page import embed_png
from bundle.reporting.words import format_amount, format_share, unit_sign
from scripts.data import datalist as lists
from scripts.data.case_checks import background_value
from scripts.data.images import grid_difference, ras_spacing, read_labels, read_stored, resample_labels, to_ras
from scripts.errors import InputError
from scripts.progress import progress_bar
from scripts.scoring.prediction_files import find_predictions, images_in

RING = 4  # voxels around a region, with which its brightness is compared


@dataclass(frozen=True)
class Tile:
    """One picture: a data URI, and what it shows."""

    source: str
    words: str
    caption: str


@dataclass(frozen=True)
class PatientExample:
    """An example patient; `region` and `channel` are shown in the tiles, "" without tiles."""

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
        InputError: the data list is not the one that was scored, or the predictions do not exist.
    """
    content = lists.read_datalist(datalist)
    scored = evaluation.record.get("datalist")
    if scored and scored != lists.datalist_hash(content):
        raise InputError(
            f"{datalist} is not the data list that {evaluation.folder} was scored with: give that one, or score again."
        )
    if unknown := [region for region in evaluation.regions if region not in content["regions"]]:
        raise InputError(f"{datalist} has no region {unknown[0]}: give the data list that was scored.")
    folder = predictions or evaluation.record.get("predictions")
    if not folder or not Path(folder).is_dir():
        raise InputError(
            f"the predictions {folder or ''} do not exist: give their folder with --predictions, or leave out"
            " --datalist to report without pictures."
        )
    return Scans(content, Path(dataset_dir or Path(datalist).parent), Path(folder))


def describe_patient(evaluation: Evaluation, case: str) -> PatientExample:
    """Describe a patient by its scores alone."""
    own = evaluation.scores[evaluation.scores["case"] == case]
    unit = unit_sign(evaluation.volume_unit)
    sentences = tuple(_sentence(row, unit) for row in own.itertuples())
    return PatientExample(case, own["patient"].iloc[0], float(own["dice"].mean()), sentences)


def illustrate_patients(
    evaluation: Evaluation, examples: Sequence[PatientExample], scans: Scans
) -> list[PatientExample]:
    """Add the tiles to examples.

    Raises:
        InputError: a case is not in the data list, or a file cannot be read.
    """
    entries = {entry["case"]: entry for entry in lists.select_cases(scans.datalist, scans.dataset_dir, "labelled")}
    if unknown := [example.case for example in examples if example.case not in entries]:
        raise InputError(f"case {unknown[0]} is not in the data list: give the one that was scored.")
    found = find_predictions(images_in(scans.predictions), [entries[example.case] for example in examples])
    if gone := [example.case for example in examples if example.case not in found]:
        raise InputError(f"{scans.predictions} has no prediction of case {gone[0]}: score again.")
    return [
        _illustrated(evaluation, example, entries[example.case], found[example.case], scans.datalist)
        for example in progress_bar(examples, desc="drawing patients", unit="case")
    ]


def _sentence(row: Any, unit: str) -> str:
    if row.note == "absent":
        return f"{row.region}: true negative"
    if np.isnan(row.volume_fn) or np.isnan(row.volume_fp):
        return f"{row.region}: Dice {format_share(row.dice)}"
    if row.note == "missed":
        return f"{row.region}: misses all {format_amount(row.volume_fn)} {unit}"
    if row.note == "hallucinated":
        return f"{row.region}: false positive, {format_amount(row.volume_fp)} {unit} (region absent)"
    missed, added = (f"{format_amount(value)} {unit}" for value in (row.volume_fn, row.volume_fp))
    return f"{row.region}: misses {missed}, adds {added} (Dice {format_share(row.dice)})"


def _illustrated(
    evaluation: Evaluation, example: PatientExample, entry: Mapping[str, Any], path: str, datalist: Mapping[str, Any]
) -> PatientExample:
    region = _region_to_show(evaluation, example.case)
    values = datalist["regions"][region]
    known = {*datalist["labels"].values(), *(value for some in datalist["regions"].values() for value in some)}
    rename = {int(old): int(new) for old, new in evaluation.record.get("label_map", {}).items()}
    label, prediction = read_labels(entry["label"], known), read_labels(path, known, rename)
    if grid_difference(label, prediction):
        prediction = resample_labels(prediction, label)

    def turn(array: np.ndarray) -> np.ndarray:
        """On the label's grid to RAS, with a third axis of length one where there are two."""
        return to_ras(array if array.ndim == 3 else array[..., None], label.affine)

    truth, predicted = (turn(np.isin(image.voxels, values)) for image in (label, prediction))
    channels = zip(_channels(entry["image"], label.voxels.ndim), datalist["channels"], strict=True)
    scan, channel = _clearest(channels, turn, truth if truth.any() else predicted)
    view = WorstError(scan, truth, predicted, ras_spacing(label, 3))
    tiles = []
    for plane, axis in PLANES.items():
        if view.flat(axis):
            continue
        where = f"{plane} " if label.affine is not None else ""
        said = f"{example.case}, {where}plane of {channel} through the worst error of {region}"
        whole, part = (embed_png(view.draw(axis, detail)) for detail in (False, True))
        tiles.append(Tile(whole, f"{said}: truth and prediction outlined.", where.strip()))
        tiles.append(Tile(part, f"{said}, enlarged: missed and added parts filled.", "enlarged"))
    return replace(example, region=region, channel=channel, tiles=tuple(tiles))


def _region_to_show(evaluation: Evaluation, case: str) -> str:
    """The region with the lowest Dice; of equal ones that with the largest error."""
    own = evaluation.scores[evaluation.scores["case"] == case]
    wrong = -(own["volume_fp"].fillna(0) + own["volume_fn"].fillna(0))
    return own.assign(wrong=wrong).sort_values(["dice", "wrong"], kind="stable")["region"].iloc[0]


def _channels(files: str | Sequence[str], axes: int) -> list[np.ndarray]:
    """The channels of a case in the file's axis order; pictures as [column, row] or [column, row, colour]."""
    several = not isinstance(files, str)
    found = [read_stored(file)[0].voxels.astype(np.float32) for file in (files if several else [files])]
    return found if several or found[0].ndim <= axes else list(np.moveaxis(found[0], -1, 0))


def _clearest(
    channels: Iterable[tuple[np.ndarray, str]], turn: Callable[[np.ndarray], np.ndarray], region: np.ndarray
) -> tuple[np.ndarray, str]:
    """The channel with the highest contrast of the region to its surroundings, background at 0, and its name."""
    ring = ndimage.binary_dilation(region, iterations=RING) & ~region

    def contrast(channel: tuple[np.ndarray, str]) -> float:
        array = channel[0]
        spread = float(array[ring | region].std()) if region.any() else 0.0
        off = float(array[region].mean() - array[ring].mean()) if spread and ring.any() else 0.0
        return float(np.nan_to_num(abs(off) / (spread or 1.0)))

    return max(((turn(array - background_value(array)[0]), name) for array, name in channels), key=contrast)
