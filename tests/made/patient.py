"""A small synthetic patient, complete or with one channel changed, and a picture of cells."""

import numpy as np

from bundle.cohort.phantom_anatomy import make_patient
from bundle.cohort.tasks import Task
from scripts.data.case_files import Case
from scripts.data.case_record import CaseRecord
from tests.made import save_nifti

CHANNELS = ["T1", "T1c", "T2", "FLAIR"]
TASK = Task("three", "three", {"NCR": 1, "ED": 2, "ET": 3}, CHANNELS, {"ET": [3]}, channel_files={"T1": ["{case}"]})
AFFINE = np.diag([-3.0, -3.0, 3.0, 1.0])
IMAGES, LABEL = make_patient(np.random.default_rng(0), 64, 3.0, 3, "typical")


def save(path, array, affine=AFFINE):
    return save_nifti(path, array, affine)


def write_patient(folder, images=IMAGES, label=LABEL, affines=None, label_affine=AFFINE):
    """Write a case of these images and this label, each with its own affine if one is given."""
    affines = affines or [AFFINE] * len(images)
    files = [save(folder / f"{c}.nii.gz", images[i], affines[i]) for i, c in enumerate(CHANNELS)]
    return Case("patient", files, None if label is None else save(folder / "seg.nii.gz", label, label_affine))


def changed(index, array):
    """The images with one channel replaced."""
    images = list(IMAGES)
    images[index] = array
    return images


def cohort(**last):
    """Ten ordinary cases and one that is not."""
    usual = {"spacing": (1.0, 1.0, 1.0), "orientation": "LPS"}
    records = [CaseRecord(f"case{i}", **usual, bright={"T1": 6 + 0.1 * i}) for i in range(10)]
    return [*records, CaseRecord("odd", **{**usual, "bright": {"T1": 6.5}, **last})]


CELLS = Task("cells", "cells", {"cell": 255}, ["grey"], {"cell": [255]})
PICTURE = np.random.default_rng(0).integers(50, 200, (20, 30)).astype(np.uint8)  # [row, column]
CELL = np.zeros((20, 30), np.uint8)
CELL[5:12, 4:20] = 255
