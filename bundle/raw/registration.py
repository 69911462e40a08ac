"""Rigid registration of a scan to another one of the same patient, checked afterwards."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from bundle.raw.mutual_information import MutualInformation
from bundle.raw.volumes import resample, to_voxels
from scripts.data.alignment_checks import ALIGNMENT_LIMITS
from scripts.errors import InputError

LEVELS_MM = (8.0, 4.0, 2.0, 1.0)
REACH_MM = 60.0  # from the centre of the head, where displacements are measured
PROBES = (5.0, 2.0)  # mm and degrees around the result, where mutual information must be lower
GAIN = 1.005  # by which it must be higher to count
TRIES = 4  # from the best position around a result that is no optimum
RAW_ADVICE = "check that both are of one patient and visit, or register them by another program and leave out --raw"
STARTS_DEGREES = (-15.0, 0.0, 15.0)  # about each axis, where the header's position is not the best start


class Registration(NamedTuple):
    """The position of a channel on another one.

    Attributes:
        transform: from points of the fixed image to points of the moving one.
        moved_mm: the largest displacement of a point 60 mm from the centre of the head.
        turned_degrees: the angle of rotation.
        before: mutual information at the positions that the headers give, in nats.
        after: the same at the result.
        overlap: Dice of the two heads where both images show them.
    """

    transform: sitk.Euler3DTransform
    moved_mm: float
    turned_degrees: float
    before: float
    after: float
    overlap: float


def register_rigid(
    fixed: sitk.Image,
    moving: sitk.Image,
    heads: tuple[sitk.Image, sitk.Image],
    names: tuple[str, str],
    advice: str = RAW_ADVICE,
) -> Registration:
    """Move a channel onto another one of the same patient: three shifts, three rotations.

    Args:
        fixed: the channel that stays.
        moving: the one that is moved.
        heads: the mask of the head in each.
        names: of the two, for messages.
        advice: what the user can do, for messages.

    Raises:
        InputError: mutual information did not grow, is not at an optimum, or the heads do not overlap afterwards.
    """
    centre = _centre(heads[0])
    information = MutualInformation(fixed, moving, _grow(heads[0]))
    rest = sitk.Euler3DTransform()
    rest.SetCenter(centre)
    before = information.measure(rest)
    shift = np.subtract(_centre(heads[1]), centre)
    starts = [rest, *(_moved(rest, shift, turn) for turn in ((0.0, 0.0, 0.0), *_turns()))]
    best = max(starts if before == 0 else starts[:2], key=information.measure)
    found = _climb(information, best)
    if found is None:
        raise InputError(_refusal(names, advice, "it stopped where a move by 2 to 5 mm or degrees still gains"))
    after = information.measure(found)
    if after <= before:  # the headers were right already, which is an optimum too, or the climb went astray
        if not _is_optimum(information, rest):
            raise InputError(_refusal(names, advice, f"mutual information did not grow ({before:.3f} to {after:.3f})"))
        found, after = rest, before
    overlap = _overlap(heads, found)
    if overlap < ALIGNMENT_LIMITS["head"][0]:
        limit = ALIGNMENT_LIMITS["head"][0]
        raise InputError(_refusal(names, advice, f"the heads overlap with Dice {overlap:.2f}, less than {limit:.2f}"))
    trace = np.trace(np.reshape(found.GetMatrix(), (3, 3)))
    turned = float(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))))
    return Registration(found, displacement(found, centre), turned, before, after, overlap)


def displacement(transform: sitk.Transform, centre: np.ndarray) -> float:
    """The largest displacement of the six points 60 mm from a centre along the axes, in mm."""
    points = [centre + REACH_MM * sign * axis for sign in (-1, 1) for axis in np.eye(3)]
    return max(float(np.linalg.norm(np.subtract(transform.TransformPoint(point), point))) for point in points)


def _climb(information: MutualInformation, start: sitk.Euler3DTransform) -> sitk.Euler3DTransform | None:
    """An optimum: no position 2 or 5 mm or degrees away is better; None if none is found in a few tries."""
    for _ in range(TRIES):
        found = information.climb(sitk.Euler3DTransform(start), LEVELS_MM)
        if _is_optimum(information, found):
            return found
        start = max(_around(found), key=information.measure)
    return None


def _is_optimum(information: MutualInformation, found: sitk.Euler3DTransform) -> bool:
    return max(map(information.measure, _around(found))) <= GAIN * information.measure(found)


def _turns() -> Iterator[tuple[float, ...]]:
    return (turn for turn in product(STARTS_DEGREES, repeat=3) if any(turn))


def _moved(start: sitk.Euler3DTransform, shift: np.ndarray, turn: tuple[float, ...]) -> sitk.Euler3DTransform:
    """A transform with another shift (mm) and other angles (degrees) added."""
    made = sitk.Euler3DTransform(start)
    made.SetParameters(np.add(start.GetParameters(), [*np.radians(turn), *shift]).tolist())
    return made


def _around(found: sitk.Euler3DTransform) -> Iterator[sitk.Euler3DTransform]:
    for axis, sign, probe in product(np.eye(3), (-1, 1), PROBES):
        yield _moved(found, probe * sign * axis, (0.0, 0.0, 0.0))
        yield _moved(found, np.zeros(3), tuple(probe * sign * axis))


def _centre(head: sitk.Image) -> np.ndarray:
    """The centre of a mask, as a point."""
    middle = np.argwhere(to_voxels(head)).mean(0)
    return np.array(head.TransformContinuousIndexToPhysicalPoint([float(place) for place in middle]))


def _grow(head: sitk.Image) -> sitk.Image:
    """The head and what is next to it, since its border says where it is."""
    return sitk.BinaryDilate(head, [max(1, round(6 / size)) for size in head.GetSpacing()])


def _overlap(heads: tuple[sitk.Image, sitk.Image], transform: sitk.Transform) -> float:
    fixed, moving = heads
    inside = to_voxels(resample(moving * 0 + 1, fixed, transform)) > 0
    one, other = to_voxels(fixed)[inside] > 0, to_voxels(resample(moving, fixed, transform))[inside] > 0
    return float(2 * np.count_nonzero(one & other) / max(1, np.count_nonzero(one) + np.count_nonzero(other)))


def _refusal(names: tuple[str, str], advice: str, why: str) -> str:
    fixed, moving = names
    return f"{moving} could not be registered to {fixed}: {why}; {advice}."
