"""Synthetic patients as files, in the layouts of BraTS 2021, 2023 and PED, the Decathlon and nnU-Net."""

import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bundle.cohort.phantom_anatomy import CHANNELS, ED, ET, KINDS, NCR, make_patient
from scripts.errors import InputError
from scripts.files import atomic_write, write_json
from scripts.progress import progress_bar

GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, fill 0 to 1 evenly however many there are
MOST_NOISE = 30


@dataclass(frozen=True)
class PhantomLayout:
    """Where a data set of the field keeps its files; `{case}`, `{part}` (Tr or Ts) and `{channel}` are filled in."""

    case: str  # from {patient} and {visit}
    image: str
    label: str
    channels: tuple[str, ...]  # their names in the files; if empty, one file with the channels on its last axis
    order: tuple[str, ...] = CHANNELS
    codes: tuple[int, int, int, int] = (0, 1, 2, 3)  # of background, NCR, ED, ET
    solid: int | None = None  # the code of a core that does not enhance and is no cyst; None: that of NCR
    describe: Callable[[list[str], list[str]], dict[str, Any]] | None = None  # makes dataset.json
    revisits: bool = False  # patient 1 has a second visit with a grown tumour


def write_phantoms(
    out: str | os.PathLike,
    cases: int = 8,
    layout: str = "brats2021",
    dims: int = 3,
    seed: int = 0,
    size: int = 64,
    spacing: float = 3.0,
    unlabelled: int = 0,
    noise: float = 1.0,
) -> list[int]:
    """Write synthetic patients to a new folder, whole or not at all; arguments are those of the command `phantom`.

    Returns the number of each case's patient, labelled cases first.
    """
    target = Path(out).resolve()
    whole = {"cases": (cases, 1), "unlabelled": (unlabelled, 0), "seed": (seed, 0), "size": (size, 16)}
    _check(target, layout, dims, spacing, noise, whole)
    kept = LAYOUTS[layout]
    plan = _plan(cases + unlabelled, kept.revisits)
    temporary = target.with_name(f".{target.name}-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        names = []
        for number, (patient, visit) in enumerate(progress_bar(plan, desc="phantoms", unit="case")):
            rng = np.random.default_rng([seed, patient])
            factor = noise ** (patient * GOLDEN % 1)
            images, label = make_patient(rng, size, spacing, dims, KINDS[patient % len(KINDS)], visit, factor)
            names.append(kept.case.format(patient=patient, visit=visit, number=patient + 1))
            if kept.solid is not None and KINDS[patient % len(KINDS)] == "non_enhancing":
                codes = (kept.codes[0], kept.solid, *kept.codes[2:])
            else:
                codes = kept.codes
            coded = np.array(codes, np.uint8)[label] if number < cases else None
            _write_case(temporary, kept, names[-1], images, coded, spacing)
        if kept.describe:
            write_json(temporary / "dataset.json", kept.describe(names[:cases], names[cases:]))
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror or error}): choose another folder.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [patient for patient, _ in plan]


def _plan(cases: int, revisits: bool) -> list[tuple[int, int]]:
    """The (patient, visit) of each case; with `revisits` patient 1 has two visits."""
    if not revisits:
        return [(k, 0) for k in range(cases)]
    return [(k, 0) if k < 2 else (k - 1, int(k == 2)) for k in range(cases)]


def _write_case(
    root: Path, layout: PhantomLayout, case: str, images: np.ndarray, label: np.ndarray | None, spacing: float
) -> None:
    part = "Tr" if label is not None else "Ts"
    images = images[[CHANNELS.index(name) for name in layout.order]].astype(np.int16)
    if layout.channels:
        for channel, image in zip(layout.channels, images, strict=True):
            _save(root / layout.image.format(case=case, part=part, channel=channel), image, spacing)
    else:
        _save(root / layout.image.format(case=case, part=part), np.moveaxis(images, 0, -1), spacing)
    if label is not None:
        _save(root / layout.label.format(case=case), label, spacing)


def _save(path: Path, array: np.ndarray, spacing: float) -> None:
    affine = np.diag([-spacing, -spacing, spacing, 1.0])  # LPS, as BraTS
    affine[1, 3] = (array.shape[1] - 1) * spacing
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    with atomic_write(path) as temporary:
        nib.save(image, temporary)


def _describe_msd(labelled: list[str], unlabelled: list[str]) -> dict[str, Any]:
    """The dataset.json of Task01_BrainTumour, as on http://medicaldecathlon.com."""
    return {
        "name": "BRATS",
        "description": "Synthetic gliomas in the layout of the Medical Segmentation Decathlon",
        "tensorImageSize": "4D",
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        "numTraining": len(labelled),
        "numTest": len(unlabelled),
        "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in labelled],
        "test": [f"./imagesTs/{c}.nii.gz" for c in unlabelled],
    }


def _describe_nnunet(labelled: list[str], unlabelled: list[str]) -> dict[str, Any]:
    """The dataset.json of nnU-Net v2."""
    return {
        "channel_names": dict(zip("0123", CHANNELS, strict=True)),
        "labels": {"background": 0, "NCR": NCR, "ED": ED, "ET": ET},
        "numTraining": len(labelled),
        "file_ending": ".nii.gz",
    }


BRATS_2023 = PhantomLayout(
    case="BraTS-GLI-{patient:05d}-{visit:03d}",
    image="{case}/{case}-{channel}.nii.gz",
    label="{case}/{case}-seg.nii.gz",
    channels=("t1n", "t1c", "t2w", "t2f"),
    revisits=True,
)
LAYOUTS = {
    "brats2021": PhantomLayout(
        case="BraTS2021_{patient:05d}",
        image="{case}/{case}_{channel}.nii.gz",
        label="{case}/{case}_seg.nii.gz",
        channels=("t1", "t1ce", "t2", "flair"),
        codes=(0, 1, 2, 4),
    ),
    "brats2023": BRATS_2023,
    "brats_ped": replace(
        BRATS_2023,
        case="BraTS-PED-{patient:05d}-{visit:03d}",
        codes=(0, 3, 4, 1),  # what is fluid counts as the cystic component
        solid=2,
        revisits=False,
    ),
    "msd": PhantomLayout(
        case="BRATS_{number:03d}",
        image="images{part}/{case}.nii.gz",
        label="labelsTr/{case}.nii.gz",
        order=("FLAIR", "T1", "T1c", "T2"),
        channels=(),
        codes=(0, 2, 1, 3),
        describe=_describe_msd,
    ),
    "nnunet": PhantomLayout(
        case="BRATS_{number:03d}",
        image="images{part}/{case}_{channel}.nii.gz",
        label="labelsTr/{case}.nii.gz",
        channels=("0000", "0001", "0002", "0003"),
        describe=_describe_nnunet,
    ),
}


def _check(
    target: Path, layout: str, dims: int, spacing: float, noise: float, whole: Mapping[str, tuple[int, int]]
) -> None:
    """Refuse impossible arguments; `whole` are the whole numbers, each with the least that it may be."""
    if layout not in LAYOUTS:
        raise InputError(f"there is no layout '{layout}': choose one of {', '.join(LAYOUTS)}.")
    if dims not in (2, 3):
        raise InputError(f"--dims is {dims}: choose 3 for volumes or 2 for slices.")
    for name, (value, least) in whole.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"--{name} is {value}: give a whole number of {least} or more.")
    if not isinstance(spacing, int | float) or not math.isfinite(spacing) or spacing <= 0:
        raise InputError(f"--spacing is {spacing}: give the mm between two voxels, such as 3.")
    if not isinstance(noise, int | float) or not 1 <= noise <= MOST_NOISE:
        raise InputError(f"--noise is {noise}: give the largest factor on the noise, 1 to {MOST_NOISE}.")
    if target.is_dir() and any(target.iterdir()):
        raise InputError(f"{target} is not empty: choose a new folder; nothing is overwritten.")
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file: choose a new folder.")
