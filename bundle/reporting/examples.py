"""Example patients: missed and added volumes in words, and planes through the worst error.

Planes are shown as radiologists see them (the patient's right on the left) where the file has an orientation.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from bundle.analysis.evaluation import Evaluation
from bundle.analysis.region_summary import leave_out_specks
from bundle.analysis.scored_scans import (
    Scans,
    ScoredFiles,
    find_case_files,
    read_case_channels,
    read_case_masks,
    region_masks,
)
from bundle.drawing.planes import PLANES, WorstError
from bundle.reporting.page import embed_png
from bundle.reporting.words import format_amount, format_share, unit_sign
from scripts.data.brain_masks import background_value
from scripts.progress import progress_bar

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
    return [
        _illustrated(evaluation, example, files, scans.datalist["channels"])
        for example, files in zip(
            progress_bar(examples, desc="drawing patients", unit="case"),
            find_case_files(evaluation, scans, [example.case for example in examples]),
            strict=True,
        )
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
    evaluation: Evaluation, example: PatientExample, files: ScoredFiles, names: Sequence[str]
) -> PatientExample:
    region = _region_to_show(evaluation, example.case)
    masks = read_case_masks(files)
    truth, predicted = region_masks(files, masks, region)
    channels = zip(read_case_channels(files, masks.shape), names, strict=True)
    scan, channel = find_clearest_channel(channels, masks.turn, truth if truth.any() else predicted)
    view = WorstError(scan, truth, predicted, masks.spacing)
    tiles = []
    for plane, axis in PLANES.items():
        if view.flat(axis):
            continue
        where, number = "", ""
        if masks.affine is not None:
            place, length = masks.place_in_file(axis, view.place[axis])
            where, number = f"{plane} ", f"slice {place}/{length}"
        said = f"{example.case}, {where}plane of {channel} through the worst error of {region}"
        whole, part = (embed_png(view.draw(axis, detail, number)) for detail in (False, True))
        tiles.append(Tile(whole, f"{said}: truth and prediction outlined.", where.strip()))
        tiles.append(Tile(part, f"{said}, enlarged: missed and added parts filled.", "enlarged"))
    return replace(example, region=region, channel=channel, tiles=tuple(tiles))


def _region_to_show(evaluation: Evaluation, case: str) -> str:
    """The region with the lowest Dice; of equal ones that with the largest error."""
    own = leave_out_specks(evaluation.scores[evaluation.scores["case"] == case], evaluation.volume_unit)
    wrong = -(own["volume_fp"].fillna(0) + own["volume_fn"].fillna(0))
    return own.assign(wrong=wrong).sort_values(["dice", "wrong"], kind="stable")["region"].iloc[0]


def find_clearest_channel(
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
