"""Where in the brain the errors of one case are, and in parts of which size.

Brains are laid on each other by their boxes in RAS: the box of the brain (of the head where the skull is there, of the
whole image where there is no background) is cut into `CELLS` along each axis. That registers brains to about a
centimetre, without a template.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from bundle.analysis.region_summary import LESION_BINS
from bundle.analysis.scored_scans import ScoredFiles, read_case_channels, read_case_masks, region_masks
from scripts.data.brain_masks import background_value, find_brain
from scripts.data.images import bounding_box, connected_components, voxel_size

CELLS = 18  # along each axis of the box: about 8 mm for a brain
THIRDS = 3  # of the box along each axis, in which places are named
KINDS = ("missed", "added")  # false negatives and false positives
CLASSES = tuple(pairwise(LESION_BINS))  # of the volume of a part, ml: above, up to


class CaseErrors(NamedTuple):
    """The errors of one case.

    Attributes:
        size: of the box in mm, in RAS.
        brain: [CELLS, CELLS, CELLS] in RAS, the share of each cell that is brain.
        maps: for each region, the share of each cell that is in the `label`, `missed` and `added`; of this form.
        places: the same as volumes in ml in thirds of the box along each axis, [3, 3, 3].
        parts: for each region, connected parts by class of their volume, [kind, class, (number, not touched, ml)]:
            parts of the label, how many the mask does not touch and how much of them it misses; parts of the mask, how
            many the label does not touch and how much of them is added.
    """

    case: str
    patient: str
    size: tuple[float, ...]
    brain: np.ndarray
    maps: dict[str, dict[str, np.ndarray]]
    places: dict[str, dict[str, np.ndarray]]
    parts: dict[str, np.ndarray]


def measure_case_errors(files: ScoredFiles) -> CaseErrors | None:
    """Measure the errors of a case; None for pictures and single slices, which have no common frame.

    Raises:
        InputError: a file cannot be read.
    """
    masks = read_case_masks(files)
    if masks.affine is None or 1 in masks.truth.shape:
        return None
    scan = masks.turn(read_case_channels(files, masks.shape, most=1)[0])
    brain, _ = find_brain(scan, *background_value(scan))
    box = bounding_box(brain, [0, 0, 0])
    maps, places, parts, ml = {}, {}, {}, voxel_size(masks.spacing) / 1000
    for region in files.regions:
        truth, prediction = region_masks(files, masks, region)
        wrong = {"label": truth, "missed": truth & ~prediction, "added": prediction & ~truth}
        maps[region] = {name: cell_shares(mask[box]) for name, mask in wrong.items()}
        places[region] = {name: _cell_sums(mask[box], THIRDS) * ml for name, mask in wrong.items()}
        here = bounding_box(truth | prediction, [0, 0, 0])
        pairs = ((truth[here], prediction[here]), (prediction[here], truth[here]))
        parts[region] = np.stack([part_classes(mask, other, ml) for mask, other in pairs])
    size = tuple((axis.stop - axis.start) * step for axis, step in zip(_ends(box, brain), masks.spacing, strict=True))
    return CaseErrors(files.case, files.patient, size, cell_shares(brain[box]), maps, places, parts)


def cell_shares(mask: np.ndarray) -> np.ndarray:
    """The share of each cell that a mask fills, of `CELLS` along every axis; a short axis repeats its voxels."""
    return _cell_sums(mask, CELLS) / _cell_sums(np.ones_like(mask), CELLS)


def _cell_sums(mask: np.ndarray, cells: int) -> np.ndarray:
    found = mask.astype(np.float32)
    for axis, length in enumerate(mask.shape):
        found = np.add.reduceat(found, np.arange(cells) * length // cells, axis)
    return found


def part_classes(mask: np.ndarray, other: np.ndarray, ml: float) -> np.ndarray:
    """Connected parts of a mask by class of their volume: their number, how many another mask does not touch, and how
    many ml of them lie outside of it. `ml` is the volume of a voxel.
    """
    numbered, sizes = connected_components(mask)
    outside = np.bincount(numbered[mask & ~other], minlength=len(sizes) + 1)[1:]
    number = np.digitize(sizes * ml, LESION_BINS[1:-1], right=True)
    weights: Sequence[np.ndarray] = (np.ones(len(sizes)), outside == sizes, outside * ml)
    return np.stack([np.bincount(number, weight, len(CLASSES)) for weight in weights], axis=-1)


def _ends(box: tuple[slice, ...], array: np.ndarray) -> list[slice]:
    """The slices with their ends as numbers."""
    return [slice(*axis.indices(length)[:2]) for axis, length in zip(box, array.shape, strict=True)]
