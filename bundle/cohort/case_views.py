"""Cases as arrays to draw: oriented to RAS, with background at 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bundle.cohort.case_checks import air, read
from bundle.cohort.layout import Case
from scripts.data.pictures import grey


def fullest_cases(cases: Sequence[Case], patients: Mapping[str, str], volumes: Mapping[str, float]) -> list[Case]:
    """The cases to draw: all volumes, and of each patient's slices the one with most tumour."""
    fullest: dict[str, Case] = {}
    for case in cases:
        group = case.case if case.slice is None else patients[case.case]
        if group not in fullest or volumes[case.case] > volumes[fullest[group].case]:
            fullest[group] = case
    return list(fullest.values())


def view_case(case: Case, background: int = 0, prediction: Path | None = None) -> dict[str, Any]:
    """Read a case in the form that `bundle.drawing.slices` draws: in RAS, background at 0; a picture as it is seen.

    `background` is the label's value outside; the prediction is a mask on the same grid.
    """
    pictures = [read(path) for path in case.images]
    affine, spacing = pictures[0].affine, pictures[0].spacing
    arrays = np.moveaxis(pictures[0].array, -1, 0) if case.stacked else [grey(picture.array) for picture in pictures]
    # A picture runs to the right and down, which is how a slice in LPS is shown
    turn = nib.io_orientation(np.diag([-1, -1, 1, 1]) if affine is None else affine)[: arrays[0].ndim]
    masks = {"label": case.label, "prediction": prediction}
    return {
        "case": case.case,
        "image": [nib.apply_orientation(_without_air(array.astype(np.float32)), turn) for array in arrays],
        "spacing": spacing and [spacing[axis] for axis in np.argsort(turn[:, 0])],
        "background": background,
        **{name: path and nib.apply_orientation(_whole(read(path).array), turn) for name, path in masks.items()},
    }


def _whole(mask: np.ndarray) -> np.ndarray:
    return np.rint(mask).astype(np.int16)


def _without_air(array: np.ndarray) -> np.ndarray:
    """The image with background at 0, where it has any: the sides of a microscope's picture have no one value."""
    outside, share = air(array)
    return array - outside if share > 0.5 else array
