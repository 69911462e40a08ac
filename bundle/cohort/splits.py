"""Training, validation and test splits by patient, balanced in tumour volume.

Slices of too few volumes to split are cut into blocks.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from bundle.cohort.outliers import shortlist
from bundle.cohort.tasks import Task
from scripts.data.case_files import Case
from scripts.errors import InputError

# How names end that say when a patient was scanned: a word and a number, a date, or the number of a scan after one of
# two or three digits. BraTS2021_00001 and BRATS_001 are not among them
TIME_POINT = re.compile(
    r"""[-_. ](?:(?:ses|session|visit|week|month|day|year|time|timepoint|tp|scan|exam|mr|fu|[tvwmy])[-_]?\d+
    | (?:baseline|follow[-_]?up|pre|post|preop|postop)[-_]?\d* | (?:19|20)\d\d-?\d\d-?\d\d)(?:[-_]\d{1,2})?$
    | (?<=\d\d)[-_.]\d{1,2}$ | (?<=\d\d\d)[-_.]\d{3}$""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True)
class SplitOptions:
    """How cases are split."""

    folds: int = 5
    test: float = 0.0  # the share of the patients in the test set
    gap: int = 1  # slices left out between the blocks of one volume
    seed: int = 0
    group_by: str | None = None  # a pattern whose first group in a case's name is the patient; by default the task's
    sites: str | None = None  # a table or a pattern, see `bundle.cohort.sites`


@dataclass
class Split:
    """The patient of every case, and the fold (or "test") of every patient with a label."""

    patients: dict[str, str]  # by case
    places: dict[str, int | str]  # by patient
    sites: dict[str, str] = field(default_factory=dict)  # by case, if they are known
    gap: list[str] = field(default_factory=list)  # cases in no part, between blocks of slices
    notes: list[str] = field(default_factory=list)  # what the user should know about it


def split_cases(
    cases: Sequence[Case],
    task: Task,
    how: SplitOptions,
    twins: Iterable[Sequence[str]] = (),
    volumes: Mapping[str, float] | None = None,
) -> Split:
    """Split cases by patient, or slices of unknown patients from too few volumes into blocks.

    Bad cases, which may lack a label, count too. `twins` are groups of cases with the same voxels, which become one
    patient; `volumes` are each case's tumour volume, in any one unit.

    Raises:
        InputError: there are too few patients or slices, or the pattern does not fit.
    """
    pattern = task.patient_names if how.group_by is None else str(how.group_by)
    patients = find_patients([case.case for case in cases], pattern, strict=how.group_by is not None)
    if pattern is None:
        patients = {case.case: case.patient or case.volume or case.case for case in cases}
        stacks = {case.volume for case in cases if case.volume and not case.patient and (case.label or case.problems)}
        if stacks and len(stacks) < how.folds + (how.test > 0):
            return _split_in_blocks(cases, patients, sorted(stacks), how, twins)
    patients = join_patients(patients, twins)
    amounts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for case in cases:
        if case.label or case.problems:
            time_point = "" if case.slice is not None else case.case  # slices add up, time points do not
            amounts[patients[case.case]][time_point] += (volumes or {}).get(case.case, 0.0)
    largest = {patient: max(each.values()) for patient, each in amounts.items()}
    return Split(patients, assign_folds(largest, how.folds, how.test, how.seed) if largest else {})


def find_patients(cases: Iterable[str], pattern: str | None, strict: bool = False) -> dict[str, str]:
    """The patient of each case: the first group of `pattern` in its name, else (unless `strict`) the case itself."""
    cases = list(cases)
    if pattern is None:
        return {case: case for case in cases}
    return {case: case for case in cases} | match_names(cases, pattern, "--group_by", strict)


def match_names(names: Iterable[str], pattern: str, option: str, strict: bool = True) -> dict[str, str]:
    """The first group of a pattern in each name; without `strict`, only of those where it is found.

    Raises:
        InputError: the pattern of this option is wrong, or is not found in a name.
    """
    names = list(names)
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise InputError(f"'{pattern}' is not a regular expression ({error}): correct {option}.") from error
    if not regex.groups:
        raise InputError(f"'{pattern}' has no group: put ( ) around the part that counts, such as '(.+)_\\d+'.")
    found = {name: match[1] for name in names if (match := regex.search(name)) and match[1]}
    if strict and len(found) < len(names):
        strange = min({*names} - {*found})
        raise InputError(
            f"'{pattern}' does not match {len(names) - len(found)} of {len(names)} cases, such as {strange}: correct"
            f" {option}."
        )
    return found


def join_patients(patients: Mapping[str, str], same: Iterable[Sequence[str]]) -> dict[str, str]:
    """Patients by case, after merging those of each group of cases under the alphabetically first name."""
    joined = dict(patients)
    for group in same:
        names = {joined[case] for case in group}
        first = min(names)
        joined = {case: first if patient in names else patient for case, patient in joined.items()}
    return joined


def note_time_points(patients: Iterable[str]) -> list[str]:
    """A note where the names of patients differ only by what looks like the time of a scan (`TIME_POINT`)."""
    groups: dict[str, list[str]] = defaultdict(list)
    for patient in sorted(set(patients)):
        groups[TIME_POINT.sub("", patient)].append(patient)
    several = [names for names in groups.values() if len(names) > 1]
    if not several or len(groups) == 1:  # what all have in common is the name of the study
        return []
    found = filter(None, (TIME_POINT.search(name) for names in several for name in names))
    ends = {re.sub(r"\d+", r"\\d+", end[0].replace(".", r"\.")) for end in found}
    pattern = f"(.+?)(?:{'|'.join(sorted(ends))})?$"
    shown = shortlist([" and ".join(names[:3]) for names in several])
    return [
        f"by their names, these may be one patient at different times, and count as several: {shown}. If so, give"
        f' --group_by "{pattern}", so that they share a fold.'
    ]


def assign_folds(
    volumes: Mapping[str, float], folds: int = 5, test: float = 0.0, seed: int = 0
) -> dict[str, int | str]:
    """The fold of each patient, or "test"; folds differ by at most one patient, `test` is a share of the patients.

    Patients are sorted by tumour volume, in any one unit, and cut into blocks of neighbours; each fold gets a random
    patient of each block, so that all folds have small and large tumours. The test set is drawn first, in the same way.

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
        aside = f" after {count} held out for the test" if count else ""
        least = f"--folds {len(left)}" if len(left) > 1 else "more: two folds need two patients"
        raise InputError(
            f"{len(left)} labelled patient{'s' * (len(left) != 1)}{aside} are too few for {folds} folds: give {least}."
        )
    for start in range(0, len(left), folds):
        block = left[start : start + folds]
        places.update(zip(block, draw.sample(range(folds), len(block)), strict=True))
    return places


def cut_into_blocks(
    slices: Sequence[str], folds: int = 5, test: float = 0.0, gap: int = 1
) -> tuple[list[list[str]], list[str]]:
    """Cut the slices of one volume into consecutive blocks, one per fold, with gaps between them.

    Neighbouring slices are similar: with random folds, most validation slices would have a neighbour in training.
    Blocks differ by at most one slice; `test` is the share of a further block, the last. Returns the blocks, and what
    is left out.

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


def _split_in_blocks(
    cases: Sequence[Case],
    patients: dict[str, str],
    stacks: list[str],
    how: SplitOptions,
    twins: Iterable[Sequence[str]],
) -> Split:
    split = Split(patients, {})
    places = [*range(how.folds), *(["test"] if how.test else [])]
    for stack in stacks:
        slices = [case.case for case in cases if case.volume == stack and (case.label or case.problems)]
        blocks, between = cut_into_blocks(slices, how.folds, how.test, how.gap)
        split.gap += between
        for number, (block, place) in enumerate(zip(blocks, places, strict=True), start=1):
            split.patients.update(dict.fromkeys(block, f"{stack} block {number}"))
            split.places[f"{stack} block {number}"] = place
    for same in twins:
        if len({split.places.get(split.patients[case]) for case in same} - {None}) > 1:
            raise InputError(
                f"slices {' and '.join(same)} have identical pixels but are in different folds: remove one of them."
            )
    split.notes.append(
        f"no patient ID is given and there are too few volumes to split ({shortlist(stacks)}), so each is cut into"
        f" {len(places)} consecutive blocks: neighbouring slices are similar, and a random split would evaluate on"
        " near-copies of training slices."
    )
    if split.gap:
        split.notes.append(f"left out between blocks (--gap {how.gap}): {shortlist(split.gap, most=20)}.")
    return split


def _blocks(items: Sequence, count: int) -> list[Sequence]:
    """`items` cut into `count` runs of nearly equal length."""
    edges = [round(i * len(items) / count) for i in range(count + 1)] if count else []
    return [items[start:end] for start, end in pairwise(edges)]
