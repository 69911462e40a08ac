"""Checks of single channels of a case, and of copies among them."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from scripts.data.brain_masks import background_value, find_brain
from scripts.data.case_record import CaseRecord
from scripts.data.images import GridImage, voxel_size
from scripts.data.nifti import by_axis, corner_distance, grid_tolerance

COARSE_MM = 3.0  # mm; brain masks are compared on a grid about this wide
HEAD_ML = 2200.0  # ml; a scan that shows more shows the head: brains have up to 2000 ml, heads 2700 ml or more
COPY_CORRELATION = 0.99999  # correlation of two channels above which one is a rescaled copy of the other


@dataclass
class CheckedChannel:
    """A channel while its case is checked: a coarse copy, its brain mask and a few numbers."""

    name: str
    path: Path
    shape: tuple[int, ...]
    affine: np.ndarray | None
    coarse: np.ndarray
    mask: np.ndarray
    stripped: bool
    bright: float

    @property
    def shows_head(self) -> bool:
        """Whether it certainly shows more than a brain, by the volume of its mask."""
        if self.affine is None or self.mask.all() or not self.is_volume:
            return False
        whole = np.prod(self.shape) * voxel_size(nib.affines.voxel_sizes(self.affine)) / 1000
        return float(self.mask.mean() * whole) > HEAD_ML

    @property
    def is_volume(self) -> bool:
        """Whether it has three axes and a place in space."""
        return self.affine is not None and len(self.shape) == 3

    def difference(self, shape: tuple[int, ...], affine: np.ndarray | None) -> str | None:
        """How the grid of a file differs from its own, in words; None within a tenth of a voxel."""
        if shape != self.shape:
            return f"has shape {by_axis(shape)}, not the {by_axis(self.shape)}"
        if affine is None or self.affine is None:
            return None if affine is self.affine else "has another kind of header than that"
        distance = corner_distance(shape, affine, self.affine)
        if distance <= grid_tolerance(affine, self.affine):
            return None
        codes, wanted = ("".join(nib.aff2axcodes(a)) for a in (affine, self.affine))
        if codes != wanted:
            return f"has orientation {codes}, not the {wanted}"
        return f"has another affine: by its header it lies up to {distance:.2f} mm from where it should, on the grid"


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
            f"{path}: channel {name} holds {bad} {unit_of(array)} that are NaN or infinite: export it again."
        )
        return None
    array = array.astype(np.float32, copy=False)
    low, high = array.min(), array.max()
    if low == high and slice_number is None:
        record.problems.append(f"{path}: channel {name} holds nothing but the value {low:g}: export it again.")
        return None
    outside, flat = background_value(array)
    coarse = array[coarse_steps(image._replace(voxels=array))]
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
    return CheckedChannel(name, path, array.shape, image.affine, coarse.copy(), mask, stripped, bright)


def hash_voxels(array: np.ndarray) -> str:
    """The sha256 of an array's shape and values, whatever their order and type in memory."""
    digest = hashlib.sha256(repr(array.shape).encode())
    digest.update(np.asfortranarray(array, dtype="<f4").T.data)  # files store the first axis fastest: no copy
    return digest.hexdigest()


def coarse_steps(image: GridImage) -> tuple[slice, ...]:
    """The strides of a coarse copy, as slices."""
    axes = image.voxels.ndim
    sizes = [COARSE_MM] * axes if image.affine is None else nib.affines.voxel_sizes(image.affine)[:axes]
    return tuple(slice(None, None, max(1, int(COARSE_MM / size))) for size in sizes)


def check_copies(
    channels: Sequence[CheckedChannel], record: CaseRecord, slice_number: int | None = None
) -> float | None:
    """Find channels that are copies of others, and return the largest correlation of two (absolute value)."""
    largest = None
    for one, other in itertools.combinations([channel for channel in channels if channel.mask.any()], 2):
        correlation = abs(_correlation(one, other))
        largest = max(correlation, largest or 0.0)
        if np.array_equal(one.coarse, other.coarse) and np.count_nonzero(one.mask) > 2:
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


def unit_of(array: np.ndarray) -> str:
    """`pixels` of an image of two axes, `voxels` of others."""
    return "pixels" if array.ndim == 2 else "voxels"
