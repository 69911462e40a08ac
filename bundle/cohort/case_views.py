"""Cases as arrays to draw: oriented to RAS, with background at 0."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.data.brain_masks import background_value
from scripts.data.case_files import Case
from scripts.data.images import ras_spacing, read_stored, to_ras
from scripts.data.pictures import to_grey


def fullest_cases(cases: Sequence[Case], patients: Mapping[str, str], volumes: Mapping[str, float]) -> list[Case]:
    """The cases to draw: all volumes, and of each patient's slices the one with most tumour."""
    fullest: dict[str, Case] = {}
    for case in cases:
        group = case.case if case.slice is None else patients[case.case]
        if group not in fullest or volumes[case.case] > volumes[fullest[group].case]:
            fullest[group] = case
    return list(fullest.values())


def view_case(
    case: Case, background: int = 0, prediction: Path | None = None, ignore: int | None = None
) -> dict[str, Any]:
    """Read a case in the form that `bundle.drawing.slices` draws: in RAS, background at 0; a picture as displayed.

    `background` is the label's value outside; the prediction is a mask on the same grid; voxels with the value to
    `ignore` become background.
    """
    images = [read_stored(path)[0] for path in case.images]
    affine = images[0].affine
    arrays = np.moveaxis(images[0].voxels, -1, 0) if case.stacked else [to_grey(image.voxels) for image in images]
    masks = {"label": case.label, "prediction": prediction}
    return {
        "case": case.case,
        "image": [to_ras(_zero_background(array.astype(np.float32)), affine) for array in arrays],
        "spacing": None if affine is None else ras_spacing(images[0], arrays[0].ndim),
        "background": background,
        **{name: path and to_ras(_read_mask(path, background, ignore), affine) for name, path in masks.items()},
    }


def _read_mask(path: Path, background: int, ignore: int | None) -> np.ndarray:
    mask = np.rint(read_stored(path, "label")[0].voxels).astype(np.int16)
    return mask if ignore is None else np.where(mask == ignore, np.int16(background), mask)


def _zero_background(array: np.ndarray) -> np.ndarray:
    """The image with background at 0, where it has any: the border of a microscopy picture is not constant."""
    outside, share = background_value(array)
    return array - outside if share > 0.5 else array
