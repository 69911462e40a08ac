"""The answer for each time point of a patient, as `segment` gives it, and its comparison with the others."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.commands.raw_scans import Prepare, answer_raw_scans
from bundle.dicom.cases import answer_studies, refuse_case
from bundle.followup.days import hide_dates
from bundle.followup.repeats import write_displaced
from bundle.followup.time_points import TimePoint
from bundle.followup.views import FollowUp
from bundle.reporting.answers import AnswerWriter
from scripts.data.case_files import with_file_names
from scripts.data.images import read_image
from scripts.errors import InputError
from scripts.inference.answer import read_channels_of
from scripts.inference.scans import find_input_scans
from scripts.inference.worker_process import WorkerProcess


def add_time_point(
    follow: FollowUp,
    point: TimePoint,
    worker: WorkerProcess,
    writer: AnswerWriter,
    series: Mapping[str, str],
    prepare: Prepare | None,
    repeat: bool = False,
) -> None:
    """Segment a time point, unless its mask is there already, write its answer, and add it to the others.

    With `repeat` it is segmented once more, displaced, where it is compared.

    Raises:
        InputError: something cannot be written, or the network cannot answer.
    """
    for reply in _answer(point, worker, series, prepare):
        answer = writer.write(_hide_dates(reply, point))
        if answer["refusal"]:
            follow.refuse(point.day, answer["refusal"], answer)
        else:
            mask = read_image(writer.out / f"{point.case}.nii.gz")
            scans = read_channels_of(reply["image"], worker.settings)
            follow.add(point.day, answer, dict(zip(worker.settings["channels"], scans, strict=True)), mask)
            if repeat and point.day not in follow.refused and mask.affine is not None:
                _repeat(follow, point, worker, scans, mask.affine, writer.out)


def _repeat(
    follow: FollowUp,
    point: TimePoint,
    worker: WorkerProcess,
    scans: Sequence[np.ndarray],
    affine: np.ndarray,
    out: Path,
) -> None:
    case = f"repeat{point.day:03d}"
    with tempfile.TemporaryDirectory(prefix="follow-") as folder:
        files = write_displaced(scans, affine, Path(folder), case)
        _, reply = worker.ask({"cases": [{"case": case, "image": files}], "resume": True})
    if "refused" not in reply:
        follow.repeat(read_image(out / f"{case}.nii.gz"))


def _answer(
    point: TimePoint, worker: WorkerProcess, series: Mapping[str, str], prepare: Prepare | None
) -> Iterator[dict[str, Any]]:
    """One reply; the files that it names exist until the next one is asked for."""
    if point.study:
        for answered in answer_studies(worker, {point.case: point.study}, series, True, prepare):
            yield answered.reply
        return
    try:
        entry = _find_scan(point, worker.settings)
    except InputError as error:
        yield refuse_case(point.case, error)
        return
    if prepare:
        for answered in answer_raw_scans(worker, [entry], prepare, True):
            yield answered.reply
        return
    yield from [*worker.ask({"cases": [entry], "resume": True})][1:]


def _find_scan(point: TimePoint, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The one case in the folder of a time point.

    Raises:
        InputError: there is none, or more than one, or a channel is missing.
    """
    patterns = with_file_names(settings["channel_files"])  # a folder named by its date has files named by the patient
    found = find_input_scans(point.folder, settings["channels"], patterns)
    if len(found) > 1:
        names = ", ".join(entry["case"] for entry in found[:3])
        raise InputError(f"{point.folder} holds {len(found)} scans ({names}): leave those of one date in it.")
    return {"case": point.case, "image": found[0]["image"]}


def _hide_dates(content: Any, point: TimePoint) -> Any:
    """A reply without the dates of the time point in its sentences; its files keep their names."""
    if isinstance(content, str):
        return hide_dates(content, point.folder, point.case)
    if isinstance(content, list):
        return [_hide_dates(item, point) for item in content]
    if isinstance(content, dict):
        return {
            key: value if key in ("image", "masks") else _hide_dates(value, point) for key, value in content.items()
        }
    return content
