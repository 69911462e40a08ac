"""Studies of a folder as cases for the network: numbered, converted one at a time, never named after the patient."""

import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bundle.dicom.channels import Recognised, choose_channels, describe_choice
from bundle.dicom.stacks import DicomStudy, SliceStack, holds_dicom
from bundle.dicom.volumes import write_stack
from scripts.data.check_results import OK, ScanCheck
from scripts.data.images import is_volume
from scripts.data.scan_checks import list_checks
from scripts.errors import InputError
from scripts.files import read_mapping, walk_files, write_json
from scripts.inference.mask_records import RECORDS
from scripts.inference.worker_process import WorkerProcess
from scripts.scoring.tables import write_table

NUMBERS = "numbers.json"  # in the folder of records: the number of each study, by a salted hash of its identifiers
IDENTITIES = "identities.csv"
OWNER_ALONE = 0o600


class AnsweredStudy(NamedTuple):
    """The reply for a study, and the stack whose grid its mask has; None where it was refused."""

    reply: dict[str, Any]
    source: SliceStack | None


def is_dicom_input(path: Path) -> bool:
    """Whether an input is of DICOM files, and has no volumes in other formats next to them."""
    return holds_dicom(path) and not (path.is_dir() and any(is_volume(file) for file in walk_files(path)))


def name_studies(studies: Sequence[DicomStudy], out: Path) -> dict[str, DicomStudy]:
    """The studies by name, `case-001` and so on; a study keeps its number when others are added.

    Raises:
        InputError: the numbers cannot be read or written.
    """
    path = out / RECORDS / NUMBERS
    known = read_mapping(path) if path.is_file() else {"salt": secrets.token_hex(16)}
    hashes = [hashlib.sha256("\n".join([known["salt"], *study.key]).encode()).hexdigest() for study in studies]
    for sha256 in hashes:
        known.setdefault(sha256, len(known))  # the salt is the first entry
    write_json(path, known)
    return {f"case-{known[sha256]:03d}": study for sha256, study in zip(hashes, studies, strict=True)}


def write_identities(cases: Mapping[str, DicomStudy], out: Path) -> Path:
    """Write which case is which patient, readable for this user alone."""
    rows = []
    for case, study in cases.items():
        header = study.stacks[0].header
        about = [str(header.get(name, "")) for name in ("PatientID", "PatientName", "StudyDate", "StudyInstanceUID")]
        rows.append([case, *about, str(study.folder)])
    columns = ["case", "patient_id", "patient_name", "study_date", "study_uid", "folder"]
    path = out / IDENTITIES
    before = os.umask(0o777 & ~OWNER_ALONE)  # from the first byte on
    try:
        write_table(pd.DataFrame(rows, columns=columns), path)
    finally:
        os.umask(before)
    return path


def answer_studies(
    worker: WorkerProcess,
    cases: Mapping[str, DicomStudy],
    chosen: Mapping[str, str],
    resume: bool,
    prepare: Callable[[str, list[str]], Any] | None = None,
) -> Iterator[AnsweredStudy]:
    """Segment studies one after the other; the files that a reply names exist until the next one is asked for.

    Args:
        worker: the process that segments.
        cases: studies by name.
        chosen: channel to the name of a series, by the user.
        resume: skip those that are segmented already.
        prepare: of raw scans: from a case and its files to `bundle.raw.patient.PreparedPatient`.
    """
    channels = worker.settings["channels"]
    if unknown := sorted({*chosen} - {*channels}):
        raise InputError(f"--channels names {unknown[0]}: the network has {', '.join(channels)}.")
    for case, study in cases.items():
        with tempfile.TemporaryDirectory(prefix="segment-") as folder:
            try:
                found = choose_channels(study.stacks, channels, chosen)
                files = _write_channels(found, Path(folder), case)
                about = [ScanCheck("series", OK, f"{describe_choices(found)}.").as_mapping()]
                made = prepare(case, files) if prepare else None
            except InputError as error:
                yield AnsweredStudy(refuse_case(case, error), None)
                continue
            _, reply = worker.ask({"cases": [{"case": case, "image": made.image if made else files}], "resume": resume})
            if made:
                about += made.checks
                reply = {**reply, "preparation": made.record}
            reply = {**reply, "checks": [*about, *reply["checks"]]}
            stack = found[channels[made.reference if made else 0]].stack
            yield AnsweredStudy(reply, None if "refused" in reply else stack)


def refuse_case(case: str, error: InputError) -> dict[str, Any]:
    """The reply for a case that is refused before it reaches the network."""
    checks = [check.as_mapping() for check in list_checks(error, str(error))]
    return {"case": case, "refused": str(error), "checks": checks}


def describe_choices(found: Mapping[str, Recognised]) -> str:
    """Which series is which channel, and why."""
    return "; ".join(f"{channel} is {describe_choice(one)}" for channel, one in found.items())


def _write_channels(found: Mapping[str, Recognised], folder: Path, case: str) -> list[str]:
    """The file of each channel, in order."""
    files = []
    for place, one in enumerate(found.values()):
        path = folder / f"{case}-{place}.nii"
        write_stack(one.stack, path)
        files.append(str(path))
    return files
