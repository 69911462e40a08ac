"""Faults of scans in grades, made from sound scans, to count how many of them the checks find."""

from collections.abc import Callable, Sequence
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

    def change(self, call: Callable[[np.ndarray], np.ndarray], names: Sequence[str] | None = None) -> "ScanVoxels":
        """The scan with a function of the voxels of some channels, by default of all."""
        changed = {name: call(self.channels[name]) for name in (self.channels if names is None else names)}
        return self._replace(channels={**self.channels, **changed})

    def with_channel(self, name: str, voxels: np.ndarray) -> "ScanVoxels":
        """The scan with other voxels of a channel."""
        return self._replace(channels={**self.channels, name: voxels})


# From a sound scan, another patient's scan on the same grid (None: there is none) and random numbers, the faulty scan;
# None where the scan cannot show the fault, as one without the channel
MakeFault = Callable[[ScanVoxels, "ScanVoxels | None", Generator], "ScanVoxels | None"]


def list_faults() -> dict[str, MakeFault]:
    """All faults, of one kind after another, each in grades: what is wrong and how much, and what makes it."""
    found: dict[str, MakeFault] = {}
    for mm in (5, 10, 25, 48):
        for axis, direction in enumerate(("sideways", "forwards", "upwards")):
            found[f"FLAIR displaced by {mm} mm {direction}"] = partial(_displace, mm=mm, axis=axis)
    for one, other in (("T1", "T1c"), ("T2", "FLAIR"), ("T1c", "FLAIR")):
        found[f"{one} and {other} exchanged"] = partial(_exchange, one=one, other=other)
    found["one file as all channels"] = _copy_first
    found["FLAIR missing, filled with 0"] = lambda scan, *_: scan.change(lambda voxels: 0 * voxels, ["FLAIR"])
    for name in ("FLAIR", "T2"):
        found[f"{name} of another patient"] = partial(_take_over, name=name)
    for names, words in ((None, "all channels"), (["FLAIR"], "FLAIR")):
        found[f"contrast of {words} inverted, background too"] = partial(_invert, names=names, inside=False)
        found[f"contrast of {words} inverted in the brain"] = partial(_invert, names=names, inside=True)
    found["FLAIR mirrored left to right"] = _mirror
    found["skull and scalp not removed"] = _add_skull
    found["noise in the background"] = _add_noise
    for share in (0.1, 0.25, 0.5):
        found[f"upper {share:.0%} of the brain cut off"] = partial(_cut_off, share=share)
    for mm in (6, 15):
        found[f"slices of {mm} mm, resampled"] = partial(_thicken, mm=mm)
    found["slices of 15 mm"] = _thin_out
    found["header says a third of the voxel size"] = partial(_rescale, factor=1 / 3)
    found["header says twice the voxel size"] = partial(_rescale, factor=2.0)
    for count in (1, 3):
        found[f"{count} constant slices in T1c"] = partial(_spoil, count=count, how="constant")
    found["one slice of noise in T1c"] = partial(_spoil, count=1, how="noise")
    found["one slice of T1c twice as bright"] = partial(_spoil, count=1, how="bright")
    found["one voxel of 1e6 in T1c"] = partial(_add_spike, names=["T1c"])
    found["one voxel of 1e6 in each channel"] = partial(_add_spike, names=None)
    found["label map in place of T2"] = _put_label
    found["CT in all channels"] = _make_ct
    found["ball of water in all channels"] = _make_ball
    found["two legs in place of the head"] = _make_legs
    return found


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


def _invert(scan: ScanVoxels, _: object, __: object, names: Sequence[str] | None, inside: bool) -> ScanVoxels:
    def invert(voxels: np.ndarray) -> np.ndarray:
        brain = find_brain_of(voxels)
        turned = voxels[brain].max() + voxels[brain].min() - voxels
        return np.where(brain, turned, voxels) if inside else turned

    return scan.change(invert, names)


def _mirror(scan: ScanVoxels, *_: object) -> ScanVoxels:
    axis = int(np.argmax(np.abs(scan.affine[0, :3])))
    return scan.with_channel("FLAIR", np.flip(scan.channels["FLAIR"], axis).copy())


def _add_skull(scan: ScanVoxels, _: object, rng: Generator) -> ScanVoxels:
    first = next(iter(scan.channels.values()))
    away = ndimage.distance_transform_edt(~find_brain_of(first), sampling=scan.spacing)
    scalp = (away >= 7) & (away < 14)

    def add(voxels: np.ndarray) -> np.ndarray:
        brain = find_brain_of(voxels)
        base, bright = float(voxels[~brain].flat[0]), float(np.percentile(voxels[brain], 90))
        noise = 0.03 * (bright - base) * rng.random(voxels.shape)
        return (np.where(scalp, bright, voxels) + noise).astype(np.float32)

    return scan.change(add)


def _add_noise(scan: ScanVoxels, _: object, rng: Generator) -> ScanVoxels:
    def add(voxels: np.ndarray) -> np.ndarray:
        brain = find_brain_of(voxels)
        noise = 0.05 * float(voxels[brain].std()) * np.abs(rng.standard_normal(voxels.shape))
        return np.where(brain, voxels, voxels + noise).astype(np.float32)

    return scan.change(add)


def _cut_off(scan: ScanVoxels, _: object, __: object, share: float) -> ScanVoxels:
    brain = np.any([find_brain_of(voxels) for voxels in scan.channels.values()], axis=0)
    there = np.flatnonzero(brain.any((0, 1)))
    last = int(there[-1] - share * (there[-1] - there[0]))
    return scan.change(lambda voxels: voxels[..., : last + 1])


def _thicken(scan: ScanVoxels, _: object, __: object, mm: float) -> ScanVoxels:
    """Slices are averaged over their thickness, then interpolated between."""
    step = max(2, round(mm / scan.spacing[2]))

    def thicken(voxels: np.ndarray) -> np.ndarray:
        outside, brain = background_value(voxels)[0], find_brain_of(voxels)
        mean = ndimage.uniform_filter1d(voxels.astype(np.float32), step, axis=2)
        chosen = mean[..., step // 2 :: step]
        coordinates = np.clip(np.arange(voxels.shape[2]) / step - (step // 2) / step, 0, chosen.shape[2] - 1)
        low = np.minimum(coordinates.astype(int), chosen.shape[2] - 2)
        part = (coordinates - low).astype(np.float32)
        between = chosen[..., low] * (1 - part) + chosen[..., low + 1] * part
        return np.where(brain, between, outside).astype(np.float32)

    return scan.change(thicken)


def _thin_out(scan: ScanVoxels, *_: object) -> ScanVoxels:
    step = max(2, round(15 / scan.spacing[2]))
    return scan.change(lambda voxels: voxels[..., ::step])._replace(affine=scan.affine @ np.diag([1.0, 1.0, step, 1.0]))


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


def _add_spike(scan: ScanVoxels, _: object, rng: Generator, names: Sequence[str] | None) -> ScanVoxels:
    def add(voxels: np.ndarray) -> np.ndarray:
        spiked = voxels.astype(np.float32)
        spiked.flat[int(rng.choice(np.flatnonzero(find_brain_of(voxels))))] = 1e6
        return spiked

    return scan.change(add, names)


def _put_label(scan: ScanVoxels, *_: object) -> ScanVoxels | None:
    """A label map of nested regions: the brightest tissue of FLAIR."""
    if "T2" not in scan.channels:
        return None
    voxels = scan.channels["FLAIR"]
    levels = np.percentile(voxels[find_brain_of(voxels)], [90, 95, 98])
    return scan.with_channel("T2", np.digitize(voxels, levels).astype(np.int16))


def _make_ct(scan: ScanVoxels, _: object, rng: Generator) -> ScanVoxels:
    """Brain of 35 HU, fluid of 5, a skull of 1000, air of -1000, each with noise of its own."""
    first = next(iter(scan.channels.values()))
    brain = find_brain_of(first)
    away = ndimage.distance_transform_edt(~brain, sampling=scan.spacing)
    fluid = brain & (first < np.percentile(first[brain], 10))
    tissue = np.select([fluid, brain, away < 2, away < 8], [5, 35, 10, 1000], -1000)
    return scan.change(lambda _: (tissue + rng.normal(0, 4, tissue.shape)).astype(np.float32))


def _from_centre(scan: ScanVoxels) -> np.ndarray:
    shape = next(iter(scan.channels.values())).shape
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"))
    return (grid - (np.reshape(shape, (3, 1, 1, 1)) - 1) / 2) * scan.spacing.reshape(3, 1, 1, 1)


def _make_ball(scan: ScanVoxels, _: object, rng: Generator) -> ScanVoxels:
    ball = np.linalg.norm(_from_centre(scan), axis=0) < 70
    return scan.change(lambda _: (np.where(ball, 1000 + rng.normal(0, 20, ball.shape), 0)).astype(np.float32))


def _make_legs(scan: ScanVoxels, _: object, rng: Generator) -> ScanVoxels:
    x, y, _z = _from_centre(scan)
    radius = np.hypot(np.abs(x) - 45, y)
    tissue = np.select([radius < 7, radius < 12, radius < 32, radius < 40], [300, 100, 400, 900], 0)
    texture = 1 + 0.1 * ndimage.gaussian_filter(rng.standard_normal(tissue.shape), 2)
    return scan.change(
        lambda _: (np.where(tissue > 0, tissue * texture + rng.normal(0, 15, tissue.shape), 0)).astype(np.float32)
    )


FAULTS = list_faults()
