"""Days of time points, from dates or day numbers in the names of folders, in a file, or in words of the user."""

import csv
import json
import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from scripts.errors import InputError

When = date | int  # a date, or the number of a day
DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_.]?)(\d\d)\2(\d\d)(?!\d)")
DAY = re.compile(r"(?<![a-zA-Z])(day|week)[-_ ]?(\d{1,5})(?!\d)", re.IGNORECASE)
SIGNED = re.compile(r"(?<![a-zA-Z])(?:day|week)-[1-9]\d*(?!\d)", re.IGNORECASE)  # its hyphen may be a minus
UNSIGNED = re.compile(r"(?<![a-zA-Z])(?:day|week)[_ ]?\d", re.IGNORECASE)
OTHER_ORDER = re.compile(r"(?<!\d)\d{1,2}([-_./])\d{1,2}\1(?:\d{4}|\d\d)(?!\d)")
EXPECTED = "name it 2019-03-21 or 20190321 (year, month, day), day-030 or week-04, or list it in --dates FILE"
FILE_FORM = "expected a table with the columns folder,date or folder,day, or JSON as {folder: date}"


def read_day_of_name(name: str, what: str) -> When:
    """The date or day that a name holds.

    Args:
        name: of a folder.
        what: the folder, for messages.

    Raises:
        InputError: there is none, there are several, or day and month may be exchanged.
    """
    found = {_make_date(match, what) for match in DATE.finditer(name)}
    days = {int(number) * (7 if unit.lower() == "week" else 1) for unit, number in DAY.findall(name)}
    several = [*found, *days]
    if len(several) == 1:
        return several[0]
    if several:
        raise InputError(f"{what} has more than one date or day in its name: {EXPECTED}.")
    if match := OTHER_ORDER.search(name):
        raise InputError(f"{what} has {match[0]} in its name, whose day and month may be exchanged: {EXPECTED}.")
    raise InputError(f"{what} has no date in its name: {EXPECTED}.")


def find_date(name: str) -> date | None:
    """The one date in the name of a folder; None where there is none, or several."""
    found = {match[0] for match in DATE.finditer(name)}
    match = DATE.search(name)
    return _make_date(match, name) if match and len(found) == 1 else None


def refuse_unclear_signs(names: Iterable[str]) -> None:
    """Raise `InputError` where a hyphen before a day may be a minus: `day-7` next to `day0`."""
    names = list(names)
    minus = next((name for name in names if SIGNED.search(name)), None)
    if minus and any(UNSIGNED.search(name) for name in names):
        raise InputError(
            f"{minus} may be days before or after: list it in --dates FILE, or write all names alike, as day-007 and"
            " day-030."
        )


def read_date(text: Any, what: str) -> When:
    """A date (2019-03-21, 20190321) or the number of a day.

    Args:
        text: as the user wrote it.
        what: where it is from, for messages.

    Raises:
        InputError: it is neither, or the date is in the future.
    """
    words = str(text).strip()
    if match := DATE.fullmatch(words):
        return _make_date(match, what)
    if re.fullmatch(r"[+-]?\d{1,5}", words):
        return int(words)
    exchanged = ", whose day and month may be exchanged" if OTHER_ORDER.fullmatch(words) else ""
    raise InputError(f"{what} is {words!r}{exchanged}: expected a date as 2019-03-21, or the number of a day.")


def read_dates_file(path: Path) -> dict[str, When]:
    """The date or day of each folder, from a CSV or JSON file.

    Raises:
        InputError: the file cannot be read, or has another form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--dates {path} cannot be read ({error}): {FILE_FORM}.") from error
    rows = _rows_of_json(text) if path.suffix.lower() == ".json" else _rows_of_table(text)
    found: dict[str, When] = {}
    for folder, when in rows:
        if folder in found:
            raise InputError(f"--dates {path} has folder {folder} twice: list each folder once.")
        found[folder] = read_date(when, f"the date of {folder} in {path}")
    if not found:
        raise InputError(f"--dates {path} lists no folder: {FILE_FORM}.")
    return found


def days_between(first: When, when: When, what: str) -> int:
    """The days from the first time point.

    Raises:
        InputError: one is a date and the other the number of a day.
    """
    if isinstance(first, date) and isinstance(when, date):
        return (when - first).days
    if isinstance(first, int) and isinstance(when, int):
        return when - first
    raise InputError(f"{what} has a date where others have the number of a day: use one of both for all.")


def hide_dates(text: str, folder: Path, case: str) -> str:
    """A sentence without the names of a time point's folder and without dates, which would tell when a patient was
    scanned.
    """
    name = re.escape(folder.name)
    text = re.sub(rf"(?<=case ){name}\b|(?<!\w){name}(?=[/_.-])", case, text.replace(str(folder), case))
    return DATE.sub("(date)", text)


def _make_date(match: re.Match[str], what: str) -> date:
    try:
        made = date(int(match[1]), int(match[3]), int(match[4]))
    except ValueError as error:
        raise InputError(
            f"{what} has {match[0]}, which is not a date in the order year, month, day: {EXPECTED}."
        ) from (error)
    if made > date.today():
        raise InputError(f"{what} has {match[0]}, which is in the future: correct it, or list it in --dates FILE.")
    return made


def _rows_of_table(text: str) -> Iterable[tuple[str, Any]]:
    table = csv.DictReader(text.splitlines(), skipinitialspace=True)
    columns = [name.strip().lower() for name in table.fieldnames or []]
    if "folder" not in columns or not {"date", "day"} & {*columns}:
        raise InputError(f"--dates has the columns {', '.join(columns) or 'none'}: {FILE_FORM}.")
    table.fieldnames = columns
    kind = "date" if "date" in columns else "day"
    for row in table:
        yield (row["folder"] or "").strip(), row[kind] or ""


def _rows_of_json(text: str) -> Iterable[tuple[str, Any]]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"--dates is not JSON ({error}): {FILE_FORM}.") from error
    if not isinstance(content, dict):
        raise InputError(f"--dates holds a {type(content).__name__}: {FILE_FORM}.")
    return content.items()
