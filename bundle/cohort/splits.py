"""Who learns, who chooses and who judges? Shares patients out over folds and a test set, alike in tumour volume.

Slices of too few volumes to share out are cut into blocks.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

from scripts.errors import InputError

Name = TypeVar("Name", bound=str)


def patients_of(cases: Iterable[str], pattern: str | None, strict: bool = False) -> dict[str, str]:
    """The patient of each case: the first group of `pattern` as found in the case's name, else the case itself.

    Args:
        cases: names.
        pattern: a regular expression with a group, or None if every case is a patient of its own.
        strict: every case must fit.

    Raises:
        InputError: the pattern is none, has no group, or does not fit a case and `strict`.
    """
    cases = list(cases)
    if pattern is None:
        return {case: case for case in cases}
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise InputError(f"'{pattern}' is no regular expression ({error}).") from error
    if not regex.groups:
        raise InputError(f"'{pattern}' has no group: put ( ) around the part that is the patient, such as '(.+)_\\d+'.")
    found = {case: regex.search(case) for case in cases}
    strange = sorted(case for case, match in found.items() if not (match and match[1]))
    if strict and strange:
        raise InputError(
            f"'{pattern}' does not fit {len(strange)} of {len(cases)} cases, such as {strange[0]}: widen it."
        )
    return {case: match[1] if match and match[1] else case for case, match in found.items()}


def join(patients: Mapping[str, str], same: Iterable[Sequence[str]]) -> dict[str, str]:
    """`patients` with those made one whose cases belong together; the first name in the alphabet stays.

    Args:
        patients: the patient of each case.
        same: groups of cases that are of one patient.
    """
    joined = dict(patients)
    for group in same:
        names = {joined[case] for case in group}
        first = min(names)
        joined = {case: first if patient in names else patient for case, patient in joined.items()}
    return joined


def assign(volumes: Mapping[str, float], folds: int = 5, test: float = 0.0, seed: int = 0) -> dict[str, int | str]:
    """The fold of each patient, or "test".

    Patients are sorted by tumour volume and cut into blocks of neighbours; each fold gets one of a block, drawn by the
    seed, so that each holds small and large tumours. The test set is drawn the same way before.

    Args:
        volumes: each patient's tumour volume, in any one unit.
        folds: how many; they differ by one patient at most.
        test: the share of the patients set aside.
        seed: of the draw.

    Raises:
        InputError: fewer patients than folds are left.
    """
    draw = random.Random(seed)
    left = sorted(volumes, key=lambda patient: (volumes[patient], patient))
    count = max(1, round(test * len(left))) if test else 0
    places: dict[str, int | str] = {}
    for block in _blocks(left, count):
        places[draw.choice(block)] = "test"
    left = [patient for patient in left if patient not in places]
    if len(left) < folds:
        aside = f" after {count} are set aside for the test" if count else ""
        least = f"--folds {len(left)}" if len(left) > 1 else "more: two folds need two patients"
        raise InputError(
            f"{len(left)} labelled patient{'s' * (len(left) != 1)}{aside} cannot fill {folds} folds: give {least}."
        )
    for start in range(0, len(left), folds):
        block = left[start : start + folds]
        places.update(zip(block, draw.sample(range(folds), len(block)), strict=True))
    return places


def cut(slices: Sequence[Name], folds: int = 5, test: float = 0.0, gap: int = 1) -> tuple[list[list[Name]], list[Name]]:
    """Cut the slices of one volume into consecutive blocks, one a fold, with a gap between, so that no two touch.

    Neighbouring slices are alike: drawn at random, most that judge would have a neighbour among those that teach.

    Args:
        slices: in their order.
        folds: how many blocks; their lengths differ by one at most.
        test: the share of the slices for one more block, the last.
        gap: how many slices are left out between two blocks.

    Returns:
        the blocks in order, and what is left out.

    Raises:
        InputError: there are too few slices for so many blocks and gaps.
    """
    count = folds + (test > 0)
    kept = len(slices) - gap * (count - 1)
    aside = max(1, round(test * kept)) if test else 0
    if kept - aside < folds:
        raise InputError(
            f"{len(slices)} labelled slices cannot be cut into {count} blocks with gaps of {gap} between: give fewer"
            " --folds, or a smaller --gap."
        )
    lengths = [len(block) for block in _blocks(range(kept - aside), folds)] + [aside] * (test > 0)
    blocks, left_out, start = [], [], 0
    for length in lengths:
        left_out += slices[start - gap : start] if start else []
        blocks.append(list(slices[start : start + length]))
        start += length + gap
    return blocks, left_out


def _blocks(items: Sequence[Name], count: int) -> list[Sequence[Name]]:
    """`items` cut into `count` runs of nearly equal length."""
    edges = [round(i * len(items) / count) for i in range(count + 1)] if count else []
    return [items[start:end] for start, end in pairwise(edges)]
