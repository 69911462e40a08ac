"""The stacks of slices in a folder of DICOM files: by patient, study and series, in order, without gaps.

A series may hold several stacks: of another orientation, matrix, echo or b-value. Files are read in any order.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from scripts.errors import InputError
from scripts.files import walk_files

MISSING = "DICOM is read by pydicom and highdicom, which are not installed: pip install -r requirements-dicom.txt."
PREAMBLE = 132  # bytes, which end in DICM
SAME_POSITION = 0.01  # mm
EVEN = 0.02  # of a step, by which steps between slices may differ: headers round positions
LOOKED_AT = 50  # files of a folder, to see whether it holds DICOM


@dataclass
class SliceStack:
    """Slices of one series with one orientation, matrix, echo and b-value, or a multi-frame file.

    Attributes:
        header: of the first slice, without pixels.
        files: in the order of their positions.
        positions: of the slices along their normal, in mm, ascending; empty for a multi-frame file.
        name: number of the series, with a letter where it holds several stacks.
        orientations: how many orientations the series has.
    """

    header: Any
    files: list[Path]
    positions: list[float] = field(default_factory=list)
    name: str = ""
    orientations: int = 1

    @property
    def slices(self) -> int:
        """How many slices it has."""
        return int(self.find("NumberOfFrames") or len(self.files))

    def find(self, *keywords: str) -> Any:
        """The first of these attributes that the header has, at its top or in its functional groups."""
        groups = [self.header]
        for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            groups += [item for group in self.header.get(keyword, [])[:1] for item in _nested(group)]
        found = (group.get(keyword) for keyword in keywords for group in groups)
        return next((value for value in found if value not in (None, "")), None)


@dataclass
class DicomStudy:
    """One study of one patient.

    Attributes:
        key: patient and study, for grouping; never shown.
        folder: the first one that holds a file of it.
        stacks: of its series, in the order of their numbers.
    """

    key: tuple[str, str]
    folder: Path
    stacks: list[SliceStack]


def holds_dicom(folder: Path) -> bool:
    """Whether a folder, or a file, is of DICOM files: one of the first ones begins like such a file."""
    files = walk_files(folder) if folder.is_dir() else iter([folder])
    return any(is_dicom(path) for _, path in zip(range(LOOKED_AT), files, strict=False))


def is_dicom(path: Path) -> bool:
    """Whether a file begins like a DICOM file."""
    try:
        with path.open("rb") as stream:
            return stream.read(PREAMBLE).endswith(b"DICM")
    except OSError:
        return False


def require_dicom_readers() -> None:
    """Raise `InputError` where pydicom or highdicom is not installed."""
    if not all(find_spec(name) for name in ("pydicom", "highdicom")):
        raise InputError(MISSING)


def read_studies(folder: str | os.PathLike) -> list[DicomStudy]:
    """The studies below a folder, each of one patient, with the stacks of their MR series.

    Raises:
        InputError: a reader is not installed, a file is damaged, or there is no MR image.
    """
    require_dicom_readers()
    headers: dict[tuple[str, str], list[tuple[Path, Any]]] = defaultdict(list)
    seen: set[str] = set()
    for path, header in _read_headers(Path(folder)):
        if header.SOPInstanceUID not in seen:  # a copy of a file under another name
            seen.add(header.SOPInstanceUID)
            headers[str(header.get("PatientID", "")), str(header.get("StudyInstanceUID", ""))].append((path, header))
    if not headers:
        raise InputError(f"{folder} holds no MR image in DICOM: give the folder of a patient, or of several.")
    studies = [DicomStudy(key, own[0][0].parent, list(_stacks(own))) for key, own in headers.items()]
    return sorted(studies, key=lambda study: (str(study.folder), study.key))


def require_even_slices(stack: SliceStack) -> None:
    """Refuse a stack with slices that are missing, doubled or unevenly spaced, with their positions."""
    steps = np.diff(stack.positions)
    if not steps.size:
        return
    what = f"series {stack.name}"
    doubled = np.flatnonzero(steps < SAME_POSITION)
    if doubled.size:
        places = ", ".join(f"{stack.positions[k]:.1f}" for k in doubled[:3])
        raise InputError(
            f"{what} has two slices at {places} mm along its normal: export the series again, each slice once."
        )
    usual = float(np.median(steps))
    odd = np.flatnonzero(np.abs(steps - usual) > EVEN * usual)
    if odd.size:
        gaps = [f"{stack.positions[k]:.1f} to {stack.positions[k + 1]:.1f}" for k in odd[:3]]
        raise InputError(
            f"{what} has slices every {usual:.2f} mm, but not from {', '.join(gaps)} mm along its normal: a"
            " slice is missing, or they are unevenly spaced; export the series again, whole."
        )


def _read_headers(folder: Path) -> Iterator[tuple[Path, Any]]:
    import pydicom
    from pydicom.errors import InvalidDicomError

    for path in walk_files(folder) if folder.is_dir() else [folder]:
        if not is_dicom(path):
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            usable = header.get("Modality") == "MR" and "Rows" in header and "SOPInstanceUID" in header
        except (InvalidDicomError, EOFError, ValueError, OSError, AttributeError, NotImplementedError) as error:
            raise InputError(f"{path} cannot be read as DICOM ({type(error).__name__}): export it again.") from error
        if usable:
            yield path, header


def _stacks(headers: list[tuple[Path, Any]]) -> Iterator[SliceStack]:
    """The stacks of a study, by series and what tells them apart."""
    series: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
    for path, header in headers:
        series[str(header.SeriesInstanceUID)].append((path, header))
    names: dict[str, int] = defaultdict(int)
    for own in sorted(series.values(), key=lambda found: (int(found[0][1].get("SeriesNumber") or 0), found[0][0])):
        parts: dict[tuple, list[tuple[float, Path, Any]]] = defaultdict(list)
        orientations = set()
        for path, header in own:
            if "NumberOfFrames" in header:
                parts[("frames", path)].append((0.0, path, header))
                continue
            if "ImageOrientationPatient" not in header or "ImagePositionPatient" not in header:
                continue
            row, column = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
            normal = np.cross(row, column)
            turn = tuple(np.round([*row, *column], 3))
            orientations.add(turn)
            key = (turn, header.Rows, header.Columns, header.get("EchoTime"), header.get("DiffusionBValue"))
            parts[key].append((float(np.dot(normal, np.array(header.ImagePositionPatient, float))), path, header))
        number = str(own[0][1].get("SeriesNumber") or "without number")
        for slices in parts.values():
            slices.sort(key=lambda one: (one[0], str(one[1])))
            positions = [] if "NumberOfFrames" in slices[0][2] else [one[0] for one in slices]
            letter = chr(ord("a") + names[number]) if len(parts) > 1 or names[number] else ""
            names[number] += 1
            files = [one[1] for one in slices]
            yield SliceStack(slices[0][2], files, positions, f"{number}{letter}", max(1, len(orientations)))


def _nested(group: Any) -> list[Any]:
    """A functional group and the items of its sequences, two levels deep."""
    items = [group]
    for element in group:
        if element.VR == "SQ":
            items += list(element.value)
    return items
