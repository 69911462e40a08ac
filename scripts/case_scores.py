"""What are the rows of one case? Reads its label and its prediction, and measures every region."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scripts import metrics
from scripts.boxes import box
from scripts.datalist import file_hash
from scripts.errors import InputError
from scripts.files import write_json
from scripts.lesions import BRATS_2023, FOUND, BratsRule
from scripts.predictions import grid_difference, onto_grid, read_image, read_labels

WHOLE_CASE = "all"  # the region of rows that concern the whole case


class Job(NamedTuple):
    """All that judging one case needs, small enough to send to a process."""

    case: str
    patient: str
    label: str
    prediction: str | None
    hint: str  # names of files that might be the prediction if there is none
    probability: str | None
    regions: dict[str, list[int]]  # name to label values
    known: list[int]  # label values of the scheme
    rename: dict[int, int]  # value in the prediction to value of the scheme
    unit: str  # mm or pixel
    resample: bool
    brats: BratsRule
    kept: str  # the file that holds the rows until all cases are done


def definitions(brats: BratsRule = BRATS_2023) -> dict[str, Any]:
    """What each metric means, and the rules that they share."""
    return {
        "metrics": {name: metric.meaning for name, metric in {**metrics.METRICS, **metrics.CASE_METRICS}.items()},
        "border": "voxels of the mask with background, or the end of the image, across a face",
        "tolerances": list(metrics.TOLERANCES),
        "empties": "both masks empty: overlap 1, distances 0, noted absent; one empty: overlap 0, distances inf, kept",
        "connectivity": "26 in 3D, 8 in 2D",
        "lesion_found_iou": FOUND,
        "brats2023": brats._asdict(),
        "tumour_box_margin": metrics.BOX_MARGIN,
    }


def judge_case(job: Job) -> list[list]:
    """The rows of one case, taken from `job.kept` if they were made of the same files by the same rules."""
    if job.prediction is None:
        near = f"; there are {job.hint}" if job.hint else ""
        return [_row(job, WHOLE_CASE, "failed", 1, note=f"no prediction: no file is named after case {job.case}{near}")]
    key = _key(job)
    try:
        kept = json.loads(Path(job.kept).read_text(encoding="utf-8"))
        if kept["key"] == key:
            return kept["rows"]
    except (OSError, ValueError, KeyError):
        pass
    try:
        rows = list(_rows(job))
    except InputError as error:
        rows = [_row(job, WHOLE_CASE, "failed", 1, note=str(error))]
    write_json(job.kept, {"key": key, "rows": rows})
    return rows


def _rows(job: Job) -> Iterator[list]:
    truth = read_labels(job.label, job.known)
    prediction = read_labels(job.prediction, job.known, job.rename)
    if difference := grid_difference(truth, prediction):
        if not job.resample:
            raise InputError(f"{job.prediction} has {difference}: predict on the label's grid, or allow --resample.")
        prediction = onto_grid(prediction, truth)
        yield _row(job, WHOLE_CASE, "resampled", 1, note=f"{difference}; nearest neighbour")
    axes = truth.voxels.ndim
    pixels = job.unit == "pixel"
    spacing = (1.0,) * axes if pixels else truth.spacing(axes)
    units = {"": "", "length": job.unit, "volume": job.unit if pixels else "ml" if axes == 3 else "cm2"}
    scale = {"volume": 1 if pixels else 10**axes}  # mm^3 to ml
    here = box((truth.voxels > 0) | (prediction.voxels > 0), margin=[max(1, job.brats.dilations)] * axes)
    cropped = [np.ascontiguousarray(image.voxels[here]) for image in (truth, prediction)]  # NIfTI's order is slow
    for region, values in job.regions.items():
        true, predicted = (np.isin(voxels, values) for voxels in cropped)
        note = metrics.state(true, predicted)
        for name, value in metrics.measure(true, predicted, spacing, job.brats).items():
            unit = metrics.METRICS[name].unit
            yield _row(job, region, name, value / scale.get(unit, 1), units[unit], note)
    if job.probability:
        masks = np.stack([np.isin(truth.voxels, values) for values in job.regions.values()])
        probability = _read_probability(job.probability, masks.shape)
        for name, value in metrics.calibration(masks, probability, spacing).items():
            yield _row(job, WHOLE_CASE, name, value, note="" if masks.any() else "absent")


def _row(job: Job, region: str, metric: str, value: float, unit: str = "", note: str = "") -> list:
    return [job.case, job.patient, region, metric, float(value), unit, note]


def _key(job: Job) -> str:
    files = [file_hash(file) for file in (job.label, job.prediction, job.probability) if file]
    rules = [job.case, job.patient, job.regions, job.known, sorted(job.rename.items()), job.unit, job.resample]
    return hashlib.sha256(json.dumps([files, rules, definitions(job.brats)]).encode()).hexdigest()


def _read_probability(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """The probabilities [region, H, W, D] in a file [H, W, D, region], or [H, W, D] for a single region."""
    voxels = read_image(path).voxels
    maps = voxels[None] if voxels.shape == shape[1:] and shape[0] == 1 else np.moveaxis(voxels, -1, 0)
    if maps.shape != shape:
        raise InputError(
            f"{path} has shape {voxels.shape}: expected {(*shape[1:], shape[0])}, the label's grid and a map a region."
        )
    if not (maps.min() >= 0 and maps.max() <= 1):
        raise InputError(f"{path} holds values from {maps.min():g} to {maps.max():g}: probabilities lie in 0 to 1.")
    return maps
