"""The brain mask of a head: from a file of the user, a network or the template."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from bundle.dicom.channels import channel_kind
from bundle.raw import brain_networks, template
from bundle.raw.volumes import resample, to_itk
from scripts.data.brain_masks import background_value, find_brain
from scripts.data.images import GridImage, read_image, same_grid
from scripts.data.nifti import by_axis
from scripts.errors import InputError

LIKEST_T1 = {"T1c": 0, "T1": 1}  # kinds of channels in the order in which they are taken: the methods are of T1


class BrainMethod(NamedTuple):
    """A way to a brain mask.

    Attributes:
        make: the mask (uint8) on the grid of a scan, from the scan and the mask of its head.
        require: raises `InputError` where it is not installed.
        licence: terms of its weights or template.
    """

    make: Callable[[sitk.Image, sitk.Image], sitk.Image]
    require: Callable[[], None]
    licence: str


METHODS = {
    "template": BrainMethod(template.mask_by_template, template.require_template, template.LICENCE),
    "hd-bet": BrainMethod(brain_networks.run_hd_bet, brain_networks.require_hd_bet, brain_networks.HD_BET_LICENCE),
    "deepbet": BrainMethod(brain_networks.run_deepbet, brain_networks.require_deepbet, brain_networks.DEEPBET_LICENCE),
}


class MaskSource(NamedTuple):
    """Where the brain mask is from: the scan's own background if it is `stripped`, a file, or a method."""

    stripped: bool
    method: str
    file: Path | None

    @property
    def licences(self) -> dict[str, str]:
        """The terms of what makes the mask, by name."""
        return {} if self.stripped or self.file else {"brain mask": METHODS[self.method].licence}


def find_brain_mask(
    source: MaskSource,
    scans: Mapping[str, GridImage],
    moved: Mapping[str, sitk.Image],
    transforms: Mapping[str, sitk.Transform],
    reference: str,
    head: sitk.Image,
) -> tuple[sitk.Image, str]:
    """The brain mask (uint8) on the grid of the reference, and where it is from, in words.

    Args:
        source: where it is from.
        scans: name to channel, on its own grid.
        moved: name to channel on the reference.
        transforms: name to transform, from points of the reference to points of the channel; none for the reference.
        reference: name of that channel.
        head: the mask of its head.

    Raises:
        InputError: see `read_brain_mask`.
    """
    if source.file is not None:
        order = sorted(scans, key=lambda name: name != reference)
        mask, place = read_brain_mask(source.file, [scans[name] for name in order], order)
        return resample(mask, moved[reference], transforms.get(order[place])), "of the given file"
    if source.stripped:
        own = find_brain(scans[reference].voxels, *background_value(scans[reference].voxels))[0]
        return to_itk(scans[reference]._replace(voxels=own.astype(np.uint8))), f"of {reference}, as it came,"
    kinds = {name: LIKEST_T1.get(str(channel_kind(name)), len(LIKEST_T1)) for name in scans}
    like_t1 = kinds[reference] < len(LIKEST_T1)
    name = reference if like_t1 else min(scans, key=lambda name: (kinds[name], name != reference))
    return make_brain_mask(source.method, moved[name], head), f"by {source.method} from {name}"


def make_brain_mask(method: str, scan: sitk.Image, head: sitk.Image) -> sitk.Image:
    """The brain mask (uint8) on the grid of a scan: its largest component, holes filled."""
    found = sitk.ConnectedComponent(METHODS[method].make(scan, head))
    largest = sitk.RelabelComponent(found, sortByObjectSize=True) == 1
    return sitk.BinaryFillhole(sitk.Cast(largest, sitk.sitkUInt8))


def read_brain_mask(path: Path, channels: Sequence[GridImage], names: Sequence[str]) -> tuple[sitk.Image, int]:
    """A brain mask from a file, and which channel's grid it has: the first one that fits.

    Args:
        path: the file; 0 is outside. Its axes may run in other directions than those of the channel.
        channels: in the order in which they are tried.
        names: of the channels, for messages.

    Raises:
        InputError: it cannot be read, is empty, or lies on the grid of no channel.
    """
    mask = read_image(path)
    if mask.affine is None or mask.voxels.ndim != 3:
        raise InputError(f"{path} is not a volume: give the brain mask as NIfTI, NRRD or MetaImage.")
    inside = mask.voxels > 0
    if not inside.any():
        raise InputError(f"{path} is empty: a brain mask is above 0 in the brain; give another file, or leave it out.")
    for place, channel in enumerate(channels):
        assert channel.affine is not None
        turn = nib.orientations.ornt_transform(nib.io_orientation(mask.affine), nib.io_orientation(channel.affine))
        affine = mask.affine @ nib.orientations.inv_ornt_aff(turn, inside.shape)
        turned = GridImage(nib.apply_orientation(inside.astype(np.uint8), turn), affine)
        if same_grid(turned, channel):
            return to_itk(turned), place
    shapes = "; ".join(f"{name} {by_axis(channel.voxels.shape)}" for name, channel in zip(names, channels, strict=True))
    raise InputError(
        f"{path} ({by_axis(inside.shape)}) lies on the grid of no channel ({shapes}): give the mask on the grid of one."
    )
