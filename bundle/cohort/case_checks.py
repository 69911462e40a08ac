"""Is a case sound? Reads every file to its end, once, and says in sentences what is wrong with it."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import multiprocessing
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage
from tqdm import tqdm

from bundle.cohort.recognise import Case, Task
from scripts.data import pictures
from scripts.errors import InputError

COARSE = 3.0  # mm; brain masks are compared on a grid about this wide
TOLERANCE = 1e-3  # a label may be this far from a whole number: 0.99999997 is a 1 that went through a float
# Dice below, or mm between centroids above, is an error. Skull-stripped channels of real cases have Dice 0.998 or more,
# shifted by 25 mm 0.77 or less (test_checks.py measures it where the scans are); whole heads vary more.
APART = {"stripped": (0.85, 8.0), "head": (0.70, 12.0)}
COPY = 0.99999  # correlation of two channels above which one is a rescaled copy of the other
OUTLIER = 3.5  # modified z-scores, after Iglewicz and Hoaglin (1993)
SPREAD = 0.3  # of log intensity, at least: a case is never an outlier below a factor of exp(3.5 * 0.3) = 2.9
SMALL = 20_000_000  # bytes; below this, starting processes costs more than it saves


class Picture(NamedTuple):
    """A file's voxels as stored, the affine to mm and the voxel sizes (None if it has no spacing), and its sha256."""

    array: np.ndarray
    affine: np.ndarray | None
    spacing: tuple[float, ...] | None
    sha256: str


@dataclass
class Record:
    """What is known of a case after its files were read, small enough to keep for a cohort of thousands.

    Attributes:
        case: its name.
        group: the patient or volume of a slice; a case that is none is its own.
        problems: why it cannot be used, one sentence each.
        notes: what the user should know and the case can be used with.
        hashes: each file's sha256.
        channels: each channel's sha256 of the voxels.
        shape: of the image, in voxels.
        spacing: in mm; None where the files tell none.
        orientation: such as LPS.
        bright: each channel's log of the 99th percentile in the brain.
        counts: each label value's voxels, without the background's.
        volume: of the tumour, all labels together, in ml; in cm² for two axes; in pixels where there is no spacing.
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

    @property
    def voxels(self) -> str:
        """The sha256 of the voxels of all channels, whatever the files' compression, header or number type."""
        return hashlib.sha256("".join(self.channels.values()).encode()).hexdigest()


@dataclass
class Channel:
    """What is kept of a channel while its case is checked: a coarse copy, its brain mask and a few numbers."""

    name: str
    path: Path
    shape: tuple[int, ...]
    affine: np.ndarray | None
    digest: str
    coarse: np.ndarray
    mask: np.ndarray
    stripped: bool
    bright: float


def read(path: str | os.PathLike) -> Picture:
    """The one place where images are read for checking; another format is another entry of `READERS`.

    Raises:
        InputError: the file cannot be opened, is of no known kind, is damaged, or ends before its data do.
    """
    path = Path(path)
    file = pictures.file_of(path)
    reader = next((reader for ending, reader in READERS.items() if file.name.lower().endswith(ending)), None)
    if reader is None:
        raise InputError(f"{path} is no {' or '.join(READERS)}: convert it.")
    try:
        content, sha256 = _content(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): copy it again.") from error
    return Picture(*reader(path, content), sha256)


@lru_cache(maxsize=2)  # a stack and its label are read for each of their pages
def _content(file: Path, changed: int) -> tuple[bytes, str]:
    content = file.read_bytes()
    return content, hashlib.sha256(content).hexdigest()


def _read_picture(path: Path, content: bytes) -> tuple[np.ndarray, None, None]:
    return pictures.read(path), None, None


def _read_nifti(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    try:
        # Unlike a reader that stops after the last voxel, this sees the checksum at the file's end
        raw = gzip.decompress(content) if path.name.lower().endswith(".gz") else content
        kind = nib.Nifti2Image if raw[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image
        image = kind.from_bytes(raw)
        array = np.asanyarray(image.dataobj)
    except EOFError as error:
        raise InputError(f"{path} is truncated, its compressed data end too early: copy it again.") from error
    except (
        OSError,
        ValueError,
        zlib.error,
        nib.filebasedimages.ImageFileError,
        nib.spatialimages.HeaderDataError,
    ) as error:
        raise InputError(
            f"{path} is damaged or no NIfTI file ({' '.join(str(error).split())[:120]}): copy it again."
        ) from error
    return array, image.affine, tuple(float(size) for size in nib.affines.voxel_sizes(image.affine))


READERS: dict[str, Callable[[Path, bytes], tuple[np.ndarray, np.ndarray | None, tuple[float, ...] | None]]] = {
    ".nii": _read_nifti,
    ".nii.gz": _read_nifti,
    **dict.fromkeys(pictures.PICTURES, _read_picture),
}


def check_cases(
    cases: Sequence[Case], task: Task, tasks: Sequence[Task] = (), allow_empty: bool = False, workers: int | None = None
) -> list[Record]:
    """Check every case, in `workers` processes (default: one a core), with a progress bar.

    Args:
        cases: what to check.
        task: its channels and labels.
        tasks: others, of which one may know a value that `task` does not.
        allow_empty: a label without tumour is fine, whatever the task says.
        workers: processes; each holds one case in memory.

    Raises:
        InputError: a process was killed, most likely for its memory.
    """
    if workers is None:
        files = {pictures.file_of(path) for case in cases for path in _files(case)}
        sizes = (file.stat().st_size for file in files if file.is_file())
        workers = 1 if sum(sizes) < SMALL else cores()
    jobs = [(case, task, tasks, allow_empty) for case in cases]
    with tqdm(total=len(jobs), desc="checking", unit="case") as bar:
        records = []
        for record in _run(jobs, min(workers, len(jobs))):
            records.append(record)
            bar.update()
    return sorted(records, key=lambda record: record.case)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(jobs: Sequence[tuple], workers: int) -> Iterator[Record]:
    if workers <= 1:
        yield from itertools.starmap(check_case, jobs)
        return
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        for done in as_completed([pool.submit(check_case, *job) for job in jobs]):
            yield done.result()
    except BrokenProcessPool as error:
        raise InputError(
            f"a checking process was killed, most likely for want of memory: give --workers {max(1, workers // 2)}."
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # so that Ctrl-C ends at once


def check_case(case: Case, task: Task, tasks: Sequence[Task] = (), allow_empty: bool = False) -> Record:
    """Read the files of one case, each once, and find out what is wrong with them.

    Args:
        case: its files; what the layout found wrong already stays in the record.
        task: its channels and labels.
        tasks: others, of which one may know a value that `task` does not.
        allow_empty: a label without tumour is fine.
    """
    record = Record(case.case, case.patient or case.volume or case.case, list(case.problems))
    channels = list(_read_channels(case, task, record))
    frame = _check_geometry(channels, record)
    sound = [channel for channel in channels if frame and channel.shape == frame.shape]
    _check_copies(sound, case, record)
    _check_alignment(sound, record)
    record.channels = {channel.name: channel.digest for channel in channels if channel.mask.any()}
    record.bright = {channel.name: channel.bright for channel in sound if channel.mask.any()}
    if channels and not record.channels:
        record.problems.append(f"{case.images[0]} shows nothing in any channel: leave it out.")
    if case.label and pictures.file_of(case.label).is_file():
        _check_label(case.label, task, tasks, allow_empty, frame, sound, record)
    return record


def _files(case: Case) -> list[Path]:
    return [*case.images, *([case.label] if case.label else [])]


def _read_channels(case: Case, task: Task, record: Record) -> Iterator[Channel]:
    names = task.channels if len(case.images) == len(task.channels) else [path.name for path in case.images]
    for path, name in zip(case.images, names, strict=True):
        if not pictures.file_of(path).is_file():  # the layout has said so
            continue
        try:
            picture = read(path)
        except InputError as error:
            record.problems.append(str(error))
            continue
        record.hashes[pictures.file_of(path)] = picture.sha256
        if picture.affine is None and not case.stacked and picture.array.ndim == 3:
            picture = picture._replace(array=pictures.grey(picture.array))
            if picture.array.ndim == 2:
                record.notes.append("a picture in colours that are all grey is read as one channel")
        if problem := _form_problem(path, picture, case, task):
            record.problems.append(problem)
            continue
        arrays = np.moveaxis(picture.array, -1, 0) if case.stacked else [picture.array]
        for channel, array in zip(task.channels if case.stacked else [name], arrays, strict=True):
            yield from _summarise(channel, path, picture._replace(array=array), case, record)


def _form_problem(path: Path, picture: Picture, case: Case, task: Task) -> str | None:
    """Why the array cannot be the channels of a case, whatever its values."""
    shape, kind = picture.array.shape, picture.array.dtype
    if picture.affine is None and len(shape) == 3 and not case.stacked:
        return (
            f"{path} is a picture in colours where one channel is expected: save it in grey, or name its colours as"
            " channels with one pattern for all (R=...,G=...,B=...)."
        )
    if len(shape) - case.stacked not in (2, 3) or kind.kind not in "biuf":
        return (
            f"{path} has shape {_by(shape)} of type {kind}, expected two or three dimensions"
            f"{' and one of channels' if case.stacked else ''} of plain numbers: export it anew."
        )
    if case.stacked and shape[-1] != len(task.channels):
        return (
            f"{path} holds {shape[-1]} channels, expected {len(task.channels)} ({', '.join(task.channels)}): add the"
            " missing one, or mend what names them."
        )
    if picture.affine is not None and not _affine_is_sound(picture.affine):
        return f"{path} has a header without spacing (affine {picture.affine.tolist()}): export it anew."
    return None


def _affine_is_sound(affine: np.ndarray) -> bool:
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-9)


def _summarise(name: str, path: Path, picture: Picture, case: Case, record: Record) -> Iterator[Channel]:
    """One channel, or none if its voxels cannot be used; its mask is empty where a slice shows nothing."""
    array = picture.array
    if bad := int(array.size - np.count_nonzero(np.isfinite(array))):
        record.problems.append(
            f"{path}: channel {name} holds {bad} {_points(array)} that are NaN or infinite: export it anew."
        )
        return
    array = array.astype(np.float32, copy=False)
    low, high = array.min(), array.max()
    if low == high and case.slice is None:
        record.problems.append(f"{path}: channel {name} holds nothing but the value {low:g}: export it anew.")
        return
    # Files are stored with the first axis running fastest; transposed, their bytes need no copy
    digest = hashlib.sha256(repr(array.shape).encode())
    digest.update(np.asfortranarray(array, dtype="<f4").T)
    outside, flat = air(array)
    coarse = array[_steps(array, picture.spacing)]
    mask, stripped = _brain_mask(coarse, outside, flat) if low < high else (np.zeros(coarse.shape, bool), False)
    if not mask.any() and case.slice is None:
        record.problems.append(f"{path}: channel {name} is {outside:g} nearly everywhere: export it anew.")
        return
    if not mask.any():  # as at the ends of a volume
        record.notes.append(f"channel {name} shows nothing in these slices")
    signal = float(np.percentile(coarse[mask], 99)) - outside if mask.any() else 0.0
    bright = float(np.log(max(abs(signal), 1e-6)))
    yield Channel(name, path, array.shape, picture.affine, digest.hexdigest(), coarse.copy(), mask, stripped, bright)


def _steps(array: np.ndarray, spacing: Sequence[float] | None) -> tuple[slice, ...]:
    """Every how many voxels a coarse copy needs one."""
    sizes = spacing[: array.ndim] if spacing else [COARSE] * array.ndim
    return tuple(slice(None, None, max(1, int(COARSE / size))) for size in sizes)


def air(array: np.ndarray) -> tuple[float, float]:
    """The commonest value on the faces of the volume, or the sides of the picture, and its share of them.

    Also where corners differ; what networks are shown is stricter (`scripts.data.background.AirIsZerod`).
    """
    faces = [np.moveaxis(array, axis, 0)[end].ravel() for axis in range(array.ndim) for end in (0, -1)]
    values, counts = np.unique(np.concatenate(faces), return_counts=True)
    return float(values[counts.argmax()]), float(counts.max() / counts.sum())


def _brain_mask(coarse: np.ndarray, outside: float, flat: float) -> tuple[np.ndarray, bool]:
    """Where there is a brain, or a head, and whether the image is skull-stripped.

    In a skull-stripped image everything outside has one value (not always 0: z-scored images have another). In others
    the head is what Otsu's threshold (1979) parts from the air, with its holes filled.
    """
    mask = coarse != np.float32(outside)
    if flat > 0.7 and mask.mean() < 0.7:
        return mask, True
    signal = np.abs(coarse - np.float32(outside))
    head, count = ndimage.label(ndimage.binary_fill_holes(signal > _otsu(signal)))
    if not count:
        return mask, False
    return head == 1 + np.bincount(head.ravel())[1:].argmax(), False


def _otsu(signal: np.ndarray) -> float:
    """The threshold that leaves the most variance between its two sides (Otsu 1979); the brightest 1 % is clipped."""
    counts, edges = np.histogram(np.minimum(signal, np.percentile(signal, 99)), bins=256)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_below = np.cumsum(counts * centres) / below
        mean_above = (np.sum(counts * centres) - np.cumsum(counts * centres)) / above
        between = below * above * (mean_below - mean_above) ** 2
    return float(edges[1 + np.nanargmax(between)])


def _check_geometry(channels: Sequence[Channel], record: Record) -> Channel | None:
    """The channel whose shape and place most others share; the others become problems."""
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


def _difference(frame: Channel, shape: tuple[int, ...], affine: np.ndarray) -> str | None:
    """How a file lies differently from `frame`, in words, or None: a tenth of a voxel is allowed."""
    if shape != frame.shape:
        return f"has shape {_by(shape)}, not the {_by(frame.shape)}"
    if affine is None or frame.affine is None:
        return None if affine is frame.affine else "has another kind of header than that"
    codes, wanted = ("".join(nib.aff2axcodes(a)) for a in (affine, frame.affine))
    if codes != wanted:
        return f"has orientation {codes}, not the {wanted}"
    corners = np.array(list(itertools.product(*((0, size - 1) for size in (*shape, 1)[:3]))))
    apart = nib.affines.apply_affine(affine, corners) - nib.affines.apply_affine(frame.affine, corners)
    distance = float(np.linalg.norm(apart, axis=1).max())
    if distance > 0.1 * nib.affines.voxel_sizes(frame.affine).min():
        return f"has another affine: by its header it lies up to {distance:.2f} mm from where it should, on the grid"
    return None


def _check_copies(channels: Sequence[Channel], case: Case, record: Record) -> None:
    for one, other in itertools.combinations([channel for channel in channels if channel.mask.any()], 2):
        if one.digest == other.digest:
            how = "is a copy of"
        elif abs(_correlation(one, other)) > COPY:
            how = "is, up to its scale, a copy of"
        else:
            continue
        if case.slice is not None:  # one slice alone is no proof, and missing sequences are filled with others
            record.notes.append(f"channel {other.name} {how} channel {one.name} in these slices")
            continue
        files = f" ({one.path.name})" if one.path != other.path else ""
        record.problems.append(
            f"{other.path}: channel {other.name} {how} channel {one.name}{files}: find the right file."
        )


def _correlation(one: Channel, other: Channel) -> float:
    inside = one.mask | other.mask
    return float(np.corrcoef(one.coarse[inside], other.coarse[inside])[0, 1]) if inside.sum() > 2 else 0.0


def _check_alignment(channels: Sequence[Channel], record: Record) -> None:
    """Find the channel whose brain does not lie where the others' do; a slice does not show where a brain lies."""
    channels = [channel for channel in channels if _is_volume(channel)]
    apart: dict[tuple[int, int], tuple[float, float]] = {}
    for (i, one), (j, other) in itertools.combinations(enumerate(channels), 2):
        dice, distance = overlap(one, other)
        least, most = APART["stripped" if one.stripped and other.stripped else "head"]
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


def _is_volume(channel: Channel) -> bool:
    return channel.affine is not None and len(channel.shape) == 3


def overlap(one: Channel, other: Channel) -> tuple[float, float]:
    """Dice of two channels' brain masks, and the distance of their centroids in mm."""
    dice = 2 * np.count_nonzero(one.mask & other.mask) / (np.count_nonzero(one.mask) + np.count_nonzero(other.mask))
    steps = np.array([full / small for full, small in zip(one.shape, one.mask.shape, strict=True)])
    between = [np.array(ndimage.center_of_mass(channel.mask)) * steps for channel in (one, other)]
    return float(dice), float(np.linalg.norm(one.affine[:3, :3] @ (between[0] - between[1])))


def _check_label(
    path: Path,
    task: Task,
    tasks: Sequence[Task],
    allow_empty: bool,
    frame: Channel | None,
    channels: Sequence[Channel],
    record: Record,
) -> None:
    try:
        picture = read(path)
    except InputError as error:
        record.problems.append(str(error))
        return
    record.hashes[pictures.file_of(path)] = picture.sha256
    if problem := _values_problem(path, picture, record):
        record.problems.append(problem)
        return
    values, counts = np.unique(np.rint(picture.array).astype(np.int64), return_counts=True)
    record.counts = {int(v): int(n) for v, n in zip(values, counts, strict=True) if v != task.labels_fill}
    if strange := sorted(set(record.counts) - set(task.labels.values())):
        record.problems.append(_strange_values(path, picture.array, record, strange, task, tasks))
    if not record.counts and not (allow_empty or task.empty_labels):
        record.problems.append(
            f"{path} is empty: it labels no {_points(picture.array)[:-1]}; draw the tumour, or give --allow-empty if"
            " there is none."
        )
    axes = picture.array.ndim
    unit = float(np.prod(picture.spacing[:axes])) / 10**axes if picture.spacing else 1.0
    record.volume = sum(record.counts.values()) * unit
    if frame is None:
        return
    if difference := _difference(frame, picture.array.shape, picture.affine):
        record.problems.append(f"{path} {difference} of {frame.path.name}: resample it to that (nearest neighbour).")
    elif channels and record.counts and _is_volume(frame):
        tumour = picture.array[_steps(picture.array, picture.spacing)] > 0.5
        brain = np.any([channel.mask for channel in channels], axis=0)
        if tumour.any() and (share := 1 - float(brain[tumour].mean())) > 0.5:
            record.problems.append(
                f"{path}: {share:.0%} of the label lies outside the brain: find the label that belongs to these images."
            )


def _values_problem(path: Path, picture: Picture, record: Record) -> str | None:
    """Why the values are no label; values a little off a whole number are noted."""
    array = picture.array
    if pictures.file_of(path).suffix.lower() in pictures.LOSSY:
        return f"{path} is a JPEG, whose compression changes the values of a label: save it anew as PNG or TIFF."
    if picture.affine is None and array.ndim == 3:
        return f"{path} is a picture in colours: a label has one value a pixel; save it in grey."
    if array.dtype.kind not in "biuf":
        return f"{path} holds {array.dtype}, expected whole numbers: export the label anew."
    if array.dtype.kind != "f":
        return None
    if bad := int(array.size - np.count_nonzero(np.isfinite(array))):
        return f"{path}: the label holds {bad} {_points(array)} that are NaN or infinite: export it anew."
    off = np.abs(array - np.rint(array))
    if off.max() > TOLERANCE:
        example = array.ravel()[off.argmax()]
        return (
            f"{path}: the label holds {np.count_nonzero(off > TOLERANCE)} {_points(array)} that are no whole number,"
            f" such as {example:g}: it was interpolated; resample it with nearest neighbour."
        )
    if off.max() > 0:
        example = array.ravel()[off.argmax()]
        record.notes.append(f"the label holds {float(example):.10g} and the like, read as {np.rint(example):g}.")
    return None


def _strange_values(
    path: Path, array: np.ndarray, record: Record, strange: Sequence[int], task: Task, tasks: Sequence[Task]
) -> str:
    counts = record.counts
    shown = ", ".join(f"{value} ({counts[value]} {_points(array)})" for value in strange[:5])
    shown += ", ..." if len(strange) > 5 else ""
    knowing = [other for other in tasks if task.channel_files and set(counts) <= set(other.labels.values())]
    alike = [other.name for other in knowing if other.channel_files == task.channel_files and other.fits(record.case)]
    related = [other.name for other in knowing if set(other.channels) == set(task.channels)]
    hint = f"; --task {alike[0]} knows it" if alike else f"; known to {', '.join(related)}" if related else ""
    return (
        f"{path} holds the value {shown}, which is not in label scheme {task.scheme()}{hint}: choose the scheme of"
        " these data, or mend the label."
    )


def cohort_notes(records: Sequence[Record]) -> list[str]:
    """What sets single cases apart from the rest: spacing, orientation, and intensity (a robust z-score of its log)."""
    notes = []
    for what, of in (("spacing in mm", lambda r: _by(r.spacing or ())), ("orientation", lambda r: r.orientation)):
        common, count = Counter(map(of, records)).most_common(1)[0] if records else ("", 0)
        if others := [f"{record.case} ({of(record)})" for record in records if of(record) != common]:
            notes.append(f"{what}: {count} of {len(records)} cases have {common}; not so {some(others)}.")
    for channel in dict.fromkeys(channel for record in records for channel in record.bright):
        slices = defaultdict(list)
        for record in records:
            if channel in record.bright:
                slices[record.group or record.case].append(record.bright[channel])
        values = {group: float(np.median(bright)) for group, bright in slices.items()}
        middle = float(np.median(list(values.values())))
        spread = max(1.4826 * float(np.median(np.abs(np.array(list(values.values())) - middle))), SPREAD)
        far = {case: value - middle for case, value in values.items() if abs(value - middle) > OUTLIER * spread}
        if far and len(values) > 3:
            shown = [f"{case} ({np.exp(value):.3g} times)" for case, value in far.items()]
            notes.append(f"intensity of {channel}: unlike the median of the cohort in {some(shown)}.")
    return notes


def some(items: Sequence[str], most: int = 5) -> str:
    """The first few of the items, and how many more there are."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _points(array: np.ndarray) -> str:
    return "pixels" if array.ndim == 2 else "voxels"


def _by(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
