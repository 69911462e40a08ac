"""Agreement of the masks of one image: one row per pair of masks, and the consensus of the raters."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bundle.analysis.consensus import CONSENSUS
from bundle.analysis.rater_masks import MODEL, Image, Mask, UnreadableMask, mask_levels, read_mask
from scripts.data.images import GridImage, bounding_box, same_grid, voxel_size
from scripts.errors import InputError
from scripts.scoring import metrics

METRICS = ("dice", "iou", "hd95", *(f"nsd_{tolerance}mm" for tolerance in metrics.TOLERANCES))
COLUMNS = ["image", "first", "second", *METRICS, "size_first", "size_second", "length_unit", "size_unit", "note"]
EMPTY = {"absent": "both empty", "missed": "second empty", "hallucinated": "first empty"}


class ImageAgreement(NamedTuple):
    """Agreement of the masks of one image.

    Attributes:
        rows: rows of the table of pairs, `COLUMNS`.
        sizes: ml, cm2 or pixels of each mask, consensus included; `units` are the units of length and size.
        undecided: of the voxels that any rater drew, the share that not all of them drew; None for a single rater.
        covered: the share of the image that the raters' masks cover, on average.
        failed: why each unreadable file could not be read; `notes` are about the others.
    """

    image: Image
    rows: list[list]
    sizes: dict[str, float]
    undecided: float | None
    covered: float | None
    units: tuple[str, str]
    failed: dict[str, str]
    notes: list[str]


class ComparedMasks(NamedTuple):
    """The masks of an image with two or more raters, to write and draw.

    Boolean [H, W, D] or [H, W] of each rater and the model, and of `CONSENSUS`; the affine is None for pictures. `like`
    is the file of the first rater, `levels` the values of object and background in the raters' files.
    """

    masks: dict[str, np.ndarray]
    consensus: dict[str, np.ndarray]
    affine: np.ndarray | None
    like: Path
    levels: tuple[int, int]


def compare_masks(image: Image, foreground: int | None) -> tuple[ImageAgreement, ComparedMasks | None]:
    """Compare all masks of an image: the numbers, and the masks, which are too large to keep for many images.

    The masks are None for fewer than two raters.

    A file that is not a mask, or lies on another grid than most, is left out and named in `failed`.
    """
    masks, failed = _read_all(image, foreground)
    notes = [f"{image.masks[who]} {mask.note}" for who, mask in masks.items() if mask.note]
    notes += [f"{image.masks[who]}: {note}" for who, mask in masks.items() for note in mask.header]
    raters = [who for who in masks if who != MODEL]
    if not masks:
        return ImageAgreement(image, [], {}, None, None, ("", ""), failed, notes), None
    first = next(iter(masks))
    inside, affine = {who: mask.inside for who, mask in masks.items()}, masks[first].affine
    undecided, drawn, together = None, None, {}
    if len(raters) > 1:
        by_name = np.stack([inside[who] for who in sorted(raters)])  # so that the order of the folders does not matter
        together = {name: combine(by_name) for name, combine in CONSENSUS.items()}
        votes = np.count_nonzero(by_name, axis=0)
        undecided = float(np.mean(votes[votes > 0] < len(raters))) if votes.any() else 0.0
        values = pd.concat([mask.values for mask in masks.values()]).groupby(level=0).sum()
        drawn = ComparedMasks(inside, together, affine, image.masks[first], mask_levels(values, foreground))
    rows, sizes, units = _measure(image.name, raters, inside | together, affine)
    covered = float(np.mean([inside[who].mean() for who in raters])) if raters else None
    return ImageAgreement(image, rows, sizes, undecided, covered, units, failed, notes), drawn


def require_pairs(compared: Sequence[ImageAgreement], foreground: int | None) -> None:
    """Refuse images without an object, without a pair of masks to compare, or with both 2D and 3D masks.

    Raises:
        InputError: in each of these cases.
    """
    failed = [reason for one in compared for reason in one.failed.values()]
    if not any(one.undecided is not None for one in compared):
        raise InputError(f"no image has two masks that can be read; {failed[0]}")
    if len({one.units for one in compared if one.rows}) > 1:
        raise InputError("some masks are 2D and others 3D: compare them separately.")
    if not any(size for one in compared for size in one.sizes.values()):
        value = "anything but 0" if foreground is None else f"the value {foreground}"
        raise InputError(
            f"no mask holds {value}: look at the values in the files, and give that of the object by --foreground."
        )


def _measure(
    name: str, raters: list[str], drawn: dict[str, np.ndarray], affine: np.ndarray | None
) -> tuple[list[list], dict[str, float], tuple[str, str]]:
    """The rows of all pairs, the size of each mask, and the units of length and size."""
    axes = next(iter(drawn.values())).ndim
    spacing = GridImage(next(iter(drawn.values())), affine).spacing(axes)
    units = ("pixel", "pixel") if affine is None else ("mm", "ml" if axes == 3 else "cm2")
    voxel = 1.0 if affine is None else voxel_size(spacing) / 10**axes
    sizes = {who: np.count_nonzero(mask) * voxel for who, mask in drawn.items()}
    here = bounding_box(np.any(list(drawn.values()), axis=0), margin=[1] * axes)
    drawn = {who: mask[here] for who, mask in drawn.items()}
    rows = []
    for one, other in _pairs(raters, drawn):
        values = metrics.measure_region(drawn[one], drawn[other], spacing, wanted=METRICS)
        note = EMPTY.get(metrics.empty_note(drawn[one], drawn[other]), "")
        rows.append([name, one, other, *values.values(), sizes[one], sizes[other], *units, note])
    return rows, sizes, units


def _pairs(raters: list[str], drawn: dict[str, Any]) -> list[tuple[str, str]]:
    """Raters with each other, the model with each, and everyone with the consensus, where there are any."""
    people = [*raters, *({MODEL} & drawn.keys())]
    pairs = [*combinations(raters, 2), *((MODEL, rater) for rater in raters if MODEL in drawn)]
    return [*pairs, *((who, name) for name in CONSENSUS if name in drawn for who in people)]


def _read_all(image: Image, foreground: int | None) -> tuple[dict[str, Mask], dict[str, str]]:
    """The masks by rater that can be read and lie on the grid of most, and why the other files cannot be compared."""
    masks: dict[str, Mask] = {}
    failed = {}
    for who, path in image.masks.items():
        try:
            masks[who] = read_mask(path, foreground)
        except UnreadableMask as error:
            failed[str(path)] = str(error)
    grids = {who: GridImage(mask.inside, mask.affine) for who, mask in masks.items()}
    alike = {who: sum(same_grid(own, other) for other in grids.values()) for who, own in grids.items()}
    first = max(alike, key=lambda who: (alike[who], who != MODEL), default="")
    for who in [who for who in masks if not same_grid(grids[first], grids[who])]:
        a, b = (" x ".join(map(str, grids[one].voxels.shape)) for one in (first, who))
        differ = f"{a} and {b} voxels" if a != b else "the same shape elsewhere in space"
        failed[str(image.masks[who])] = (
            f"{image.masks[first]} and {image.masks[who]} are masks of one image on different grids ({differ}): save"
            " both on the grid of the image."
        )
        del masks[who]
    return masks, failed
