"""Checks of a volume before it is segmented: each has a status, a number, its limit and a sentence.

`prepare` finds the same faults in a cohort (`scripts.data.case_checks`). A fault that makes the mask wrong is refused;
what may make it worse is noted.
"""

import json
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from scripts.data.alignment_checks import ALIGNMENT_LIMITS, check_alignment
from scripts.data.case_record import CaseRecord
from scripts.data.channel_checks import COPY_CORRELATION, CheckedChannel, check_copies, summarise_channel
from scripts.data.check_results import NOTE, OK, REFUSE, TO_PREPARE, ScanCheck, list_warnings
from scripts.data.images import GridImage
from scripts.data.physical_checks import check_physics
from scripts.data.profile import Profile
from scripts.data.profile_checks import check_against_profile
from scripts.data.scan_numbers import measure_scan
from scripts.errors import InputError, input_error_message

SKULL = "skull"  # the check that is ok where a scan shows the brain alone
UNPROCESSABLE = 422  # the HTTP status of a refusal


class ScanRefused(InputError):
    """A scan that must not be segmented; `checks` are the results of all checks."""

    def __init__(self, sentence: str, checks: Sequence[ScanCheck]) -> None:
        super().__init__(sentence)
        self.checks = list(checks)


def check_scan(
    image: np.ndarray,
    affine: np.ndarray,
    names: Sequence[str],
    files: Sequence[Path],
    notes: Sequence[str] = (),
    profile: Profile | None = None,
    skull_stripped: bool | None = None,
) -> list[ScanCheck]:
    """The checks of one scan, in the order in which they are shown.

    Args:
        image: [C, H, W, D].
        affine: 4 x 4, to mm.
        names: of the channels.
        files: one per channel, or one of all, for messages.
        notes: on the files' headers, in sentences without the files' names.
        profile: of the training cases, which the scan is compared with.
        skull_stripped: whether the scans were that the network was trained on; None: unknown.

    Raises:
        ScanRefused: a check refuses the scan.
    """
    record = CaseRecord("")
    channels = summarise_channels(image, affine, names, files, record)
    checks = [_check_header(notes), _from_record("content", "every channel shows a scan", None, None, record)]
    checks += [_check_copies(channels), _check_alignment(channels), _check_skull(channels, skull_stripped)]
    if len(channels) == len(names):
        scan = measure_scan(image, channels)
        checks += [*check_physics(scan, channels), *check_against_profile(scan, profile)]
    if refusal := next((check for check in checks if check.status == REFUSE), None):
        raise ScanRefused(refusal.sentence, checks)
    return checks


def summarise_channels(
    image: np.ndarray, affine: np.ndarray, names: Sequence[str], files: Sequence[Path], record: CaseRecord
) -> list[CheckedChannel]:
    """The usable channels of a scan [C, H, W, D]; each other one adds a problem to the record."""
    paths = files if len(files) == len(names) else [files[0]] * len(names)
    grids = (GridImage(voxels, affine) for voxels in image)
    found = [summarise_channel(name, path, grid, record) for name, path, grid in zip(names, paths, grids, strict=True)]
    return [channel for channel in found if channel is not None]


def list_checks(error: BaseException | None, sentence: str) -> list[ScanCheck]:
    """The checks of the `ScanRefused` behind an error; else one, of reading the files, with this sentence."""
    while error is not None:
        if isinstance(error, ScanRefused):
            return error.checks
        error = error.__cause__ or error.__context__
    return [ScanCheck("files", REFUSE, sentence)]


@contextmanager
def refusals_as_responses() -> Iterator[None]:
    """Under MONAI Label an `InputError`, also a wrapped one, becomes the response 422 with its sentence."""
    try:
        yield
    except Exception as error:
        fastapi = sys.modules.get("fastapi") if is_served() else None
        sentence = input_error_message(error)
        if fastapi is None or sentence is None or isinstance(error, fastapi.HTTPException):
            raise
        raise fastapi.HTTPException(status_code=UNPROCESSABLE, detail=sentence) from error


def result_of_checks(checks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What MONAI Label returns next to the mask: warnings, and all checks."""
    return {"warnings": list_warnings(checks), "checks": [*checks]}


def add_check(data: Mapping[Hashable, Any], check: ScanCheck) -> dict[Hashable, Any]:
    """The data of a scan with one more check among its `checks`, and for MONAI Label among what it returns."""
    checks = [*json.loads(data["checks"]), check.as_mapping()]
    added = {**data, "checks": json.dumps(checks)}
    return {**added, "result": {**added.get("result", {}), **result_of_checks(checks)}} if is_served() else added


def is_served() -> bool:
    """Whether MONAI Label runs this code."""
    return "monailabel" in sys.modules


def _check_header(notes: Sequence[str]) -> ScanCheck:
    if notes:
        return ScanCheck("header", NOTE, f"The header of a file is doubtful: {'; '.join(notes)}.")
    return ScanCheck("header", OK, "The files' headers agree, and say where left and right are.")


def _check_copies(channels: Sequence[CheckedChannel]) -> ScanCheck:
    record = CaseRecord("")
    number = check_copies(channels, record)
    return _from_record("copied channels", "no channel is a copy of another", number, COPY_CORRELATION, record)


def _check_alignment(channels: Sequence[CheckedChannel]) -> ScanCheck:
    record = CaseRecord("")
    number = check_alignment(channels, record)
    record.problems = [f"{problem.rstrip('.')} ({TO_PREPARE})." for problem in record.problems]
    kind = "stripped" if all(channel.stripped for channel in channels) else "head"
    sound = "the channels lie on one another" if number is not None else "there are no two channels to compare"
    return _from_record("alignment", sound, number, ALIGNMENT_LIMITS[kind][0], record)


def _check_skull(channels: Sequence[CheckedChannel], trained_without: bool | None) -> ScanCheck:
    """Refused where a scan certainly shows the head, and the network was certainly trained on brains."""
    whole = [channel.name for channel in channels if channel.shows_head or not channel.stripped]
    if not whole:
        if trained_without is False:
            text = "The skull is removed, and the network was trained on heads: its masks may be wrong."
            return ScanCheck(SKULL, NOTE, text)
        return ScanCheck(SKULL, OK, "The skull is removed: all around the brain has one value.")
    if trained_without is False:
        return ScanCheck("head", OK, "The scan shows the head, as those that the network was trained on.")
    sure = trained_without is True and any(channel.shows_head for channel in channels)
    trained = "a network that was trained" if trained_without is None else "the network was trained"
    sentence = f"{', '.join(whole)} {'shows' if len(whole) == 1 else 'show'} more than the brain: {trained} on scans"
    sentence += " without the skull gives wrong masks" if trained_without is None else " without the skull"
    return ScanCheck(SKULL, REFUSE if sure else NOTE, f"{sentence}; remove it ({TO_PREPARE}).")


def _from_record(name: str, sound: str, number: float | None, limit: float | None, record: CaseRecord) -> ScanCheck:
    """Refused for the first problem of a record, else noted for its notes, else ok in the words of `sound`."""
    number = None if number is None else round(number, 6)
    if record.problems:
        return ScanCheck(name, REFUSE, record.problems[0], number, limit)
    if record.notes:
        return ScanCheck(name, NOTE, _sentence("; ".join(record.notes)), number, limit)
    return ScanCheck(name, OK, _sentence(sound), number, limit)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."
