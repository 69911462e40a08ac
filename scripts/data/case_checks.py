"""Checks of one case: each file is read once, to its end, and problems are reported in sentences."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from scripts.data import pictures
from scripts.data.case_files import Case
from scripts.data.channel_pairs import (
    DISPLACED_MM,
    EdgeMap,
    OddChannel,
    compare_pairs,
    find_displaced,
    find_edges,
    find_mirrored,
)
from scripts.data.images import ROUNDING, GridImage, read_stored, require_label_map, voxel_size
from scripts.data.nifti import corner_distance, grid_tolerance
from scripts.errors import InputError

COARSE_MM = 3.0  # mm; brain masks are compared on a grid about this wide

# Dice below, or mm between centroids above, is an error. Skull-stripped channels of real cases have Dice 0.998 or more,
# and 0.77 or less if shifted by 25 mm (test_case_checks.py measures it if the scans are there); whole heads vary more.
ALIGNMENT_LIMITS = {"stripped": (0.85, 8.0), "head": (0.70, 12.0)}
CUT_SHARE = 0.25  # a brain whose last section is at least this share of its largest one is cut off there
LOST_SHARE = 0.02  # of a brain: if more lies outside the field of view of another channel, the user should know
# Above these shares of dark faces, and below this brightness of dark to bright, an image has background
BACKGROUND_FACES, BACKGROUND_RATIO = 0.5, 0.2
HEAD_ML = 2200.0  # ml; a scan that shows more shows the head: brains have up to 2000 ml, heads 2700 ml or more
COPY_CORRELATION = 0.99999  # correlation of two channels above which one is a rescaled copy of the other


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


@dataclass
class CheckedChannel:
    """A channel while its case is checked: a coarse copy, its brain mask and a few numbers."""

    name: str
    path: Path
    shape: tuple[int, ...]
    affine: np.ndarray | None
    digest: str
    coarse: np.ndarray
    mask: np.ndarray
    stripped: bool
    bright: float

    @property
    def shows_head(self) -> bool:
        """Whether it certainly shows more than a brain, by the volume of its mask."""
        if self.affine is None or self.mask.all() or not _is_volume(self):
            return False
        whole = np.prod(self.shape) * voxel_size(nib.affines.voxel_sizes(self.affine)) / 1000
        return float(self.mask.mean() * whole) > HEAD_ML


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
    if sound and all(_is_volume(channel) for channel in sound):
        heads = any(channel.shows_head for channel in sound)
        record.stripped = False if heads else all(channel.stripped for channel in sound) or None
    record.channels = {channel.name: channel.digest for channel in channels if channel.mask.any()}
    record.bright = {channel.name: channel.bright for channel in sound if channel.mask.any()}
    if channels and not record.channels:
        record.problems.append(f"{case.images[0]} shows nothing in any channel: leave it out.")
    drawn = [file for file in case.label_files().values() if not _was_said_missing(file, record)]
    for file in drawn:
        _check_label(file, expected, frame, sound, record)
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
        _add_notes(record, image.notes)
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
                yield checked


def _was_said_missing(path: Path, record: CaseRecord) -> bool:
    """Whether the file does not exist and the layout has reported it."""
    file = pictures.file_of_page(path)
    return not file.is_file() and any(str(file) in problem for problem in record.problems)


def _add_notes(record: CaseRecord, notes: Sequence[str]) -> None:
    record.notes.extend(note for note in notes if note not in record.notes)


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
            f"{path} has shape {_by(shape)} of type {kind}, expected two or three dimensions"
            f"{' and one of channels' if case.stacked else ''} of plain numbers: export it again."
        )
    if case.stacked and shape[-1] != len(expected.channels):
        return (
            f"{path} holds {shape[-1]} channels, expected {len(expected.channels)} ({', '.join(expected.channels)}):"
            " add the missing one, or fix the channel names."
        )
    return None


def summarise_channel(
    name: str, path: Path, image: GridImage, record: CaseRecord, slice_number: int | None = None
) -> CheckedChannel | None:
    """The channel, with an empty mask where a slice shows nothing; None, and a problem, if its voxels cannot be used.

    Args:
        name: of the channel.
        path: its file, for messages.
        image: its voxels, [H, W, D] or [H, W].
        record: gets problems and notes.
        slice_number: of a slice of a volume, which may be empty.
    """
    array = image.voxels
    if bad := int(array.size - np.count_nonzero(np.isfinite(array))):
        record.problems.append(
            f"{path}: channel {name} holds {bad} {_points(array)} that are NaN or infinite: export it again."
        )
        return None
    array = array.astype(np.float32, copy=False)
    low, high = array.min(), array.max()
    if low == high and slice_number is None:
        record.problems.append(f"{path}: channel {name} holds nothing but the value {low:g}: export it again.")
        return None
    # Files store the first axis fastest; transposed, their bytes need no copy
    digest = hashlib.sha256(repr(array.shape).encode())
    digest.update(np.asfortranarray(array, dtype="<f4").T.data)
    outside, flat = background_value(array)
    coarse = array[_steps(image._replace(voxels=array))]
    mask, stripped = find_brain(coarse, outside, flat) if low < high else (np.zeros(coarse.shape, bool), False)
    if not mask.any() and slice_number is None:
        record.problems.append(f"{path}: channel {name} is {outside:g} nearly everywhere: export it again.")
        return None
    if not mask.any():  # as at the ends of a volume
        record.notes.append(f"channel {name} shows nothing in these slices")
    elif mask.all() and slice_number is None and array.ndim == 3:
        record.notes.append(f"channel {name} shows no background, so that its alignment is not checked")
    signal = float(np.percentile(coarse[mask], 99)) - outside if mask.any() else 0.0
    bright = float(np.log(max(abs(signal), 1e-6)))
    return CheckedChannel(
        name, path, array.shape, image.affine, digest.hexdigest(), coarse.copy(), mask, stripped, bright
    )


def _steps(image: GridImage) -> tuple[slice, ...]:
    """The strides of a coarse copy, as slices."""
    axes = image.voxels.ndim
    sizes = [COARSE_MM] * axes if image.affine is None else nib.affines.voxel_sizes(image.affine)[:axes]
    return tuple(slice(None, None, max(1, int(COARSE_MM / size))) for size in sizes)


def background_value(array: np.ndarray) -> tuple[float, float]:
    """The most frequent value on the faces of a volume, or the sides of a picture, and its share of them.

    Corners may differ; preprocessing is stricter (`scripts.data.background.ZeroBackgroundd`).
    """
    faces = [np.moveaxis(array, axis, 0)[end].ravel() for axis in range(array.ndim) for end in (0, -1)]
    values, counts = np.unique(np.concatenate(faces), return_counts=True)
    return float(values[counts.argmax()]), float(counts.max() / counts.sum())


def find_brain(array: np.ndarray, outside: float, flat: float) -> tuple[np.ndarray, bool]:
    """The mask of the brain or head, and whether the image is skull-stripped.

    In a skull-stripped image everything outside has one value (not always 0: z-scored images have another). In others
    the head is above Otsu's threshold (1979), with its holes filled; the mask is full where there is no background.

    Args:
        array: [H, W, D].
        outside: its most frequent value on the faces.
        flat: the share of the faces that have it (`background_value`).
    """
    mask = array != np.float32(outside)
    if flat > 0.7 and mask.mean() < 0.7:
        return mask, True
    signal = np.abs(array - np.float32(outside))
    if not _has_background(array):
        return np.ones_like(mask), False
    head, count = ndimage.label(ndimage.binary_fill_holes(signal > _threshold(signal)))
    if not count:
        return mask, False
    return head == 1 + np.bincount(head.ravel())[1:].argmax(), False


def _has_background(coarse: np.ndarray) -> bool:
    """Whether there is air around the head: most of the faces are dark, and much darker than the rest."""
    above = coarse - np.float32(np.percentile(coarse, 0.1))
    bright = above > _threshold(above)
    if bright.all() or not bright.any():
        return True
    faces = np.concatenate(
        [np.moveaxis(bright, axis, 0)[end].ravel() for axis in range(bright.ndim) for end in (0, -1)]
    )
    ratio = float(np.median(above[~bright]) / np.median(above[bright]))
    return 1 - faces.mean() > BACKGROUND_FACES and ratio < BACKGROUND_RATIO


def _threshold(signal: np.ndarray) -> float:
    """Otsu's threshold (1979) between head and background; the brightest 1 % is clipped."""
    return float(threshold_otsu(np.minimum(signal, np.percentile(signal, 99))))


def _check_geometry(channels: Sequence[CheckedChannel], record: CaseRecord) -> CheckedChannel | None:
    """The channel whose grid most others share; each channel on another grid adds a problem."""
    if not channels:
        return None
    frame = max(
        channels, key=lambda one: sum(_difference(one, other.shape, other.affine) is None for other in channels)
    )
    record.shape = frame.shape
    record.spacing = None
    if frame.affine is not None:
        sizes = nib.affines.voxel_sizes(frame.affine)[: len(frame.shape)]
        record.spacing = tuple(round(float(size), 4) for size in sizes)
        record.orientation = "".join(nib.aff2axcodes(frame.affine)[: len(frame.shape)])
    for channel in channels:
        if difference := _difference(frame, channel.shape, channel.affine):
            record.problems.append(
                f"{channel.path} {difference} of {frame.path.name}: resample or register it to that."
            )
    return frame


def _difference(frame: CheckedChannel, shape: tuple[int, ...], affine: np.ndarray | None) -> str | None:
    """How the grid of a file differs from that of `frame`, in words; None within a tenth of a voxel."""
    if shape != frame.shape:
        return f"has shape {_by(shape)}, not the {_by(frame.shape)}"
    if affine is None or frame.affine is None:
        return None if affine is frame.affine else "has another kind of header than that"
    distance = corner_distance(shape, affine, frame.affine)
    if distance <= grid_tolerance(affine, frame.affine):
        return None
    codes, wanted = ("".join(nib.aff2axcodes(a)) for a in (affine, frame.affine))
    if codes != wanted:
        return f"has orientation {codes}, not the {wanted}"
    return f"has another affine: by its header it lies up to {distance:.2f} mm from where it should, on the grid"


def check_copies(
    channels: Sequence[CheckedChannel], record: CaseRecord, slice_number: int | None = None
) -> float | None:
    """Find channels that are copies of others, and return the largest correlation of two (absolute value)."""
    largest = None
    for one, other in itertools.combinations([channel for channel in channels if channel.mask.any()], 2):
        correlation = abs(_correlation(one, other))
        largest = max(correlation, largest or 0.0)
        if one.digest == other.digest:
            how = "is a copy of"
        elif correlation > COPY_CORRELATION:
            how = "is, up to its scale, a copy of"
        else:
            continue
        if slice_number is not None:  # one slice is not enough evidence, and missing sequences are filled with others
            record.notes.append(f"channel {other.name} {how} channel {one.name} in these slices")
            continue
        files = f" ({one.path.name})" if one.path != other.path else ""
        record.problems.append(
            f"{other.path}: channel {other.name} {how} channel {one.name}{files}: find the right file."
        )
    return largest


def _correlation(one: CheckedChannel, other: CheckedChannel) -> float:
    inside = one.mask | other.mask
    return float(np.corrcoef(one.coarse[inside], other.coarse[inside])[0, 1]) if inside.sum() > 2 else 0.0


def check_alignment(channels: Sequence[CheckedChannel], record: CaseRecord) -> float | None:
    """Find the channel whose brain is not aligned with the others', and return the smallest Dice of two brain masks.

    Volumes only, since a slice does not show it; None where no two channels can be compared.
    """
    smallest = None
    channels = [channel for channel in channels if _is_volume(channel) and not channel.mask.all()]
    apart: dict[tuple[int, int], tuple[float, float]] = {}
    for (i, one), (j, other) in itertools.combinations(enumerate(channels), 2):
        dice, distance = mask_overlap(one, other)
        smallest = dice if smallest is None else min(dice, smallest)
        _note_lost_brain(one, other, record)
        least, most = ALIGNMENT_LIMITS["stripped" if one.stripped and other.stripped else "head"]
        if dice < least or distance > most:
            apart[i, j] = dice, distance
    counts = Counter(i for pair in apart for i in pair)
    odd = [i for i, count in counts.items() if count == len(apart) == len(channels) - 1 > 1]
    for (i, j), (dice, distance) in apart.items():
        channel, other = (channels[j], channels[i]) if j in odd or not odd else (channels[i], channels[j])
        reference = f"the other channels, such as {other.name}" if odd else f"channel {other.name} ({other.path.name})"
        record.problems.append(
            f"{channel.path}: channel {channel.name} does not lie on {reference}: their brains are"
            f" {distance:.0f} mm apart and overlap with Dice {dice:.2f}; register it to them, or find the right file."
        )
        if odd:
            break
    return smallest


def check_edges(channels: Sequence[CheckedChannel], record: CaseRecord) -> None:
    """Find the channel of a volume whose edges fit the others' only when it is displaced or mirrored."""
    maps = find_edge_maps([channel for channel in channels if _is_volume(channel)])
    pairs = compare_pairs(maps)
    if (odd := find_displaced(pairs)) is not None and odd.number >= DISPLACED_MM:
        record.problems.append(describe_displaced(odd, channels))
    elif (odd := find_mirrored(pairs)) is not None:
        record.problems.append(describe_mirrored(odd, channels))


def find_edge_maps(channels: Sequence[CheckedChannel]) -> dict[str, EdgeMap]:
    """The edges of each channel that has enough of them; the channels have affines."""
    maps = {}
    for channel in (one for one in channels if one.affine is not None and not one.mask.all()):
        assert channel.affine is not None
        steps = [-(-full // small) for full, small in zip(channel.shape, channel.mask.shape, strict=True)]
        mirror_axis = int(np.argmin(nib.io_orientation(channel.affine)[:, 0]))
        sizes = nib.affines.voxel_sizes(channel.affine) * steps
        if (edges := find_edges(channel.coarse, channel.mask, sizes, mirror_axis)) is not None:
            maps[channel.name] = edges
    return maps


def describe_displaced(odd: OddChannel, channels: Sequence[CheckedChannel]) -> str:
    """A displaced channel, in a sentence with its file."""
    path = next(channel.path for channel in channels if channel.name == odd.name)
    where = f"fits on channel {odd.other} {odd.number:.0f} mm away from where it lies"
    return f"{path}: channel {odd.name} {where}; register it, or find the right file."


def describe_mirrored(odd: OddChannel, channels: Sequence[CheckedChannel]) -> str:
    """A mirrored channel, in a sentence with its file."""
    path = next(channel.path for channel in channels if channel.name == odd.name)
    what = f"fits on channel {odd.other} with left and right exchanged, so that one of them is mirrored"
    return f"{path}: channel {odd.name} {what}; export it again."


def _is_volume(channel: CheckedChannel) -> bool:
    return channel.affine is not None and len(channel.shape) == 3


def field_of_view(mask: np.ndarray) -> tuple[slice, ...]:
    """The part of the grid in which a channel shows a brain whole: it ends where the brain is cut off by a plane."""
    ends = []
    for axis in range(mask.ndim):
        areas = np.count_nonzero(mask, axis=tuple(other for other in range(mask.ndim) if other != axis))
        there = np.flatnonzero(areas)
        cut = [there.size > 0 and areas[there[end]] >= CUT_SHARE * areas.max() for end in (0, -1)]
        ends.append(slice(int(there[0]) if cut[0] else None, int(there[-1]) + 1 if cut[1] else None))
    return tuple(ends)


def _note_lost_brain(one: CheckedChannel, other: CheckedChannel, record: CaseRecord) -> None:
    for whole, part in ((one, other), (other, one)):
        seen = np.count_nonzero(whole.mask[field_of_view(part.mask)]) / np.count_nonzero(whole.mask)
        text = f"channel {part.name} lacks a part of the brain; channels are compared where all show it"
        if seen < 1 - LOST_SHARE and text not in record.notes:
            record.notes.append(text)


def mask_overlap(one: CheckedChannel, other: CheckedChannel) -> tuple[float, float]:
    """Dice of two channels' brain masks, and the distance between their centroids in mm, in their common field of view.

    A brain that lies wholly outside the other's field of view has Dice 0 and an infinite distance.
    """
    views = [field_of_view(channel.mask) for channel in (one, other)]
    common = [np.zeros_like(one.mask), np.zeros_like(one.mask)]
    for target, channel, view in zip(common, (one, other), reversed(views), strict=True):
        target[view] = channel.mask[view]
    if not (common[0].any() and common[1].any()):
        return 0.0, float("inf")
    dice = 2 * np.count_nonzero(common[0] & common[1]) / (np.count_nonzero(common[0]) + np.count_nonzero(common[1]))
    steps = np.array([full / small for full, small in zip(one.shape, one.mask.shape, strict=True)])
    assert one.affine is not None
    between = [np.array(ndimage.center_of_mass(mask)) * steps for mask in common]
    return float(dice), float(np.linalg.norm(one.affine[:3, :3] @ (between[0] - between[1])))


def _check_label(
    path: Path,
    expected: ExpectedCase,
    frame: CheckedChannel | None,
    channels: Sequence[CheckedChannel],
    record: CaseRecord,
) -> None:
    try:
        image, sha256 = read_stored(path, "label")
        require_label_map(image.voxels.shape, path)
    except InputError as error:
        record.problems.append(str(error))
        return
    record.hashes[pictures.file_of_page(path)] = sha256
    _add_notes(record, image.notes)
    if problem := _values_problem(path, image, record):
        record.problems.append(problem)
        return
    values, counts = np.unique(np.rint(image.voxels).astype(np.int64), return_counts=True)
    found = {int(v): int(n) for v, n in zip(values, counts, strict=True) if v != expected.labels_fill}
    if expected.ignore is not None and found.pop(expected.ignore, 0) == image.voxels.size:
        record.problems.append(
            f"{path} ignores every {_points(image.voxels)[:-1]} (all are {expected.ignore}): leave it out, or draw it."
        )
        return
    for value, count in found.items():
        record.counts[value] = record.counts.get(value, 0) + count
    if strange := sorted({*found} - {*expected.labels}):
        record.problems.append(_strange_values(path, image.voxels, record, strange, expected))
    if not found and not expected.empty_labels:
        record.problems.append(
            f"{path} is empty: it labels no {_points(image.voxels)[:-1]}; draw the tumour, or give --allow_empty if"
            " there is none."
        )
    axes = image.voxels.ndim
    sizes = [10.0] * axes if image.affine is None else nib.affines.voxel_sizes(image.affine)[:axes]
    unit = voxel_size(sizes) / 10**axes
    record.volume += sum(found.values()) * unit
    if frame is None:
        return
    if difference := _difference(frame, image.voxels.shape, image.affine):
        record.problems.append(f"{path} {difference} of {frame.path.name}: resample it to that (nearest neighbour).")
    elif channels and found and _is_volume(frame):
        drawn = image.voxels[_steps(image)]
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
        return f"{path}: the label holds {bad} {_points(array)} that are NaN or infinite: export it again."
    off = np.abs(array - np.rint(array))
    if off.max() > ROUNDING:
        example = array.ravel()[off.argmax()]
        return (
            f"{path}: the label holds {np.count_nonzero(off > ROUNDING)} {_points(array)} that are not whole numbers,"
            f" such as {example:g}: it was interpolated; resample it with nearest neighbour."
        )
    if off.max() > 0:
        example = array.ravel()[off.argmax()]
        record.notes.append(f"the label holds {float(example):.10g} and the like, read as {np.rint(example):g}.")
    return None


def _strange_values(
    path: Path, array: np.ndarray, record: CaseRecord, strange: Sequence[int], expected: ExpectedCase
) -> str:
    shown = ", ".join(f"{value} ({record.counts[value]} {_points(array)})" for value in strange[:5])
    shown += ", ..." if len(strange) > 5 else ""
    mark = f"; --ignore {strange[0]} if it marks voxels that nobody has drawn" if strange == [255] else ""
    return (
        f"{path} holds the value {shown}, which is not in label scheme {expected.scheme}"
        f"{expected.hint(record.case, {*record.counts})}: choose the scheme of these data, or fix the label{mark}."
    )


def _points(array: np.ndarray) -> str:
    return "pixels" if array.ndim == 2 else "voxels"


def _by(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
