"""Whether a scan is prepared already, by measurement: skull removed, channels on one grid and on one another."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.data.alignment_checks import check_alignment, check_edges
from scripts.data.case_record import CaseRecord
from scripts.data.channel_checks import summarise_channel
from scripts.data.images import GridImage, same_grid
from scripts.errors import InputError

PREPARED, STRIPPED, HEAD = "prepared", "stripped", "head"


def measure_state(scans: Mapping[str, GridImage], files: Sequence[Path]) -> str:
    """`PREPARED`, `STRIPPED` (the brain alone, but displaced or on other grids) or `HEAD`.

    Args:
        scans: name to channel.
        files: of the channels, for messages.

    Raises:
        InputError: a channel shows nothing, or has voxels that are not finite.
    """
    record = CaseRecord("")
    found = [
        summarise_channel(name, file, scan, record) for (name, scan), file in zip(scans.items(), files, strict=True)
    ]
    if record.problems:
        raise InputError(record.problems[0])
    channels = [channel for channel in found if channel is not None]
    if any(channel.shows_head or not channel.stripped for channel in channels):
        return HEAD
    first, *others = scans.values()
    if not all(same_grid(first, other) for other in others):
        return STRIPPED
    check_alignment(channels, record)
    check_edges(channels, record)
    return STRIPPED if record.problems else PREPARED
