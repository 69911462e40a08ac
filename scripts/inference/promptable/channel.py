"""The channel of a scan that a promptable model sees: a file of its own, or one of a file with all channels."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scripts.data.case_files import find_cases
from scripts.data.images import is_volume, read_volume
from scripts.errors import InputError


class ChannelImage(NamedTuple):
    """One channel of a scan.

    Attributes:
        voxels: [H, W, D], in the file's axis order.
        affine: from voxels to mm.
        file: that it was read from.
    """

    voxels: np.ndarray
    affine: np.ndarray
    file: Path


def read_channel(
    source: str | os.PathLike | Sequence[str],
    channel: str | None,
    channels: Sequence[str] | None,
    channel_files: Mapping[str, Sequence[str]] | None = None,
) -> ChannelImage:
    """Read one channel.

    Args:
        source: the folder of one patient; a file of one channel, which is read whatever `channel` is; a file of all of
            them; or the files of all of them, in order.
        channel: a name of `channels`, or the number in the file, from 0.
        channels: names in the order of the files; None: not known, so that only a number will do.
        channel_files: patterns of the files of a folder.

    Raises:
        InputError: there is no such channel, it is not named where there are several, or the file is not a volume.
    """
    if not isinstance(source, str | os.PathLike):
        return read_channel(source[_number(channel, len(source), channels, ", ".join(source))], None, None)
    path = Path(source)
    if path.is_dir():
        return read_channel(_find_file(path, channel, channel_files or {}), channel, channels)
    if not is_volume(path):
        raise InputError(f"{path} is not a volume: expected NIfTI, NRRD or MetaImage, or the folder of a patient.")
    voxels, affine, _ = read_volume(path)
    if voxels.ndim == 4:
        voxels = voxels[..., _number(channel, voxels.shape[3], channels, str(path))]
    if voxels.ndim != 3:
        raise InputError(f"{path} has {voxels.ndim} axes: expected a volume [H, W, D].")
    if not np.isfinite(voxels).all():
        raise InputError(f"{path} holds NaN or infinite voxels: expected finite intensities; convert it again.")
    return ChannelImage(voxels, affine, path)


def _find_file(folder: Path, channel: str | None, channel_files: Mapping[str, Sequence[str]]) -> Path:
    if channel is None or channel not in channel_files:
        found = "no --channel is given" if channel is None else f"--channel is {channel}"
        raise InputError(f"{folder} is a folder, and {found}: expected one of {', '.join(channel_files)}.")
    files = [case.images[channel] for case in find_cases(folder, {channel: channel_files[channel]}) if case.images]
    if len(files) != 1:
        patterns = ", ".join(channel_files[channel])
        raise InputError(
            f"{folder} holds {len(files)} files of {channel} by the names {patterns}: give the file itself, or --task"
            " for other names."
        )
    return files[0]


def _number(channel: str | None, number: int, channels: Sequence[str] | None, where: str) -> int:
    named = channels if channels and len(channels) == number else ()
    if channel is not None and channel in named:
        return named.index(channel)
    if channel is not None and channel.isdecimal() and int(channel) < number:
        return int(channel)
    expected = f"{', '.join(named)}, or " if named else ""
    hint = "" if named else "; --task names them, if its channels are in this order"
    found = "no --channel is given" if channel is None else f"--channel is {channel}"
    raise InputError(
        f"{where} holds {number} channels, and {found}: expected {expected}a number from 0 to {number - 1}{hint}."
    )
