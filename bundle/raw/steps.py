"""The steps from the raw channels of one patient to prepared ones, each checked and measured."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from bundle.dicom.channels import channel_kind
from bundle.raw.bias_field import remove_bias_field
from bundle.raw.brain_mask import MaskSource, find_brain_mask
from bundle.raw.findings import check_views, describe_gains, describe_places, list_numbers
from bundle.raw.mask_checks import check_brain_mask
from bundle.raw.registration import register_rigid
from bundle.raw.volumes import find_head, resample, to_itk, to_voxels
from scripts.data.check_results import OK, REFUSE, ScanCheck
from scripts.data.images import GridImage
from scripts.data.scan_checks import ScanRefused
from scripts.errors import InputError

AS_FINE = 1.1  # voxels up to this much longer count as equally fine


class PreparedChannels(NamedTuple):
    """Channels on the grid of the reference, and how they became so.

    Attributes:
        channels: name to voxels [H, W, D], float32, 0 outside the brain.
        reference: name of the channel whose grid it is.
        brain: mask [H, W, D].
        corrected: name to each channel as scanned and without its bias field, on the reference's grid, by the headers.
        moved: name to the channel on the reference.
        checks: a check of each step.
        measured: what answer.json says of the steps.
    """

    channels: dict[str, np.ndarray]
    reference: str
    brain: np.ndarray
    corrected: dict[str, tuple[np.ndarray, np.ndarray]]
    moved: dict[str, np.ndarray]
    checks: list[ScanCheck]
    measured: dict[str, Any]


def prepare_channels(
    scans: Mapping[str, GridImage], source: MaskSource, show: Callable[[str], object]
) -> PreparedChannels:
    """Remove the bias field of each channel, register all to one, and keep the brain alone.

    Args:
        scans: name to channel, each on a grid of its own.
        source: where the brain mask is from.
        show: gets the name of a step when it begins.

    Raises:
        ScanRefused: a step fails, or what it made is not plausible.
    """
    names, checks, seconds = list(scans), list[ScanCheck](), dict[str, float]()
    reference, why = choose_reference(scans)
    heads = {name: find_head(scan) for name, scan in scans.items()}
    grid = to_itk(scans[reference]._replace(voxels=scans[reference].voxels.astype(np.float32)))
    with _step("bias field", checks, seconds, show):
        made = {name: remove_bias_field(scan, heads[name], name) for name, scan in scans.items()}
        gains = {name: gain for name, (_, gain) in made.items()}
        checks.append(describe_gains(gains))
    images = {name: to_itk(image) for name, (image, _) in made.items()}
    with _step("co-registration", checks, seconds, show):
        places = {
            name: register_rigid(
                images[reference],
                images[name],
                (heads[reference], heads[name]),
                (f"channel {reference}", f"channel {name}"),
            )
            for name in names
            if name != reference
        }
        checks.append(describe_places(places, reference, why))
    transforms = {name: place.transform for name, place in places.items()}
    moved = {name: resample(images[name], grid, transforms.get(name)) for name in names}
    with _step("brain mask", checks, seconds, show):
        brain, how = find_brain_mask(source, scans, moved, transforms, reference, heads[reference])
        volume = np.count_nonzero(to_voxels(brain)) * float(np.prod(grid.GetSpacing())) / 1000
        if not source.stripped or source.file:
            volume = check_brain_mask(brain, heads[reference], f"the brain mask {how}")
        checks.append(ScanCheck("brain mask", OK, f"The brain mask {how} has {volume:.0f} ml.", round(volume, 1)))
        inside = to_voxels(brain) > 0
        views = {name: to_voxels(resample(images[name] * 0 + 1, grid, transforms.get(name))) for name in names}
        checks.append(check_views({name: float((view[inside] > 0.5).mean()) for name, view in views.items()}))
    channels = {name: np.where(inside, to_voxels(image), np.float32(0)) for name, image in moved.items()}
    before = {name: to_itk(scan._replace(voxels=scan.voxels.astype(np.float32))) for name, scan in scans.items()}
    corrected = {
        name: (to_voxels(resample(before[name], grid)), to_voxels(resample(images[name], grid))) for name in names
    }
    measured = {
        "reference": reference,
        "reason": why,
        "channels": {
            name: {"gain": round(gains[name], 4), **(list_numbers(places[name]) if name in places else {})}
            for name in names
        },
        "brain": {"method": how, "volume_ml": round(volume, 1)},
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "licences": source.licences,
    }
    voxels = {name: to_voxels(image) for name, image in moved.items()}
    return PreparedChannels(channels, reference, inside, corrected, voxels, checks, measured)


def choose_reference(scans: Mapping[str, GridImage]) -> tuple[str, str]:
    """The channel that the others are registered to, and why: the finest, T1c where others are as fine."""
    longest = {name: max(scan.spacing(3)) for name, scan in scans.items()}
    fine = [name for name, size in longest.items() if size <= AS_FINE * min(longest.values())]
    chosen = next((name for name in fine if channel_kind(name) == "T1c"), fine[0])
    sizes = " x ".join(f"{size:g}" for size in scans[chosen].spacing(3))
    others = "no other channel has finer voxels" if len(fine) > 1 else "its voxels are the finest"
    return chosen, f"{others}: {sizes} mm"


@contextmanager
def _step(
    name: str, checks: list[ScanCheck], seconds: dict[str, float], show: Callable[[str], object]
) -> Iterator[None]:
    """Time a step; an error in it refuses the scan, with the checks so far."""
    show(name)
    start = time.monotonic()
    try:
        yield
    except InputError as error:
        raise ScanRefused(str(error), [*checks, ScanCheck(name, REFUSE, str(error))]) from error
    seconds[name] = time.monotonic() - start
