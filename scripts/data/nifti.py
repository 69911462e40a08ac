"""NIfTI files: reading to their end, one rule for the affine in their header, masks with the header of their scan.

The rule, for every reader:

- The affine is the sform if its code is above 0, else the qform if its code is above 0, else from the voxel sizes
  (pixdim) alone. Headers in metres or micrometres are read in mm.
- Noted: pixdim is not set (all 0 or 1) and the sform gives other sizes; qform and sform are both set and differ;
  neither is set, so that left and right are unknown.
- Refused: pixdim and sform give different voxel sizes; qform and sform mirror each other; an axis of 0 mm or over
  100 mm; axes that are not at right angles, since distances and volumes assume them; numbers that are not finite.
"""

import contextlib
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from scripts.errors import InputError

try:
    from isal import igzip as gzip  # three times as fast at reading, twelve times at writing
except ImportError:  # as in MONAI Label's environment
    import gzip  # type: ignore[no-redef]

Header = nib.Nifti1Header | nib.Nifti2Header

SUFFIXES = (".nii", ".nii.gz")
IN_MM = {1: 1000.0, 3: 0.001}  # the header's codes of metres and micrometres; others mean mm
SIZE_ROUNDING = 0.01  # by which pixdim and sform may differ: less than any choice of voxel size
LARGEST = 100.0  # mm; a longer side is another unit
SKEW = 0.1  # degrees off a right angle; lengths are then off by less than 0.1 %
SIDES_UNKNOWN = "left and right are unknown"  # in notes on headers without an orientation
SAME_GRID = 0.1  # of a voxel's shortest side: converters round headers, and no segmentation is that exact

_PRINTED: set[str] = set()
_HELD: dict[Path, "tuple[bytes, NiftiFile] | None"] = {}  # of `read_once`


class NiftiFile(NamedTuple):
    """The content of a NIfTI file.

    Attributes:
        voxels: [H, W, D], or with other axes; in this machine's byte order, scaled by the header's factors; without
            axes of length one after the third.
        affine: 4 x 4, from voxels to mm.
        notes: remarks on the header, in sentences without the file's name.
    """

    voxels: np.ndarray
    affine: np.ndarray
    notes: tuple[str, ...] = ()


def nifti_stem(path: str | os.PathLike) -> str:
    """The file's name without its ending, in upper or lower case."""
    name = Path(path).name
    return next((name[: -len(end)] for end in (".nii.gz", ".nii") if name.lower().endswith(end)), name)


def read_nifti(path: str | os.PathLike) -> NiftiFile:
    """The voxels and the affine of a file, which is read to its end, so that its checksum is verified.

    Raises:
        InputError: see `decode_nifti`; or the file is missing.
    """
    return decode_nifti(Path(path), file_content(Path(path)))


@contextlib.contextmanager
def read_once(files: Iterable[Path]) -> Iterator[None]:
    """Within it, each of these NIfTI files is read and decoded at most once; its voxels cannot be written to."""
    added = dict.fromkeys(files)
    _HELD.update(added)
    try:
        yield
    finally:
        for file in added:
            _HELD.pop(file, None)


def file_content(file: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        InputError: it is missing, a link to nothing, or cannot be read.
    """
    if held := _HELD.get(file):
        return held[0]
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        reason = "it is a link to a file that does not exist" if file.is_symlink() else "it does not exist"
        raise InputError(f"{file} cannot be read as an image ({reason}): check the path.") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read as an image ({error.strerror}): copy it again.") from error


def decode_nifti(path: Path, content: bytes) -> NiftiFile:
    """Decode the bytes of the file at `path`.

    Raises:
        InputError: they are damaged, truncated or not NIfTI, hold anything but real numbers, or have a header that the
            rule above refuses.
    """
    if (held := _HELD.get(path)) and held[0] is content:
        return held[1]
    try:
        raw = gzip.decompress(content) if path.name.lower().endswith(".gz") else content
        header = _parse_header(raw)
        shape, kind = header.get_data_shape(), header.get_data_dtype()
        stored = np.frombuffer(raw, kind, int(np.prod(shape)), int(header["vox_offset"]))
        slope, intercept = header.get_slope_inter()
    except Exception as error:  # gzip, isal and nibabel raise their own errors for a damaged file
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        if isinstance(error, EOFError) or "buffer is smaller" in reason:
            reason = "it is truncated, its data end too early"
        raise InputError(f"{path} cannot be read as an image ({reason}): it may be damaged; copy it again.") from error
    scaled = slope is not None and (slope, intercept) != (1, 0)
    _require_real_numbers(path, stored, scaled)
    voxels = stored.astype(kind.newbyteorder("="), copy=False).reshape(shape, order="F")
    if scaled:
        voxels = nib.volumeutils.apply_read_scaling(voxels, slope, intercept)
    voxels = voxels.reshape((*shape[:3], *(size for size in shape[3:] if size != 1)), order="F")
    if not 2 <= voxels.ndim <= 4:
        raise InputError(
            f"{path} has {len(shape)} axes ({by_axis(shape)}): expected [H, W, D], or [H, W, D, channels]; export it"
            " again."
        )
    decoded = NiftiFile(voxels, *_choose_affine(path, header))
    if path in _HELD:
        voxels.flags.writeable = False
        _HELD[path] = content, decoded
    return decoded


def encode_nifti_like(voxels: np.ndarray, source: str | os.PathLike) -> bytes:
    """An uncompressed NIfTI file of these voxels, which has the sform, qform, codes, pixdim and units of another file.

    Args:
        voxels: [H, W, D, ...] on the grid of the source.
        source: a NIfTI file, which was read and verified before.
    """
    opened = gzip.open if str(source).lower().endswith(".gz") else open
    with opened(source, "rb") as stream:
        header = _parse_header(stream.read(540)).as_byteswapped("<")
    version2 = isinstance(header, nib.Nifti2Header)
    header.set_data_dtype(voxels.dtype)
    pixdim = header["pixdim"].copy()
    header.set_data_shape(voxels.shape)
    header["pixdim"] = pixdim  # nibabel sets those of other axes to 1
    header["magic"] = b"n+2\0\r\n\x1a\n" if version2 else b"n+1"
    header["vox_offset"] = header.sizeof_hdr + 4
    header["scl_slope"], header["scl_inter"] = 1, 0
    for name in ("cal_min", "cal_max", "intent_code", "intent_p1", "intent_p2", "intent_p3"):
        header[name] = 0
    header["intent_name"] = header["descrip"] = header["aux_file"] = b""
    little = np.asarray(voxels, voxels.dtype.newbyteorder("<"))
    return bytes(header.binaryblock) + bytes(4) + little.tobytes(order="F")


def print_notes(path: str | os.PathLike, notes: Sequence[str]) -> None:
    """Print notes on a header to stderr, each text once per process: one is enough for a cohort of the same kind."""
    for note in notes:
        if note not in _PRINTED:
            _PRINTED.add(note)
            print(f"note: {path}: {note}", file=sys.stderr)


def corner_distance(shape: Sequence[int], one: np.ndarray, other: np.ndarray) -> float:
    """The largest distance (mm) between the corners of an image of this shape under two affines."""
    corners = np.array(list(itertools.product(*((0, size - 1) for size in (*shape, 1, 1)[:3]))))
    there, here = (nib.affines.apply_affine(affine, corners) for affine in (one, other))
    return float(np.linalg.norm(there - here, axis=1).max())


def grid_tolerance(*affines: np.ndarray) -> float:
    """The largest distance (mm) between the corners of images that count as on one grid."""
    return SAME_GRID * float(min(nib.affines.voxel_sizes(affine).min() for affine in affines))


def require_box(path: Path, name: str, affine: np.ndarray) -> None:
    """Refuse an affine whose voxels are not boxes of finite, plausible size.

    Args:
        path: the file, for messages.
        name: of the part of its header that gives the affine.
        affine: 4 x 4, in mm.
    """
    if not np.isfinite(affine).all():
        raise InputError(f"{path} has a header whose {name} gives no finite affine: export it again.")
    sizes = nib.affines.voxel_sizes(affine)
    if not (sizes > 0).all() or sizes.max() > LARGEST:
        raise InputError(
            f"{path} has a header without spacing: its {name} gives voxels of {by_axis(sizes)} mm; set the true size."
        )
    axes = affine[:3, :3] / sizes
    cosines = np.abs(np.triu(axes.T @ axes, 1))
    angle = float(np.degrees(np.arccos(min(1.0, cosines.max()))))
    if 90 - angle > SKEW:
        raise InputError(
            f"{path} is sheared: two axes of its {name} meet at {angle:.1f} degrees instead of 90, so that distances"
            " would be wrong; resample it to a grid with right angles."
        )


def _parse_header(raw: bytes) -> Header:
    """The header as it is in the file: nibabel's own checks would replace a pixdim of 0."""
    kind = nib.Nifti2Header if raw[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Header
    header = kind(raw[: kind.sizeof_hdr], check=False)
    if header["sizeof_hdr"] != kind.sizeof_hdr or not bytes(header["magic"]).startswith((b"n+1", b"n+2")):
        raise ValueError("it does not begin with the header of a NIfTI file")
    if header["vox_offset"] == 0:
        header["vox_offset"] = kind.sizeof_hdr + 4
    if header["vox_offset"] < kind.sizeof_hdr or header["vox_offset"] % 1:
        raise ValueError(f"its voxels cannot begin at byte {header['vox_offset']:g}")
    if not 1 <= header["dim"][0] <= 7 or (header["dim"][1 : header["dim"][0] + 1] < 1).any():
        raise ValueError(f"it has {header['dim'][0]} axes of {by_axis(header['dim'][1:])} voxels")
    return header


def _require_real_numbers(path: Path, stored: np.ndarray, scaled: bool) -> None:
    if stored.dtype.kind == "c":
        raise InputError(f"{path} holds complex numbers: expected real ones; export the magnitude.")
    if stored.dtype.kind not in "buif":
        raise InputError(f"{path} holds colours (RGB): expected one number per voxel; export it in grey.")
    if stored.dtype == np.int8 and not scaled and stored.size and stored.min() < 0:
        raise InputError(
            f"{path} holds {stored.min()} as int8, in which values above 127 wrap to negative ones: export it again as"
            " uint8 or int16."
        )


def _choose_affine(path: Path, header: Header) -> tuple[np.ndarray, tuple[str, ...]]:
    """The affine (mm) and the notes, by the rule of this module."""
    shape = header.get_data_shape()[:3]
    unit = IN_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    pixdim = np.abs(header["pixdim"][1:4].astype(float))
    sform, qform = header.get_sform(), _qform(header, pixdim)
    flip_x = np.diag([-1.0, 1, 1])  # as nibabel and SPM read files without a form
    centre = (np.array((*shape, 1, 1)[:3]) - 1) / 2
    centred = nib.affines.from_matvec(flip_x * pixdim, -flip_x * pixdim @ centre)
    chosen, name = centred, "pixdim"
    if header["sform_code"] > 0:
        chosen, name = sform, "sform"
    elif header["qform_code"] > 0:
        chosen, name = qform, "qform"
    affine = _fill_flat_axes(chosen, shape)
    affine[:3] *= unit
    require_box(path, name, affine)
    notes: list[str] = []
    if name == "pixdim":
        notes.append(f"the header has neither sform nor qform, so that {SIDES_UNKNOWN}")
    elif name == "sform":
        notes = _compare_forms(path, header, pixdim * unit, affine, qform, unit)
    if unit != 1:
        notes.append(f"the header is in {'metres' if unit > 1 else 'micrometres'}, read as mm")
    return affine, tuple(notes)


def _compare_forms(
    path: Path, header: Header, pixdim: np.ndarray, sform: np.ndarray, qform: np.ndarray | None, unit: float
) -> list[str]:
    """Notes on how pixdim and qform contradict the sform.

    Raises:
        InputError: they contradict each other, and neither is known to be right.
    """
    shape = header.get_data_shape()[:3]
    sizes = nib.affines.voxel_sizes(sform)
    real = [axis for axis, size in enumerate(shape) if size > 1]
    apart = [axis for axis in real if not abs(pixdim[axis] - sizes[axis]) <= SIZE_ROUNDING * sizes[axis]]
    if apart and (set(pixdim[real] / unit) <= {0.0, 1.0} or not pixdim[apart].any()):
        return [f"the header's pixdim is not set ({by_axis(pixdim)}); the voxel sizes are those of the sform"]
    if apart:
        raise InputError(
            f"{path} has a header that contradicts itself: pixdim gives voxels of {by_axis(pixdim)} mm, the sform"
            f" {by_axis(sizes)} mm; find out which is right, and set both."
        )
    if header["qform_code"] <= 0:
        return []
    if qform is None or not np.isfinite(qform).all():
        return ["the header's qform cannot be read; the sform counts"]
    qform = _fill_flat_axes(qform, shape)
    qform[:3] *= unit
    if np.linalg.det(qform[:3, :3]) * np.linalg.det(sform[:3, :3]) < 0:
        raise InputError(
            f"{path} has a header that contradicts itself: qform ({_axes(qform)}) and sform ({_axes(sform)}) mirror"
            " each other, so that left and right are unknown; find out which is right, and set both."
        )
    distance = corner_distance(shape, qform, sform)
    if distance <= grid_tolerance(sform):
        return []
    return [f"the header's qform lies up to {distance:.3g} mm from its sform; the sform counts"]


def _qform(header: Header, pixdim: np.ndarray) -> np.ndarray | None:
    """The qform's affine; None if its quaternion is not a rotation."""
    try:
        quaternion = nib.quaternions.fillpositive(
            [header["quatern_b"], header["quatern_c"], header["quatern_d"]], w2_thresh=-1e-5
        )
    except ValueError:
        return None
    turned = nib.quaternions.quat2mat(quaternion).astype(float) * pixdim
    if header["pixdim"][0] < 0:
        turned[:, 2] *= -1
    offset = [header["qoffset_x"], header["qoffset_y"], header["qoffset_z"]]
    return nib.affines.from_matvec(turned, np.array(offset, float))


def _fill_flat_axes(affine: np.ndarray | None, shape: Sequence[int]) -> np.ndarray:
    """Set the size of an axis of one voxel to 1 if it is 0, as in many headers."""
    if affine is None:
        return np.full((4, 4), np.nan)
    filled = affine.copy()
    for axis in range(3):
        if (*shape, 1, 1)[axis] == 1 and not filled[:3, axis].any():
            one, other = np.delete(filled[:3, :3], axis, axis=1).T
            normal = np.cross(one, other)
            length = np.linalg.norm(normal)
            filled[:3, axis] = normal / length if length > 0 else np.eye(3)[axis]
    return filled


def _axes(affine: np.ndarray) -> str:
    return "".join(nib.aff2axcodes(affine))


def by_axis(sizes: Sequence[float] | np.ndarray) -> str:
    """Sizes in words: 240 x 240 x 155."""
    return " x ".join(f"{size:g}" for size in sizes)
