"""The files behind an evaluation: the label, the mask and the images of a case, turned to RAS."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bundle.analysis.evaluation import Evaluation, read_evaluation
from scripts.data import datalist as lists
from scripts.data.images import (
    clear_ignored,
    grid_difference,
    place_in_file,
    ras_spacing,
    read_labels,
    read_stored,
    resample_labels,
    to_ras,
)
from scripts.errors import InputError
from scripts.scoring.case import read_probability, region_mask
from scripts.scoring.prediction_files import PROBABILITY_SUFFIXES, find_predictions, images_in, match_predictions

KEPT = "probabilities"  # the folder of probabilities next to the masks of a run


@dataclass(frozen=True)
class Scans:
    """Where the images are: the data list that the evaluation was made with, and the folder of predictions.

    `repetitions` are evaluations of the same cases by networks that were trained again, with their own scans.
    """

    datalist: Mapping[str, Any]
    dataset_dir: Path
    predictions: Path
    repetitions: tuple[tuple[Evaluation, "Scans"], ...] = ()


class ScoredFiles(NamedTuple):
    """The files of one case and how to read them, small enough to send to a process.

    `probability` is None where none was kept; `rename` maps values of the prediction to those of the scheme; `ignore`
    is the label's value of voxels that do not count. Of several raters `label` is the first one's.
    """

    case: str
    patient: str
    image: str | list[str]
    label: str
    prediction: str
    probability: str | None
    regions: dict[str, list[int]]
    known: list[int]
    rename: dict[int, int]
    ignore: int | None = None


class CaseMasks(NamedTuple):
    """The label and the mask of a case, [H, W, D] in RAS (D is 1 for a picture), as values of the scheme.

    `affine` and `shape` are those of the label's file, `spacing` is in mm in RAS, 1 where it is unknown.
    """

    truth: np.ndarray
    prediction: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray | None
    shape: tuple[int, ...]

    def turn(self, array: np.ndarray) -> np.ndarray:
        """An array on the label's grid in RAS, with a third axis of length one where there are two."""
        return to_ras(array if array.ndim == 3 else array[..., None], self.affine)

    def place_in_file(self, axis: int, index: int) -> tuple[int, int]:
        """`scripts.data.images.place_in_file` of the label's file."""
        return place_in_file(self.affine, self.shape, axis, index)


def open_scans(
    evaluation: Evaluation,
    datalist: str | os.PathLike,
    dataset_dir: str | os.PathLike | None = None,
    predictions: str | os.PathLike | None = None,
    repetitions: Sequence[str | os.PathLike] = (),
) -> Scans:
    """Find the images behind an evaluation, and those of repetitions of it (folders of evaluations).

    Raises:
        InputError: the data list is not the one that was scored, the predictions do not exist, or a repetition is the
            evaluation itself.
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
    others, seen = [], {Path(folder).resolve()}
    for other in map(read_evaluation, repetitions):
        if other.folder.resolve() == evaluation.folder.resolve():
            raise InputError(f"{other.folder} is the evaluation itself: give others, of networks trained again.")
        masks = other.record.get("predictions")
        if not masks or not Path(masks).is_dir():
            raise InputError(f"the masks of {other.folder}, {masks}, do not exist: score them again, or leave it out.")
        if Path(masks).resolve() in seen:
            raise InputError(f"{other.folder} has the masks of another one, {masks}: give networks trained again.")
        seen.add(Path(masks).resolve())
        others.append((other, open_scans(other, datalist, dataset_dir)))
    return Scans(content, Path(dataset_dir or Path(datalist).parent), Path(folder), tuple(others))


def find_case_files(evaluation: Evaluation, scans: Scans, cases: Sequence[str]) -> list[ScoredFiles]:
    """The files of these cases.

    Raises:
        InputError: a case is not in the data list, or has no prediction.
    """
    content = scans.datalist
    entries = {entry["case"]: entry for entry in lists.select_cases(content, scans.dataset_dir, "labelled")}
    if unknown := [case for case in cases if case not in entries]:
        raise InputError(f"case {unknown[0]} is not in the data list: give the one that was scored.")
    found = find_predictions(images_in(scans.predictions), [entries[case] for case in cases])
    if gone := [case for case in cases if case not in found]:
        raise InputError(f"{scans.predictions} has no prediction of case {gone[0]}: score again.")
    folder = scans.predictions / KEPT
    scored = folder.is_dir() and evaluation.reliability is not None  # else they are of classes
    soft = match_predictions(images_in(folder), cases, PROBABILITY_SUFFIXES) if scored else {}
    regions = {name: [int(value) for value in values] for name, values in content["regions"].items()}
    known = lists.known_labels(content)
    rename = {int(old): int(new) for old, new in evaluation.record.get("label_map", {}).items()}
    return [
        ScoredFiles(
            case,
            entries[case]["patient"],
            entries[case]["image"],
            entries[case]["label"],
            found[case],
            str(soft[case]) if case in soft else None,
            regions,
            known,
            rename,
            content.get("ignore"),
        )
        for case in cases
    ]


def read_case_masks(files: ScoredFiles) -> CaseMasks:
    """Read the label and the mask of a case; a mask on another grid is resampled, as it was for its score.

    Raises:
        InputError: a file cannot be read.
    """
    label, prediction = read_labels(files.label, files.known), read_labels(files.prediction, files.known, files.rename)
    if grid_difference(label, prediction):
        prediction = resample_labels(prediction, label)
    label, prediction = clear_ignored(label, prediction, files.ignore)
    masks = CaseMasks(label.voxels, prediction.voxels, ras_spacing(label, 3), label.affine, label.voxels.shape)
    return masks._replace(truth=masks.turn(masks.truth), prediction=masks.turn(masks.prediction))


def region_masks(files: ScoredFiles, masks: CaseMasks, region: str) -> tuple[np.ndarray, np.ndarray]:
    """The label and the mask of one region, boolean [H, W, D] in RAS."""
    return region_mask(masks.truth, files.regions[region]), region_mask(masks.prediction, files.regions[region])


def read_case_probability(files: ScoredFiles, masks: CaseMasks) -> dict[str, np.ndarray] | None:
    """The probability of each region, [H, W, D] in RAS; None where none was kept."""
    if files.probability is None:
        return None
    maps = read_probability(files.probability, (len(files.regions), *masks.shape))
    return {region: masks.turn(own) for region, own in zip(files.regions, maps, strict=True)}


def read_case_channels(files: ScoredFiles, shape: Sequence[int], most: int | None = None) -> list[np.ndarray]:
    """The channels of a case, at most so many, in the file's axis order, on the grid of a label of this shape.

    A picture is [column, row], or [column, row, colour].

    Raises:
        InputError: a file cannot be read, or has another shape than the label.
    """
    axes, several = len(shape), not isinstance(files.image, str)
    named = files.image[:most] if several else [files.image]
    found = [read_stored(file)[0].voxels.astype(np.float32) for file in named]
    if not several and found[0].ndim > axes:
        found = list(np.moveaxis(found[0], -1, 0))[:most]
    for channel in found:
        if channel.shape[:axes] != tuple(shape):
            sizes = (" x ".join(map(str, own)) for own in (channel.shape[:axes], shape))
            raise InputError(
                f"the image of case {files.case} has {next(sizes)} voxels and its label {next(sizes)}: expected one"
                " grid; check the case with `python -m bundle prepare`."
            )
    return found
