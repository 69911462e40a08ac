"""Checks of one case: each file is read once, to its end, and problems are reported in sentences."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from scripts.data import pictures
from scripts.data.alignment_checks import check_alignment, check_edges
from scripts.data.case_files import Case
from scripts.data.case_record import CaseRecord, ExpectedCase
from scripts.data.channel_checks import CheckedChannel, check_copies, hash_voxels, summarise_channel
from scripts.data.images import GridImage, read_stored
from scripts.data.label_checks import check_label
from scripts.data.nifti import by_axis
from scripts.errors import InputError


def check_case(case: Case, expected: ExpectedCase) -> CaseRecord:
    """Read the files of one case, each once, and report problems.

    Args:
        case: its files; problems that the layout found stay in the record.
        expected: its channels and labels.
    """
    record = CaseRecord(case.case, case.patient or case.volume or case.case, list(case.problems))
    channels = list(read_channels(case, expected, record))
    frame = _check_geometry(channels, record)
    sound = [channel for channel in channels if frame and channel.shape == frame.shape]
    check_copies(sound, record, case.slice)
    check_alignment(sound, record)
    if not record.problems:
        check_edges(sound, record)
    if sound and all(channel.is_volume for channel in sound):
        heads = any(channel.shows_head for channel in sound)
        record.stripped = False if heads else all(channel.stripped for channel in sound) or None
    record.bright = {channel.name: channel.bright for channel in sound if channel.mask.any()}
    if channels and not record.channels:
        record.problems.append(f"{case.images[0]} shows nothing in any channel: leave it out.")
    drawn = [file for file in case.label_files().values() if not _was_said_missing(file, record)]
    for file in drawn:
        check_label(file, expected, frame, sound, record)
    record.volume /= max(1, len(drawn))
    return record


def read_channels(case: Case, expected: ExpectedCase, record: CaseRecord) -> Iterator[CheckedChannel]:
    """The usable channels of a case; each other channel adds a problem to the record."""
    names = expected.channels if len(case.images) == len(expected.channels) else [path.name for path in case.images]
    for path, name in zip(case.images, names, strict=True):
        if _was_said_missing(path, record):
            continue
        try:
            image, sha256 = read_stored(path)
        except InputError as error:
            record.problems.append(str(error))
            continue
        record.hashes[pictures.file_of_page(path)] = sha256
        record.add_notes(image.notes)
        if pictures.is_picture(path) and not case.stacked and image.voxels.ndim == 3:
            image = image._replace(voxels=pictures.to_grey(image.voxels))
            if image.voxels.ndim == 2:
                record.notes.append("a colour picture that is all grey is read as one channel")
        if problem := _form_problem(path, image, case, expected):
            record.problems.append(problem)
            continue
        arrays = np.moveaxis(image.voxels, -1, 0) if case.stacked else [image.voxels]
        for channel, array in zip(expected.channels if case.stacked else [name], arrays, strict=True):
            if checked := summarise_channel(channel, path, image._replace(voxels=array), record, case.slice):
                if checked.mask.any():
                    record.channels[channel] = hash_voxels(array)
                yield checked


def _was_said_missing(path: Path, record: CaseRecord) -> bool:
    """Whether the file does not exist and the layout has reported it."""
    file = pictures.file_of_page(path)
    return not file.is_file() and any(str(file) in problem for problem in record.problems)


def _form_problem(path: Path, image: GridImage, case: Case, expected: ExpectedCase) -> str | None:
    """Why an array of this shape and type cannot be the channels of a case."""
    shape, kind = image.voxels.shape, image.voxels.dtype
    if pictures.is_picture(path) and len(shape) == 3 and not case.stacked:
        return (
            f"{path} is a colour picture, expected one channel: save it in grey, or name its colours as channels with"
            " one pattern for all (R=...,G=...,B=...)."
        )
    if len(shape) - case.stacked not in (2, 3) or kind.kind not in "biuf":
        return (
            f"{path} has shape {by_axis(shape)} of type {kind}, expected two or three dimensions"
            f"{' and one of channels' if case.stacked else ''} of plain numbers: export it again."
        )
    if case.stacked and shape[-1] != len(expected.channels):
        return (
            f"{path} holds {shape[-1]} channels, expected {len(expected.channels)} ({', '.join(expected.channels)}):"
            " add the missing one, or fix the channel names."
        )
    return None


def _check_geometry(channels: Sequence[CheckedChannel], record: CaseRecord) -> CheckedChannel | None:
    """The channel whose grid most others share; each channel on another grid adds a problem."""
    if not channels:
        return None
    frame = max(channels, key=lambda one: sum(one.difference(other.shape, other.affine) is None for other in channels))
    record.shape = frame.shape
    record.spacing = None
    if frame.affine is not None:
        sizes = nib.affines.voxel_sizes(frame.affine)[: len(frame.shape)]
        record.spacing = tuple(round(float(size), 4) for size in sizes)
        record.orientation = "".join(nib.aff2axcodes(frame.affine)[: len(frame.shape)])
    for channel in channels:
        if difference := frame.difference(channel.shape, channel.affine):
            record.problems.append(
                f"{channel.path} {difference} of {frame.path.name}: resample or register it to that."
            )
    return frame
