"""What a case should hold, and what the checks of its files found."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


def no_label_hint(case: str, values: set[int]) -> str:
    """No advice about label values that are not in the scheme."""
    return ""


class ExpectedCase(NamedTuple):
    """What a case should hold.

    Attributes:
        channels: in the order of the network's input.
        labels: the values of the label scheme.
        scheme: the label scheme in words, for messages.
        labels_fill: the background value.
        empty_labels: whether labels may hold nothing but background.
        ignore: the label value of voxels to ignore; None: there are none.
        hint: given a case and the values of its label, advice for values outside the scheme.
    """

    channels: Sequence[str]
    labels: frozenset[int]
    scheme: str
    labels_fill: int = 0
    empty_labels: bool = False
    hint: Callable[[str, set[int]], str] = no_label_hint
    ignore: int | None = None


@dataclass
class CaseRecord:
    """Results of reading the files of a case, small enough to keep for a cohort of thousands.

    Attributes:
        case: its name.
        group: the patient or volume of a slice; the case itself if it is not a slice.
        problems: why it cannot be used, one sentence each.
        notes: remarks on a case that can be used.
        hashes: each file's sha256.
        channels: each channel's sha256 of the voxels.
        shape: of the image, in voxels.
        spacing: in mm; None if the files have none.
        orientation: such as LPS.
        bright: each channel's log of the 99th percentile in the brain.
        counts: voxels per label value, without background and voxels to ignore; of all raters.
        volume: of the tumour, all labels together, in ml; in cm² for two axes; in pixels without a spacing. The mean
            over raters.
        stripped: whether its channels show the brain alone; False if one certainly shows the head; None: unknown.
        picture: what was made of its files for the picture of the cohort, if that was asked for.
    """

    case: str
    group: str = ""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hashes: dict[Path, str] = field(default_factory=dict)
    channels: dict[str, str] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] | None = ()
    orientation: str = ""
    bright: dict[str, float] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    volume: float = 0.0
    stripped: bool | None = None
    picture: Any = field(default=None, compare=False)

    @property
    def voxels(self) -> str:
        """The sha256 of the voxels of all channels, whatever the files' compression, header or number type."""
        return hashlib.sha256("".join(self.channels.values()).encode()).hexdigest()

    def add_notes(self, notes: Iterable[str]) -> None:
        """Add the notes that it does not have yet."""
        self.notes.extend(note for note in notes if note not in self.notes)
