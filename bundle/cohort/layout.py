"""Cases of a folder and the files that make them, before any file is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bundle.cohort.tasks import Task


@dataclass
class Case:
    """The files of one case.

    Attributes:
        case: its name.
        images: one file a channel, in order; or, `stacked`, one file of them all. A page of a TIFF is written
            `stack.tif#5` (see `scripts.data.pictures`).
        label: if there is one.
        stacked: the channels are the last axis of one file.
        problems: what the layout promises and is not there.
        patient: as the file names tell.
        volume: for a slice, of what it is one.
        slice: its number there.
    """

    case: str
    images: list[Path]
    label: Path | None = None
    stacked: bool = False
    problems: list[str] = field(default_factory=list)
    patient: str | None = None
    volume: str | None = None
    slice: int | None = None


@dataclass
class Layout:
    """A folder understood: how it was recognised, what is segmented in it, its cases, and what the user should know."""

    name: str
    task: Task
    cases: list[Case]
    notes: list[str] = field(default_factory=list)
