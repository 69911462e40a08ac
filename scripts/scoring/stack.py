"""Scores of a patient whose cases are slices, stacked to one volume.

The mean over slices and the score of the volume differ much if many slices are empty.
"""

import hashlib
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from scripts.errors import InputError
from scripts.scoring import cell_boundaries, metrics
from scripts.scoring.case import (
    WHOLE_CASE,
    Job,
    Scores,
    cached_scores,
    failed_scores,
    job_key,
    measure_regions,
    missing_prediction_reason,
    read_masks,
)

DISTANCE_METRICS = {**metrics.DISTANCES, **metrics.LESIONWISE}  # metrics that need the distance between slices


class Stack(NamedTuple):
    """The input for scoring one patient."""

    case: str  # the patient, or the volume if the patient has several
    slices: list[Job]
    places: list[int]  # the index of each slice, ascending
    kept: str  # the file that caches the rows until all patients are done
    rater: str = ""  # who drew the labels


def score_patient(stack: Stack) -> Scores:
    """The rows of one patient as one case; a slice that cannot be scored fails the patient.

    Region `all` has a row `slices`: their number, and which are missing between them.
    """
    for job in stack.slices:
        if job.prediction is None:
            return _failed(stack, job, missing_prediction_reason(job))
    about = json.dumps([stack.places, [job_key(job) for job in stack.slices]])
    return cached_scores(stack.kept, hashlib.sha256(about.encode()).hexdigest(), lambda: _score(stack))


def missing_indices(places: Sequence[int]) -> str:
    """The indices missing between others, in words; "" if none is."""
    gaps = [(a + 1, b - 1) for a, b in pairwise(places) if b - a > 1]
    return ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in gaps)


def _score(stack: Stack) -> Scores:
    pairs = []
    for job in stack.slices:
        try:
            pairs.append(read_masks(job)[:2])
        except InputError as error:
            return _failed(stack, job, str(error))
    first, job = pairs[0][0], stack.slices[0]._replace(case=stack.case)
    if len(shapes := {truth.voxels.shape for truth, _ in pairs}) > 1 or first.voxels.ndim != 2:
        sizes = " and ".join(" x ".join(map(str, shape)) for shape in sorted(shapes))
        return failed_scores(
            stack.case, job.patient, f"the slices have {sizes} pixels: expected flat slices of one size."
        )
    grids = {truth.spacing(2) for truth, _ in pairs}
    if len(grids) > 1 and job.unit != "pixel":
        sizes = " and ".join(" x ".join(f"{size:g}" for size in grid) for grid in sorted(grids))
        return failed_scores(stack.case, job.patient, f"the slices have pixels of {sizes} mm: expected one size.")
    gaps = missing_indices(stack.places)
    known = job.unit != "pixel" and first.affine is not None and not any(truth.flat for truth, _ in pairs)
    spacing = first.spacing(3) if known else None
    if spacing is None:
        job = job._replace(unit="pixel")  # of volumes as well
    notes = [f"not in the list: {gaps}"] if gaps else []
    if leave_out := DISTANCE_METRICS if gaps or spacing is None else {}:
        notes.append("no distances, since the spacing of the slices is unknown")
    truth, prediction = (np.stack([image.voxels for image in images], axis=-1) for images in zip(*pairs, strict=True))
    scores = measure_regions(job, truth, prediction, spacing or (1.0,) * 3, leave_out, _by_slice)
    scores.rows.insert(0, [stack.case, job.patient, WHOLE_CASE, "slices", float(len(pairs)), "", "; ".join(notes)])
    return scores


def _by_slice(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """The mean over slices, as ISBI 2012 scores a stack: outlines are drawn and closed within each slice."""
    slices = [cell_boundaries.measure_cells(truth[..., k], prediction[..., k]) for k in range(truth.shape[-1])]
    return {name: float(np.mean([scores[name] for scores in slices])) for name in slices[0]}


def _failed(stack: Stack, job: Job, reason: str) -> Scores:
    return failed_scores(stack.case, job.patient, f"slice {job.case}: {reason}")
