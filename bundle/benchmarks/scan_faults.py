"""Faults of scans in grades, made from sound scans, to count how many of them the checks find."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from scripts.data.brain_masks import background_value


class ScanVoxels(NamedTuple):
    """A scan: channels by name, each [H, W, D], and the affine to mm (4 x 4)."""

    channels: dict[str, np.ndarray]
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """Mm along each axis."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def with_channel(self, name: str, voxels: np.ndarray) -> "ScanVoxels":
        """The scan with other voxels of a channel."""
        return self._replace(channels={**self.channels, name: voxels})


MakeFault = Callable[[ScanVoxels, "ScanVoxels | None", Generator], "ScanVoxels | None"]


class ScanFault(NamedTuple):
    """A fault in one grade.

    Attributes:
        name: what is wrong, and how much.
        make: from a sound scan, another patient's scan on the same grid (None: there is none) and random numbers, the
            faulty scan; None where the scan cannot show the fault, as one without the channel.
    """

    name: str
    make: MakeFault


def list_faults() -> Iterator[ScanFault]:
    """All faults, of one kind after another."""
    for mm in (5, 10, 25, 48):
        for axis, direction in enumerate(("sideways", "forwards", "upwards")):
            yield ScanFault(f"FLAIR displaced by {mm} mm {direction}", partial(_displace, mm=mm, axis=axis))
    yield ScanFault("T1 and T1c exchanged", partial(_exchange, one="T1", other="T1c"))
    yield ScanFault("T2 and FLAIR exchanged", partial(_exchange, one="T2", other="FLAIR"))
    yield ScanFault("T1c and FLAIR exchanged", partial(_exchange, one="T1c", other="FLAIR"))
    yield ScanFault("one file as all channels", _copy_first)
    yield ScanFault(
        "FLAIR missing, filled with 0", lambda scan, *_: scan.with_channel("FLAIR", 0 * scan.channels["FLAIR"])
    )
    yield ScanFault("FLAIR of another patient", partial(_take_over, name="FLAIR"))
    yield ScanFault("T2 of another patient", partial(_take_over, name="T2"))
    for every, words in ((True, "all channels"), (False, "FLAIR")):
        yield ScanFault(f"contrast of {words} inverted, background too", partial(_invert, every=every, inside=False))
        yield ScanFault(f"contrast of {words} inverted in the brain", partial(_invert, every=every, inside=True))
    yield ScanFault("FLAIR mirrored left to right", _mirror)
    yield ScanFault("skull and scalp not removed", _add_skull)
    yield ScanFault("noise in the background", _add_noise)
    for share in (0.1, 0.25, 0.5):
        yield ScanFault(f"upper {share:.0%} of the brain cut off", partial(_cut_off, share=share))
    for mm in (6, 15):
        yield ScanFault(f"slices of {mm} mm, resampled", partial(_thicken, mm=mm))
    yield ScanFault("slices of 15 mm", _thin_out)
    yield ScanFault("header says a third of the voxel size", partial(_rescale, factor=1 / 3))
    yield ScanFault("header says twice the voxel size", partial(_rescale, factor=2.0))
    for count in (1, 3):
        yield ScanFault(f"{count} constant slices in T1c", partial(_spoil, count=count, how="constant"))
    yield ScanFault("one slice of noise in T1c", partial(_spoil, count=1, how="noise"))
    yield ScanFault("one slice of T1c twice as bright", partial(_spoil, count=1, how="bright"))
    yield ScanFault("one voxel of 1e6 in T1c", partial(_add_spike, every=False))
    yield ScanFault("one voxel of 1e6 in each channel", partial(_add_spike, every=True))
    yield ScanFault("label map in place of T2", _put_label)
    yield ScanFault("CT in all channels", _make_ct)
    yield ScanFault("ball of water in all channels", _make_ball)
    yield ScanFault("two legs in place of the head", _make_legs)


def find_brain_of(voxels: np.ndarray) -> np.ndarray:
    """Where a scan without a skull differs from its background."""
    return voxels != background_value(voxels)[0]


def _displace(scan: ScanVoxels, _: object, __: object, mm: float, axis: int) -> ScanVoxels:
    voxels, outside = scan.channels["FLAIR"], background_value(scan.channels["FLAIR"])[0]
    shift = [0.0, 0.0, 0.0]
    shift[axis] = mm / scan.spacing[axis]
    whole = all(float(part).is_integer() for part in shift)
    return scan.with_channel("FLAIR", ndimage.shift(voxels, shift, order=0 if whole else 1, cval=outside))


def _exchange(scan: ScanVoxels, _: object, __: object, one: str, other: str) -> ScanVoxels | None:
    if not {one, other} <= {*scan.channels}:
        return None
    exchanged = {one: scan.channels[other], other: scan.channels[one]}
    return scan._replace(channels={**scan.channels, **exchanged})


def _copy_first(scan: ScanVoxels, *_: object) -> ScanVoxels:
    first = next(iter(scan.channels.values()))
    return scan._replace(channels=dict.fromkeys(scan.channels, first))


def _take_over(scan: ScanVoxels, other: ScanVoxels | None, _: object, name: str) -> ScanVoxels | None:
    if other is None or name not in scan.channels or other.channels[name].shape != scan.channels[name].shape:
        return None
    return scan.with_channel(name, other.channels[name])


def _invert(scan: ScanVoxels, _: object, __: object, every: bool, inside: bool) -> ScanVoxels:
    inverted = dict(scan.channels)
    for name in inverted if every else ("FLAIR",):
        voxels = inverted[name]
        brain = find_brain_of(voxels)
        turned = voxels[brain].max() + voxels[brain].min() - voxels
        inverted[name] = np.where(brain, turned, voxels) if inside else turned
    return scan._replace(channels=inverted)


def _mirror(scan: ScanVoxels, *_: object) -> ScanVoxels:
    axis = int(np.argmax(np.abs(scan.affine[0, :3])))
    return scan.with_channel("FLAIR", np.flip(scan.channels["FLAIR"], axis).copy())


def _add_skull(scan: ScanVoxels, _: object, rng: Generator) -> ScanVoxels:
    first = next(iter(scan.channels.values()))
    away = ndimage.distance_transform_edt(~find_brain_of(first), sampling=scan.spacing)
    scalp = (away >= 7) & (away < 14)
    heads = {}
    for name, voxels in scan.channels.items():
        brain = find_brain_of(voxels)
        base, bright = float(voxels[~brain].flat[0]), float(np.percentile(voxels[brain], 90))
        noise = 0.03 * (bright - base) * rng.random(voxels.shape)
        heads[name] = (np.where(scalp, bright, voxels) + noise).astype(np.float32)
    return scan._replace(channels=heads)


def _add_noise(scan: ScanVoxels, _: object, rng: Generator) -> ScanVoxels:
    noisy = {}
    for name, voxels in scan.channels.items():
        brain = find_brain_of(voxels)
        noise = 0.05 * float(voxels[brain].std()) * np.abs(rng.standard_normal(voxels.shape))
        noisy[name] = np.where(brain, voxels, voxels + noise).astype(np.float32)
    return scan._replace(channels=noisy)


def _cut_off(scan: ScanVoxels, _: object, __: object, share: float) -> ScanVoxels:
    brain = np.any([find_brain_of(voxels) for voxels in scan.channels.values()], axis=0)
    there = np.flatnonzero(brain.any((0, 1)))
    last = int(there[-1] - share * (there[-1] - there[0]))
    return scan._replace(channels={name: voxels[..., : last + 1] for name, voxels in scan.channels.items()})


def _thicken(scan: ScanVoxels, _: object, __: object, mm: float) -> ScanVoxels:
    """Slices are averaged over their thickness, then interpolated between."""
    step = max(2, round(mm / scan.spacing[2]))
    thick = {}
    for name, voxels in scan.channels.items():
        outside, brain = background_value(voxels)[0], find_brain_of(voxels)
        mean = ndimage.uniform_filter1d(voxels.astype(np.float32), step, axis=2)
        places = np.arange(voxels.shape[2]) / step
        chosen = mean[..., step // 2 :: step]
        coordinates = np.clip(places - (step // 2) / step, 0, chosen.shape[2] - 1)
        low = np.minimum(coordinates.astype(int), chosen.shape[2] - 2)
        part = (coordinates - low).astype(np.float32)
        thick[name] = np.where(brain, chosen[..., low] * (1 - part) + chosen[..., low + 1] * part, outside).astype(
            np.float32
        )
    return scan._replace(channels=thick)


def _thin_out(scan: ScanVoxels, *_: object) -> ScanVoxels:
    step = max(2, round(15 / scan.spacing[2]))
    affine = scan.affine @ np.diag([1.0, 1.0, step, 1.0])
    return ScanVoxels({name: voxels[..., ::step] for name, voxels in scan.channels.items()}, affine)


def _rescale(scan: ScanVoxels, _: object, __: object, factor: float) -> ScanVoxels:
    return scan._replace(affine=scan.affine @ np.diag([factor, factor, factor, 1.0]))


def _spoil(scan: ScanVoxels, _: object, rng: Generator, count: int, how: str) -> ScanVoxels:
    voxels = scan.channels["T1c"].astype(np.float32)
    brain = find_brain_of(scan.channels["T1c"])
    there = np.flatnonzero(brain.any((0, 1)))
    first = int(there[len(there) // 2])
    for place in range(first, first + count):
        if how == "constant":
            voxels[..., place] = background_value(voxels)[0]
        elif how == "noise":
            low, high = np.percentile(voxels[brain], [5, 95])
            voxels[..., place] = np.where(
                brain[..., place], rng.uniform(low, high, voxels.shape[:2]), voxels[..., place]
            )
        else:
            voxels[..., place] = np.where(brain[..., place], 2 * voxels[..., place], voxels[..., place])
    return scan.with_channel("T1c", voxels)


def _add_spike(scan: ScanVoxels, _: object, rng: Generator, every: bool) -> ScanVoxels:
    spiked = dict(scan.channels)
    for name in spiked if every else ("T1c",):
        spiked[name] = spiked[name].astype(np.float32)
        brain = np.flatnonzero(find_brain_of(scan.channels[name]))
        spiked[name].flat[int(rng.choice(brain))] = 1e6
    return scan._replace(channels=spiked)


def _put_label(scan: ScanVoxels, *_: object) -> ScanVoxels | None:
    """A label map of nested regions: the brightest tissue of FLAIR."""
    if "T2" not in scan.channels:
        return None
    voxels = scan.channels["FLAIR"]
    levels = np.percentile(voxels[find_brain_of(voxels)], [90, 95, 98])
    return scan.with_channel("T2", np.digitize(voxels, levels).astype(np.int16))


def _in_all(scan: ScanVoxels, draw: Callable[[], np.ndarray]) -> ScanVoxels:
    return scan._replace(channels={name: draw().astype(np.float32) for name in scan.channels})


def _make_ct(scan: ScanVoxels, _: object, rng: Generator) -> ScanVoxels:
    """Brain of 35 HU, fluid of 5, a skull of 1000, air of -1000, each with noise of its own."""
    first = next(iter(scan.channels.values()))
    brain = find_brain_of(first)
    away = ndimage.distance_transform_edt(~brain, sampling=scan.spacing)
    fluid = brain & (first < np.percentile(first[brain], 10))
    tissue = np.select([fluid, brain, away < 2, away < 8], [5, 35, 10, 1000], -1000)
    return _in_all(scan, lambda: tissue + rng.normal(0, 4, tissue.shape))


def _from_centre(scan: ScanVoxels) -> np.ndarray:
    shape = next(iter(scan.channels.values())).shape
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"))
    return (grid - (np.reshape(shape, (3, 1, 1, 1)) - 1) / 2) * scan.spacing.reshape(3, 1, 1, 1)


def _make_ball(scan: ScanVoxels, _: object, rng: Generator) -> ScanVoxels:
    ball = np.linalg.norm(_from_centre(scan), axis=0) < 70
    return _in_all(scan, lambda: np.where(ball, 1000 + rng.normal(0, 20, ball.shape), 0))


def _make_legs(scan: ScanVoxels, _: object, rng: Generator) -> ScanVoxels:
    x, y, _z = _from_centre(scan)
    radius = np.hypot(np.abs(x) - 45, y)
    tissue = np.select([radius < 7, radius < 12, radius < 32, radius < 40], [300, 100, 400, 900], 0)
    texture = 1 + 0.1 * ndimage.gaussian_filter(rng.standard_normal(tissue.shape), 2)
    return _in_all(scan, lambda: np.where(tissue > 0, tissue * texture + rng.normal(0, 15, tissue.shape), 0))


FAULTS: Mapping[str, MakeFault] = {fault.name: fault.make for fault in list_faults()}
