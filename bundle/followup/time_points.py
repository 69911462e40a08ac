"""The time points in a patient's folder: one folder of files each, or one study in DICOM each, in order of date."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bundle.dicom.cases import is_dicom_input
from bundle.dicom.stacks import DicomStudy, holds_dicom, read_studies
from bundle.followup.days import (
    When,
    days_between,
    find_date,
    read_date,
    read_dates_file,
    read_day_of_name,
    refuse_unclear_signs,
)
from scripts.data.images import is_volume
from scripts.errors import InputError
from scripts.files import walk_files

STUDY_DATES = ("StudyDate", "AcquisitionDate", "SeriesDate")


class TimePoint(NamedTuple):
    """One time point.

    Attributes:
        day: since the first time point.
        folder: that holds its files.
        study: of DICOM.
    """

    day: int
    folder: Path
    study: DicomStudy | None = None

    @property
    def case(self) -> str:
        """Its name in the output: `day000`, without a date."""
        return f"day{self.day:03d}"


class Timeline(NamedTuple):
    """The time points of a patient by day; `first` is the date of the first one, or its day in the names."""

    points: list[TimePoint]
    first: When
    left_out: list[str]

    def find_day(self, text: str, option: str) -> int:
        """Days since the first time point, of a date or of a number: that of a day in the folders' names, if any."""
        when = read_date(text, option)
        since = isinstance(when, int) and not isinstance(self.first, int)
        return when if since else days_between(self.first, when, option)


class _Found(NamedTuple):
    name: str  # of the folder in the patient's
    folder: Path
    study: DicomStudy | None = None


def find_time_points(patient: Path, dates: Path | None = None) -> Timeline:
    """The time points in the folder of a patient.

    Args:
        patient: the folder, which holds one folder per time point; DICOM in any order.
        dates: a file with the date or day of each folder; None: by the names of the folders, or the dates in DICOM.

    Raises:
        InputError: there are fewer than two, a date is missing or ambiguous, or two have the same date.
    """
    if not patient.is_dir():
        kind = "is a file" if patient.exists() else "does not exist"
        raise InputError(f"{patient} {kind}: give the folder of a patient, which holds one folder per time point.")
    found, left_out = _find(patient)
    if len(found) < 2:
        there = f"{len(found)} time point ({found[0].name})" if found else "no time point"
        raise InputError(
            f"{patient} holds {there}: a follow-up needs two or more, each in a folder of its own named by its date,"
            " such as 2019-03-21."
        )
    listed = read_dates_file(dates) if dates else None
    if listed and (unknown := sorted({*listed} - {one.name for one in found})):
        raise InputError(f"--dates {dates} lists {unknown[0]}, which is not a folder with a scan in {patient}.")
    if listed is None:
        refuse_unclear_signs([one.name for one in found if one.study is None])
    dated = [(one, _find_day(one, listed, dates)) for one in found]
    first = _earliest(dated)
    points: dict[int, TimePoint] = {}
    for one, when in dated:
        day = days_between(first, when, str(one.folder))
        if same := points.get(day):
            raise InputError(
                f"{same.folder} and {one.folder} have the same date: move one of them out of the folder, or give them"
                " days in --dates FILE."
            )
        points[day] = TimePoint(day, one.folder, one.study)
    return Timeline([points[day] for day in sorted(points)], first, left_out)


def _find(patient: Path) -> tuple[list[_Found], list[str]]:
    """The time points without their days, and the folders without a scan."""
    if is_dicom_input(patient):
        return _studies(patient, patient), []
    inside = sorted(path for path in patient.iterdir() if not path.name.startswith("."))
    if loose := [path.name for path in inside if path.is_file() and is_volume(path)]:
        raise InputError(
            f"{patient} holds scans outside of its folders, such as {loose[0]}: put the files of each time point into"
            " a folder of its own, named by its date, such as 2019-03-21."
        )
    found, left_out = list[_Found](), list[str]()
    for folder in (path for path in inside if path.is_dir()):
        if any(is_volume(file) for file in walk_files(folder)):
            found.append(_Found(folder.name, folder))
        elif holds_dicom(folder):
            found += _studies(folder, patient)
        else:
            left_out.append(folder.name)
    return found, left_out


def _studies(folder: Path, patient: Path) -> list[_Found]:
    """The studies in DICOM below a folder, by the folder of the patient's that holds each.

    Raises:
        InputError: they are of several patients.
    """
    studies = read_studies(folder)
    if (patients := len({study.key[0] for study in studies})) > 1:
        raise InputError(f"{folder} holds DICOM of {patients} patients by their IDs: give the folder of one patient.")
    names = [study.folder.resolve().relative_to(patient.resolve()).parts[:1] for study in studies]
    return [_Found((*name, patient.name)[0], study.folder, study) for name, study in zip(names, studies, strict=True)]


def _find_day(one: _Found, listed: Mapping[str, When] | None, dates: Path | None) -> When:
    if listed is not None:
        if one.name not in listed:
            raise InputError(f"--dates {dates} does not list folder {one.name}: add it, or move the folder away.")
        return listed[one.name]
    if one.study is not None:
        header = one.study.stacks[0].header
        if text := next((str(header.get(name)) for name in STUDY_DATES if header.get(name)), None):
            when = read_date(text, f"the date in DICOM of {one.folder}")
            if (named := find_date(one.name)) and named != when:
                raise InputError(
                    f"{one.folder} is named by {named}, and its DICOM says {when}: list the right date in --dates FILE."
                )
            return when
    return read_day_of_name(one.name, str(one.folder))


def _earliest(dated: Sequence[tuple[_Found, When]]) -> When:
    _, when = dated[0]
    for one, other in dated[1:]:
        if days_between(when, other, str(one.folder)) < 0:
            when = other
    return when
