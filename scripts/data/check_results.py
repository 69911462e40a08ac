"""The result of a check of a scan: status, sentence, number, limit, and the place that it is about."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

OK, NOTE, REFUSE, SKIPPED = "ok", "note", "refuse", "not checked"
TO_PREPARE = "`python -m bundle segment PACKAGE INPUT --out OUT --raw` does that"  # what a user of any program can do


class ScanPlace(NamedTuple):
    """Where in a scan a fault is seen best.

    Attributes:
        channel: its name.
        axis: of the voxels, which the slice is perpendicular to; None: any.
        slice: its number along this axis, in the file's own order.
        other: the channel that it was compared with; None: none.
    """

    channel: str
    axis: int | None = None
    slice: int | None = None
    other: str | None = None


class ScanCheck(NamedTuple):
    """The result of one check.

    Attributes:
        name: of the check.
        status: `ok`, `note`, `refuse`, or `not checked`, for which the sentence gives the reason.
        sentence: what was found, in words.
        number: what was measured; None where the check is not of a number.
        limit: beyond which the number is noted or refused.
        place: where in the scan; None where it is not of one channel.
    """

    name: str
    status: str
    sentence: str
    number: float | None = None
    limit: float | None = None
    place: ScanPlace | None = None

    def as_mapping(self) -> dict[str, Any]:
        """The check as answer.json holds it."""
        return {**self._asdict(), "place": self.place._asdict() if self.place else None}


def list_warnings(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """The sentences of the checks that noted a doubt."""
    return [str(check["sentence"]) for check in checks if check["status"] == NOTE]
