"""Scores of one case: reads its label and its prediction, and measures every region and every lesion."""

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scripts.data import pictures
from scripts.data.datalist import file_hash
from scripts.data.images import (
    GridImage,
    bounding_box,
    grid_difference,
    read_image,
    read_labels,
    resample_labels,
    voxel_size,
)
from scripts.errors import InputError
from scripts.files import write_json
from scripts.scoring import cell_boundaries, lesions, metrics
from scripts.scoring.added_metrics import find_metrics, hash_metrics
from scripts.scoring.lesions import BRATS_2023, FOUND_IOU, BratsRule
from scripts.scoring.summary import COPY

WHOLE_CASE = "all"  # the region of rows that concern the whole case


class Job(NamedTuple):
    """The input for scoring one case, small enough to send to a process."""

    case: str
    patient: str
    label: str
    prediction: str | None
    hint: str  # names of files that might be the prediction, if none was found
    probability: str | None
    regions: dict[str, list[int]]  # name to label values
    known: list[int]  # label values of the scheme
    rename: dict[int, int]  # value in the prediction to value of the scheme
    unit: str  # mm or pixel
    resample: bool
    brats: BratsRule
    kept: str  # the file that caches the rows until all cases are done
    boundaries: tuple[str, ...] = ()  # the regions that are outlines of cells
    added: tuple[str, ...] = ()  # metrics of the user's own
    ignore: int | None = None  # label value of voxels that do not count
    rater: str = ""  # who drew the label; "" for the only one of a case
    compared: str = ""  # another rater, whose label is the prediction; "" for a system
    wanted: tuple[str, ...] = tuple(metrics.METRICS)


class Scores(NamedTuple):
    """The rows of a case in the tables of `scripts.scoring.cohort`: scores, lesions and reliability."""

    rows: list[list]
    lesions: list[list]
    reliability: list[list]


def metric_definitions(brats: BratsRule = BRATS_2023, added: Sequence[str] = ()) -> dict[str, Any]:
    """The meaning of each metric, and the rules that metrics share."""
    own = {metric.name: metric.definition for metric in find_metrics(added)}
    every = {**metrics.METRICS, **metrics.BOUNDARY_METRICS, **metrics.CASE_METRICS, **own}
    return {
        "metrics": {name: metric.meaning for name, metric in every.items()},
        "border": "voxels of the mask with background, or the end of the image, across a face",
        "tolerances": list(metrics.TOLERANCES),
        "empties": "both masks empty: overlap 1, distances 0, noted absent; one empty: overlap 0, distances inf, kept",
        "ignored": "voxels that the label ignores are taken out of both masks; next to them a mask has no border",
        "connectivity": "26 in 3D, 8 in 2D",
        "lesion_found_iou": FOUND_IOU,
        "brats2023": brats._asdict(),
        "tumour_box_margin": metrics.BOX_MARGIN,
        "by_patient": "all slices of a patient, in the order of their index, as one volume",
        "boundaries": "segments are what a boundary encloses, across faces; pixels inside true segments count; the"
        " predicted boundary is thinned by a watershed, and each pixel of the line left is a segment of its own",
    }


def score_case(job: Job) -> Scores:
    """The rows of one case, from `job.kept` if that was computed from the same files by the same rules."""
    if job.prediction is None:
        return failed_scores(job.case, job.patient, missing_prediction_reason(job))
    return cached_scores(job.kept, job_key(job), lambda: _score(job))


def cached_scores(kept: str, key: str, score: Callable[[], Scores]) -> Scores:
    """The scores cached in file `kept` under this key, else those of `score`, which are cached."""
    try:
        content = json.loads(Path(kept).read_text(encoding="utf-8"))
        if content["key"] == key:
            return Scores(*(content[table] for table in Scores._fields))
    except (OSError, ValueError, KeyError):
        pass
    scores = score()
    write_json(kept, {"key": key, **scores._asdict()})
    return scores


def failed_scores(case: str, patient: str, reason: str) -> Scores:
    """The one row of a case that could not be scored."""
    return Scores([[case, patient, WHOLE_CASE, "failed", 1.0, "", reason]], [], [])


def missing_prediction_reason(job: Job) -> str:
    """Why a case has no prediction."""
    near = f"; found {job.hint}" if job.hint else ""
    return f"no prediction: no file is named after case {job.case}{near}"


def job_key(job: Job) -> str:
    """A hash of the files of a case and of the rules for scoring it."""
    files = [_hash_of_any(pictures.file_of_page(file)) for file in (job.label, job.prediction, job.probability) if file]
    rules = job._replace(hint="", kept="", brats=BRATS_2023)._asdict()
    everything = [files, rules, metric_definitions(job.brats), hash_metrics(job.added)]
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()


def _hash_of_any(file: Path) -> str:
    """The sha256 of a file, "" of one that cannot be opened: reading it will give the reason."""
    try:
        return file_hash(file)
    except OSError:
        return ""


def read_masks(job: Job) -> tuple[GridImage, GridImage, str]:
    """The label, the prediction on the label's grid, and how the prediction's own grid differed ("" if it did not).

    Raises:
        InputError: a file is damaged, holds other labels, ignores every voxel, or is on another grid and `job.resample`
            is off.
    """
    truth = read_labels(job.label, job.known)
    assert job.prediction is not None
    prediction = read_labels(job.prediction, job.known, job.rename)
    difference = grid_difference(truth, prediction)
    if difference and not job.resample:
        raise InputError(f"{job.prediction} has {difference}: predict on the label's grid, or allow --resample.")
    prediction = resample_labels(prediction, truth) if difference else prediction
    if (ignored := find_ignored(job, truth.voxels, prediction.voxels)) is not None and ignored.all():
        raise InputError(f"{job.label} ignores every voxel (value {job.ignore}): there is nothing to score.")
    return truth, prediction, difference


def find_ignored(job: Job, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray | None:
    """The voxels that do not count, for two raters those that either of them ignores; None if there are none."""
    if job.ignore is None:
        return None
    ignored = truth == job.ignore
    return ignored | (prediction == job.ignore) if job.compared else ignored


def measure_regions(
    job: Job,
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float],
    leave_out: Collection[str] = (),
    compare_boundaries: Callable[[np.ndarray, np.ndarray], dict[str, float]] = cell_boundaries.measure_cells,
) -> Scores:
    """The rows of every region of two label maps.

    Args:
        job: names the case, the regions and the rules.
        truth: [H, W, D] or [H, W], the values of the scheme.
        prediction: the same shape.
        spacing: mm along each axis; 1 where the unit is pixel.
        leave_out: names of metrics to skip.
        compare_boundaries: scores the regions that are outlines of cells.
    """
    axes, scores = truth.ndim, Scores([], [], [])
    volume = job.unit if job.unit == "pixel" else "ml" if axes == 3 else "cm2"
    units = {"": "", "length": job.unit, "volume": volume}
    scale = {"volume": 1 if job.unit == "pixel" else 10**axes}  # mm^3 to ml
    if not job.boundaries and not any(0 in values for values in job.regions.values()):
        here = bounding_box((truth > 0) | (prediction > 0), margin=[max(1, job.brats.dilations)] * axes)
        truth, prediction = (np.ascontiguousarray(voxels[here]) for voxels in (truth, prediction))  # C order is faster
    ignored = find_ignored(job, truth, prediction)
    added = find_metrics(() if job.compared else job.added)
    for region, values in job.regions.items():
        true, predicted = (region_mask(voxels, values) for voxels in (truth, prediction))
        if ignored is not None:
            true, predicted = true & ~ignored, predicted & ~ignored
        note, wanted = metrics.empty_note(true, predicted), set(job.wanted) - set(leave_out)
        if ignored is not None:  # a rule that knows no such voxels
            wanted -= metrics.LESIONWISE.keys()
        if region in job.boundaries:
            wanted -= metrics.LESIONS.keys() | metrics.LESIONWISE.keys()
        for name, value in metrics.measure_region(true, predicted, spacing, job.brats, wanted, ignored).items():
            unit = metrics.METRICS[name].unit
            scores.rows.append(_row(job, region, name, value / scale.get(unit, 1), units[unit], note))
        for metric in added:
            value = metric.measure(true, predicted, spacing)
            scores.rows.append(_row(job, region, metric.name, value, metric.definition.unit, note))
        if job.compared:
            continue
        if region in job.boundaries:
            for name, value in compare_boundaries(true, predicted).items():
                scores.rows.append(_row(job, region, name, value, note=note))
        else:
            voxel = voxel_size(spacing) / scale["volume"]
            for number, (size, found, dice) in enumerate(lesions.true_lesions(true, predicted), start=1):
                scores.lesions.append([job.case, job.patient, region, number, size * voxel, volume, found, dice])
    return scores


def region_mask(labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Mask of the voxels with one of the values, in the label map's memory order; many times faster than `isin`."""
    return reduce(np.logical_or, (labels == value for value in values), np.zeros_like(labels, bool))


def _score(job: Job) -> Scores:
    try:
        truth, prediction, difference = read_masks(job)
        axes = truth.voxels.ndim
        spacing = (1.0,) * axes if job.unit == "pixel" else truth.spacing(axes)
        leave_out = metrics.LESIONWISE if axes == 2 else ()  # a rule for volumes
        scores = measure_regions(job, truth.voxels, prediction.voxels, spacing, leave_out)
        if truth.voxels.any() and _is_copy(job):  # an empty label is often predicted so
            scores.rows.insert(0, _row(job, WHOLE_CASE, COPY, 1, note="the prediction is a copy of the label's file"))
        if difference:
            scores.rows.insert(0, _row(job, WHOLE_CASE, "resampled", 1, note=f"{difference}; nearest neighbour"))
        if job.probability:
            _add_calibration(scores, job, truth.voxels, prediction.voxels, spacing)
    except InputError as error:
        return failed_scores(job.case, job.patient, str(error))
    return scores


def _is_copy(job: Job) -> bool:
    """Whether the prediction's file has the bytes of the label's file."""
    files = [pictures.file_of_page(file) for file in (job.label, job.prediction) if file]
    return len(files) == 2 and len({file.stat().st_size for file in files}) == 1 == len({*map(file_hash, files)})


def _add_calibration(
    scores: Scores, job: Job, truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float]
) -> None:
    masks, ignored = (
        np.stack([region_mask(truth, v) for v in job.regions.values()]),
        find_ignored(job, truth, prediction),
    )
    probability = read_probability(str(job.probability), masks.shape)
    reliability = metrics.reliability_bins(masks, probability, spacing, ignored)
    for name, value in metrics.calibration_metrics(masks, probability, spacing, reliability, ignored).items():
        scores.rows.append(_row(job, WHOLE_CASE, name, value, note="" if masks.any() else "absent"))
    for region, bins in zip(job.regions, reliability, strict=True):
        for number, (voxels, predicted, found) in enumerate(bins.tolist()):
            shares = [predicted / voxels, found / voxels] if voxels else [None, None]
            scores.reliability.append([job.case, job.patient, region, number / metrics.BINS, int(voxels), *shares])


def _row(job: Job, region: str, metric: str, value: float, unit: str = "", note: str = "") -> list:
    return [job.case, job.patient, region, metric, float(value), unit, note]


def read_probability(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """The probabilities [region, H, W, D] in a file [H, W, D, region], or [H, W, D] for a single region."""
    voxels = read_image(path).voxels
    maps = voxels[None] if voxels.shape == shape[1:] and shape[0] == 1 else np.moveaxis(voxels, -1, 0)
    if maps.shape != shape:
        raise InputError(
            f"{path} has shape {voxels.shape}: expected {(*shape[1:], shape[0])}: label grid, one map per region."
        )
    if not (maps.min() >= 0 and maps.max() <= 1):
        raise InputError(f"{path} holds values from {maps.min():g} to {maps.max():g}: expected probabilities, 0 to 1.")
    return maps
