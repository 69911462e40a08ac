"""Whom is it measured on? Synthetic patients and their data list, made without a word."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from bundle.commands.phantom import phantom
from bundle.commands.prepare import prepare


def drawn(folder: Path, cases: int, size: int, spacing: float) -> None:
    """Phantoms of `size` voxels of `spacing` mm a side."""
    with contextlib.redirect_stdout(io.StringIO()):
        phantom(str(folder), cases=cases, size=size, spacing=spacing)


def listed(folder: Path, out: Path) -> None:
    """Their data list, in two folds."""
    with contextlib.redirect_stdout(io.StringIO()):
        prepare(str(folder), out=str(out), folds=2, picture=False, workers=1)
