"""Suspected label errors: parts where networks are confident against the label.

A part is connected and at least three voxels thick, since outlines of two raters differ by a voxel or two, and at least
`SMALLEST` ml. A network is confident where its probability is at least `CONFIDENT`, or at most one minus that, in every
voxel; without probabilities, where the masks of most repetitions (networks trained again) are against the label.
Parts are ranked by volume times mean confidence times the share of repetitions that agree.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage

from bundle.analysis.scored_scans import CaseMasks, ScoredFiles, read_case_masks, read_case_probability, region_masks
from scripts.data.images import bounding_box, connected_components, deepest_voxel, voxel_size

CONFIDENT = 0.9
SMALLEST = 0.1  # ml
COARSE = 2.0  # an axis with voxels so many times larger than the smallest is not counted for the thickness
AXIAL = 2
COLUMNS = [
    *("rank", "case", "patient", "region", "kind", "volume_ml"),
    *("confidence", "agree", "repetitions", "slice"),
]


class Suspect(NamedTuple):
    """A part in which a network is confident against the label.

    Attributes:
        kind: `added` where the mask has the region and the label does not, `missed` where it is the other way round.
        confidence: mean probability of what the mask says, or the share of repetitions where none was kept.
        agree: repetitions whose mask is against the label in most of the part, of `of`, this evaluation included.
        box: of the part, the first voxel and the end along each axis of RAS; `centre` is its deepest voxel.
        slice: the axial slice of the centre in the file, counted from 1, and the number of slices.
    """

    case: str
    patient: str
    region: str
    kind: str
    ml: float
    confidence: float
    agree: int
    of: int
    box: tuple[tuple[int, int], ...]
    centre: tuple[int, ...]
    slice: tuple[int, int]

    @property
    def weight(self) -> float:
        """The rank: volume times confidence times the share of repetitions."""
        return self.ml * self.confidence * self.agree / self.of


def find_case_suspects(files: Sequence[ScoredFiles]) -> list[Suspect]:
    """The suspected label errors of a case, the heaviest first; the first files are of the evaluation, others of
    repetitions of it.

    Of parts of several regions that share most of their voxels, as of nested regions, the heaviest is kept.

    Raises:
        InputError: a file cannot be read.
    """
    first, *others = files
    masks = read_case_masks(first)
    if masks.affine is None or 1 in masks.truth.shape:
        return []
    probability = read_case_probability(first, masks)
    repeated = [masks._replace(prediction=read_case_masks(other).prediction) for other in others]
    found = []
    for region in first.regions:
        soft = None if probability is None else probability[region]
        found += _of_region(first, masks, repeated, region, soft)
    return _without_repeats(sorted(found, key=lambda pair: -pair[0].weight))


def tabulate_suspects(suspects: Sequence[Suspect]) -> pd.DataFrame:
    """One row per suspect, ranked from 1; `slice` is axial, in the file, counted from 1."""
    rows = [
        (rank, *one[:4], round(one.ml, 3), round(one.confidence, 3), one.agree, one.of, one.slice[0])
        for rank, one in enumerate(suspects, start=1)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def rank_suspects(by_case: Sequence[Sequence[Suspect]]) -> list[Suspect]:
    """The suspects of all cases, the heaviest first."""
    return sorted((one for case in by_case for one in case), key=lambda one: (-one.weight, one.case, one.centre))


def _of_region(
    files: ScoredFiles, masks: CaseMasks, repeated: Sequence[CaseMasks], region: str, soft: np.ndarray | None
) -> Iterator[tuple[Suspect, np.ndarray]]:
    """The suspects of a region with the masks of their parts."""
    truth, prediction = region_masks(files, masks, region)
    others = [region_masks(files, other, region)[1] for other in repeated]
    if soft is None and not others:
        return
    for kind, wrong in (("added", prediction & ~truth), ("missed", truth & ~prediction)):
        against = None if soft is None else soft if kind == "added" else 1 - soft
        voters = [other if kind == "added" else ~other for other in others]
        for part in _thick_parts(wrong if against is None else wrong & (against >= CONFIDENT), masks.spacing):
            agree, of = 1 + sum(bool(voter[part].mean() > 0.5) for voter in voters), 1 + len(voters)
            if against is None and agree <= of / 2:
                continue
            centre = deepest_voxel(part, masks.spacing)
            yield _describe(files, masks, region, kind, part, centre, against, (agree, of)), part


def _describe(
    files: ScoredFiles,
    masks: CaseMasks,
    region: str,
    kind: str,
    part: np.ndarray,
    centre: tuple[int, ...],
    against: np.ndarray | None,
    votes: tuple[int, int],
) -> Suspect:
    return Suspect(
        files.case,
        files.patient,
        region,
        kind,
        float(np.count_nonzero(part) * voxel_size(masks.spacing) / 1000),
        votes[0] / votes[1] if against is None else float(against[part].mean()),
        *votes,
        tuple((axis.start, axis.stop) for axis in bounding_box(part, [0, 0, 0])),
        centre,
        masks.place_in_file(AXIAL, centre[AXIAL]),
    )


def _thick_parts(mask: np.ndarray, spacing: Sequence[float]) -> Iterator[np.ndarray]:
    """The connected parts of a mask of at least three voxels along every fine axis and `SMALLEST` ml."""
    here = bounding_box(mask, [1, 1, 1])
    cube = ndimage.generate_binary_structure(3, 3)
    for axis, step in enumerate(spacing):
        if step >= COARSE * min(spacing):
            np.moveaxis(cube, axis, 0)[[0, 2]] = False
    numbered, sizes = connected_components(ndimage.binary_opening(mask[here], cube))
    for number in np.flatnonzero(sizes * voxel_size(spacing) / 1000 >= SMALLEST) + 1:
        part = np.zeros_like(mask)
        part[here] = numbered == number
        yield part


def _without_repeats(found: Sequence[tuple[Suspect, np.ndarray]]) -> list[Suspect]:
    kept: list[tuple[Suspect, np.ndarray]] = []
    for suspect, part in found:
        if not any(one.kind == suspect.kind and other[part].mean() > 0.5 for one, other in kept):
            kept.append((suspect, part))
    return [suspect for suspect, _ in kept]
