"""Reading and writing of CSV tables whose text no spreadsheet takes for a formula.

Spreadsheets compute a cell that begins with =, +, -, @, a tab or a carriage return, and names of cases and patients
come from files of anybody. Such text is written with an apostrophe in front, unless it is a number; reading takes it
off.
"""

import csv
import os
from collections.abc import Callable
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from scripts.files import write_text

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_table(frame: pd.DataFrame, path: str | os.PathLike) -> None:
    """Write a table as CSV without its index, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    frame = _change_text(frame, _quote)
    text = frame.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # in a cell: without quotes it would end the row
        text = frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    write_text(path, text)


def read_table(path: str | os.PathLike, **options: Any) -> pd.DataFrame:
    """Read a table that `write_table` wrote, or any other CSV: empty text stays empty, numbers keep every bit.

    Args:
        path: the file.
        options: of `pandas.read_csv`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a table.
    """
    # pandas' faster parser may lose the last bit of a number
    return _change_text(pd.read_csv(path, keep_default_na=False, float_precision="round_trip", **options), _unquote)


def _change_text(frame: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    text = [name for name in frame.columns if not is_numeric_dtype(frame[name])]
    return frame.assign(**{name: frame[name].map(change) for name in text})


def _quote(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and _is_formula(cell.lstrip("'")) else cell


def _unquote(cell: Any) -> Any:
    return cell[1:] if isinstance(cell, str) and cell.startswith("'") and _is_formula(cell.lstrip("'")) else cell


def _is_formula(cell: str) -> bool:
    if not cell.startswith(FORMULA):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return cell[0] in "=@\t\r"
