"""Checks that cases have passed, kept in a file: a second `prepare` reads only the files that have changed."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bundle.cohort.outliers import check_cases
from scripts.data import (
    alignment_checks,
    brain_masks,
    case_checks,
    case_record,
    channel_checks,
    channel_pairs,
    images,
    label_checks,
    nifti,
    pictures,
    slide_checks,
    slides,
    tensor_files,
)
from scripts.data.case_files import Case
from scripts.data.case_record import CaseRecord, ExpectedCase
from scripts.data.datalist import file_hash
from scripts.files import write_json

CODE = (alignment_checks, brain_masks, case_checks, case_record, channel_checks, channel_pairs, images, label_checks)
CODE += (nifti, pictures, slide_checks, slides, tensor_files)
LIBRARIES = ("nibabel", "numpy", "scipy", "scikit-image", "pillow", "tifffile", "torch")


def checks_path(datalist: str | os.PathLike, folder: str | os.PathLike) -> Path:
    """The file next to a data list that keeps the passed checks of the cases of `folder`."""
    root = Path(folder).resolve()
    return Path(datalist).parent / ".checks" / f"{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}.json"


def check_changed_cases(
    cases: Sequence[Case],
    expected: ExpectedCase,
    kept: Path | None,
    recheck: bool = False,
    workers: int | None = None,
    pictures_of: Mapping[str, Callable[[Case], Any]] | None = None,
) -> tuple[list[CaseRecord], int]:
    """Check the cases that have not passed before, and keep those that pass.

    A case is checked again when the path, size or a time of one of its files has changed, the expected channels or
    labels, the code of the checks, or the version of a library that reads the files.

    Args:
        cases: all of a folder; others that the file holds are dropped from it.
        expected: as for `scripts.data.case_checks.check_case`.
        kept: the file (`checks_path`); one that is missing or damaged counts as empty. None: no file.
        recheck: check all cases again.
        workers: as for `check_cases`.
        pictures_of: as for `check_cases`.

    Returns:
        The records by case, and the number of cases that were not read again.

    Raises:
        InputError: a process was killed, most likely out of memory, or `kept` cannot be written.
    """
    code = [*(file_hash(str(module.__file__)) for module in CODE), *map(version, LIBRARIES)]
    keys = {case.case: _key(case, expected, code) for case in cases}  # before a file is read: it may change meanwhile
    before = {} if recheck or kept is None else _read(kept)
    found = {name: before[key] for name, key in keys.items() if key in before}
    checked = check_cases([case for case in cases if case.case not in found], expected, workers, pictures_of)
    records = sorted([*found.values(), *checked], key=lambda record: record.case)
    if kept is not None and (checked or len(before) > len(found)):
        content = {keys[record.case]: _to_json(record) for record in records if not record.problems}
        write_json(kept, {"sha256": _digest(content), "passed": content})
    return records, len(found)


def _key(case: Case, expected: ExpectedCase, code: Sequence[str]) -> str:
    """A hash of all that the record of a case depends on; ctime tells a file that was put back with an old mtime."""
    files = [pictures.file_of_page(path) for path in (*case.images, *case.label_files().values())]
    stats = [file.stat() for file in files if file.exists()]  # a case that lacks one never passes
    times = [(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats]
    wanted = (*expected.channels, sorted(expected.labels), expected.labels_fill, expected.empty_labels, expected.ignore)
    return hashlib.sha256(repr((case, times, wanted, code)).encode(errors="surrogateescape")).hexdigest()


def _read(kept: Path) -> dict[str, CaseRecord]:
    try:
        content = json.loads(kept.read_text(encoding="utf-8"))
        passed = content["passed"] if content["sha256"] == _digest(content["passed"]) else {}
        return {key: _from_json(record) for key, record in passed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _to_json(record: CaseRecord) -> dict[str, Any]:
    hashes = {str(path): value for path, value in record.hashes.items()}
    return {**asdict(replace(record, picture=None)), "hashes": hashes}


def _from_json(content: dict[str, Any]) -> CaseRecord:
    changed = {
        "hashes": {Path(path): value for path, value in content["hashes"].items()},
        "counts": {int(value): count for value, count in content["counts"].items()},
        "shape": tuple(content["shape"]),
        "spacing": content["spacing"] and tuple(content["spacing"]),
    }
    return CaseRecord(**{**content, **changed})
