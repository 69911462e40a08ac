"""Checks of the label of a case."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from scripts.data import pictures
from scripts.data.case_record import CaseRecord, ExpectedCase
from scripts.data.channel_checks import CheckedChannel, coarse_steps, unit_of
from scripts.data.images import ROUNDING, GridImage, read_stored, require_label_map, voxel_size
from scripts.errors import InputError


def check_label(
    path: Path,
    expected: ExpectedCase,
    frame: CheckedChannel | None,
    channels: Sequence[CheckedChannel],
    record: CaseRecord,
) -> None:
    """Check a label file against the scheme and the grid of the case; adds to the record.

    Args:
        path: the file.
        expected: of the case.
        frame: the channel whose grid the label must have; None: there is none.
        channels: those on that grid.
        record: gets problems, notes, counts and the volume.
    """
    try:
        image, sha256 = read_stored(path, "label")
        require_label_map(image.voxels.shape, path)
    except InputError as error:
        record.problems.append(str(error))
        return
    record.hashes[pictures.file_of_page(path)] = sha256
    record.add_notes(image.notes)
    if problem := _values_problem(path, image, record):
        record.problems.append(problem)
        return
    values, counts = np.unique(np.rint(image.voxels).astype(np.int64), return_counts=True)
    found = {int(v): int(n) for v, n in zip(values, counts, strict=True) if v != expected.labels_fill}
    if expected.ignore is not None and found.pop(expected.ignore, 0) == image.voxels.size:
        record.problems.append(
            f"{path} ignores every {unit_of(image.voxels)[:-1]} (all are {expected.ignore}): leave it out, or draw it."
        )
        return
    for value, count in found.items():
        record.counts[value] = record.counts.get(value, 0) + count
    if strange := sorted({*found} - {*expected.labels}):
        record.problems.append(_strange_values(path, image.voxels, record, strange, expected))
    if not found and not expected.empty_labels:
        record.problems.append(
            f"{path} is empty: it labels no {unit_of(image.voxels)[:-1]}; draw the tumour, or give --allow_empty if"
            " there is none."
        )
    axes = image.voxels.ndim
    sizes = [10.0] * axes if image.affine is None else nib.affines.voxel_sizes(image.affine)[:axes]
    unit = voxel_size(sizes) / 10**axes
    record.volume += sum(found.values()) * unit
    if frame is None:
        return
    if difference := frame.difference(image.voxels.shape, image.affine):
        record.problems.append(f"{path} {difference} of {frame.path.name}: resample it to that (nearest neighbour).")
    elif channels and found and frame.is_volume:
        drawn = image.voxels[coarse_steps(image)]
        tumour = (drawn > 0.5) & (drawn != (-1 if expected.ignore is None else expected.ignore))
        brain = np.any([channel.mask for channel in channels], axis=0)
        if tumour.any() and (share := 1 - float(brain[tumour].mean())) > 0.5:
            record.problems.append(
                f"{path}: {share:.0%} of the label lies outside the brain: find the label that belongs to these images."
            )


def _values_problem(path: Path, image: GridImage, record: CaseRecord) -> str | None:
    """Why the values are not a label; values close to a whole number are noted."""
    array = image.voxels
    if pictures.file_of_page(path).suffix.lower() in pictures.LOSSY:
        return f"{path} is a JPEG, whose compression changes the values of a label: save it again as PNG or TIFF."
    if pictures.is_picture(path) and array.ndim == 3:
        return f"{path} is a colour picture: a label has one value per pixel; save it in grey."
    if array.dtype.kind not in "biuf":
        return f"{path} holds {array.dtype}, expected whole numbers: export the label again."
    if array.dtype.kind != "f":
        return None
    if bad := int(array.size - np.count_nonzero(np.isfinite(array))):
        return f"{path}: the label holds {bad} {unit_of(array)} that are NaN or infinite: export it again."
    off = np.abs(array - np.rint(array))
    if off.max() > ROUNDING:
        example = array.ravel()[off.argmax()]
        return (
            f"{path}: the label holds {np.count_nonzero(off > ROUNDING)} {unit_of(array)} that are not whole numbers,"
            f" such as {example:g}: it was interpolated; resample it with nearest neighbour."
        )
    if off.max() > 0:
        example = array.ravel()[off.argmax()]
        record.notes.append(f"the label holds {float(example):.10g} and the like, read as {np.rint(example):g}.")
    return None


def _strange_values(
    path: Path, array: np.ndarray, record: CaseRecord, strange: Sequence[int], expected: ExpectedCase
) -> str:
    shown = ", ".join(f"{value} ({record.counts[value]} {unit_of(array)})" for value in strange[:5])
    shown += ", ..." if len(strange) > 5 else ""
    mark = f"; --ignore {strange[0]} if it marks voxels that nobody has drawn" if strange == [255] else ""
    return (
        f"{path} holds the value {shown}, which is not in label scheme {expected.scheme}"
        f"{expected.hint(record.case, {*record.counts})}: choose the scheme of these data, or fix the label{mark}."
    )
