"""What is said of one scan, as `answer.json` holds it: verdict, checks, measures, and the network that made the mask.

docs/answer.md describes the content, docs/answer.schema.json is its schema.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np

from scripts.data.brain_masks import background_value, find_brain
from scripts.data.images import GridImage, read_image
from scripts.data.nifti import SIDES_UNKNOWN
from scripts.data.scan_checks import NOTE, ScanCheck, list_warnings
from scripts.scoring.case import region_mask
from scripts.scoring.measures import (
    DEFINITIONS,
    find_border_positions,
    find_midline,
    measure_lesions_of,
    measure_volume_and_surface,
    turn_to_patient,
)

ANSWER_VERSION = 1  # raised when a reader of earlier answers would misread one
NO_SPACING = ScanCheck("spacing", NOTE, "The file gives no voxel size: lengths and volumes assume 1 mm.")
ANSWERED, WARNED, REFUSED = "answered", "answered with warnings", "refused"


def measure_answer(
    case: str, mask: GridImage, scan: np.ndarray, checks: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The answer for a scan that was segmented.

    Args:
        case: its name.
        mask: the label map, [H, W, D].
        scan: one channel on the same grid, which shows where the brain is.
        checks: what the checks of the scan found (`scripts.data.scan_checks`).
        settings: of the network, with `regions`, `labels` and `labels_out`.
    """
    if mask.affine is None:  # of a .pt file
        checks = [*checks, NO_SPACING.as_mapping()]
    affine = np.eye(4) if mask.affine is None else mask.affine
    turned = turn_to_patient(mask.voxels, affine)
    head, stripped = find_brain(scan, *background_value(scan))
    known = bool(head.any()) and not head.all()
    brain = turn_to_patient(head, affine) if known else None
    oriented = mask.affine is not None and not any(SIDES_UNKNOWN in check["sentence"] for check in checks)
    midline = find_midline(brain.voxels, brain.affine) if brain and oriented else None
    border = find_border_positions(brain.voxels, brain.affine) if brain and stripped else None
    regions: dict[str, Any] = {}
    lesions: list[dict[str, Any]] = []
    for name, values in settings["regions"].items():
        own = region_mask(turned.voxels, values)
        found = measure_lesions_of(own, turned.affine, border, midline)
        regions[name] = {"labels": [*values], **measure_volume_and_surface(own, turned.spacing), "lesions": len(found)}
        lesions += [{"region": name, "number": number, **lesion} for number, lesion in enumerate(found, start=1)]
    return {
        **_head(case, WARNED if list_warnings(checks) else ANSWERED, checks),
        "grid": {
            "shape": [*mask.voxels.shape],
            "spacing_mm": [*mask.spacing(3)],
            "orientation": "".join(nib.aff2axcodes(affine)),
            "affine": affine.tolist(),
        },
        "mask_values": {name: int(value) for name, value in _painted(settings).items()},
        "regions": regions,
        "lesions": lesions,
        "definitions": DEFINITIONS,
    }


def read_channels_of(image: str | Sequence[str], settings: Mapping[str, Any]) -> list[np.ndarray]:
    """The channels [H, W, D] of a scan, by its files or its file of all channels, in the order of the network."""
    if isinstance(image, str):
        voxels = read_image(image, "image").voxels
        return [*np.moveaxis(voxels, -1, 0)] if len(settings["channels"]) > 1 else [voxels]
    return [read_image(file, "image").voxels for file in image]


def refuse_answer(case: str, sentence: str, checks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The answer for a scan that was not segmented."""
    return {**_head(case, REFUSED, checks), "refusal": sentence}


def _head(case: str, verdict: str, checks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "answer_version": ANSWER_VERSION,
        "case": case,
        "verdict": verdict,
        "refusal": None,
        "warnings": list_warnings(checks),
        "checks": [dict(check) for check in checks],
    }


def _painted(settings: Mapping[str, Any]) -> Mapping[str, int]:
    """The values of the label map by name."""
    return settings["labels"] if settings["decision"] == "classes" else settings["labels_out"]
