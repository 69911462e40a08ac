"""What several commands do in the same way: options read and checked, tables and lines printed."""

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from scripts.errors import InputError


def items(option: Any) -> list[str] | None:
    """`"a,b"` as a list, None as it is; Fire makes a tuple where it can, and numbers of names like 1."""
    if option is None:
        return None
    parts = option if isinstance(option, (list, tuple)) else str(option).split(",")
    return [str(part).strip() for part in parts if str(part).strip()]


def require_whole(least: int, **options: Any) -> None:
    """The options, by name, are whole numbers of `least` or more."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"--{name} is {value!r}: give a whole number of {least} or more.")


def score_table(title: str, *columns: Column | str) -> Table:
    """A table with a title; a column that is given by its heading alone holds numbers, set to the right."""
    aligned = [Column(column, justify="right") if isinstance(column, str) else column for column in columns]
    return Table(*aligned, title=Text(title), box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))


def print_lines(console: Console, lines: Iterable[str], warnings: Iterable[str] = ()) -> None:
    """Print each text on a line of its own, however long, as it is."""
    for line in [*lines, *(f"WARNING: {text}" for text in warnings)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
