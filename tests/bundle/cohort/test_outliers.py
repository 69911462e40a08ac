"""Checks over the cases of a cohort, and notes on those that differ."""

from dataclasses import replace

import numpy as np
import pytest

from bundle.cohort.outliers import check_cases, cohort_notes
from bundle.cohort.phantom_anatomy import make_patient
from bundle.cohort.recognise import by_patterns
from bundle.cohort.tasks import Task, choose_task, known_tasks
from scripts.data import pictures
from scripts.data.case_checks import Record
from scripts.data.case_files import Case
from tests.made import save_nifti

CHANNELS = ["T1", "T1c", "T2", "FLAIR"]
TASK = Task("three", "three", {"NCR": 1, "ED": 2, "ET": 3}, CHANNELS, {"ET": [3]}, channel_files={"T1": ["{case}"]})
AFFINE = np.diag([-3.0, -3.0, 3.0, 1.0])
IMAGES, LABEL = make_patient(np.random.default_rng(0), 64, 3.0, 3, "typical")


def save(path, array, affine=AFFINE):
    return save_nifti(path, array, affine)


@pytest.fixture
def write(tmp_path):
    """Writes a case of these images and this label, each with its own affine if one is given."""

    def written(images=IMAGES, label=LABEL, affines=None, label_affine=AFFINE):
        affines = affines or [AFFINE] * len(images)
        files = [save(tmp_path / f"{c}.nii.gz", images[i], affines[i]) for i, c in enumerate(CHANNELS)]
        return Case("patient", files, None if label is None else save(tmp_path / "seg.nii.gz", label, label_affine))

    return written


def changed(index, array):
    """The images with one channel replaced."""
    images = list(IMAGES)
    images[index] = array
    return images


def test_processes_find_what_one_process_finds(write):
    cases = [write(changed(2, np.roll(IMAGES[2], 8, 0))), replace(write(label=None), case="other")]
    assert check_cases(cases, TASK.expected(), workers=2) == check_cases(cases, TASK.expected(), workers=1)


def cohort(**last):
    """Ten ordinary cases and one that is not."""
    usual = {"spacing": (1.0, 1.0, 1.0), "orientation": "LPS"}
    records = [Record(f"case{i}", **usual, bright={"T1": 6 + 0.1 * i}) for i in range(10)]
    return [*records, Record("odd", **{**usual, "bright": {"T1": 6.5}, **last})]


@pytest.mark.parametrize(
    ("last", "note"),
    [
        ({"spacing": (1.0, 1.0, 5.0)}, "spacing in mm: 10 of 11 cases have 1 x 1 x 1; not so odd (1 x 1 x 5)."),
        ({"orientation": "RAS"}, "orientation: 10 of 11 cases have LPS; not so odd (RAS)."),
        ({"bright": {"T1": np.log(32767)}}, "intensity of T1: unlike the median of the cohort in odd (49.3 times)."),
    ],
)
def test_what_sets_a_case_apart_from_the_cohort_is_noted(last, note):
    assert cohort_notes(cohort(**last)) == [note]


def test_a_cohort_of_equals_has_no_notes():
    assert cohort_notes(cohort()) == cohort_notes([]) == []


CELLS = Task("cells", "cells", {"cell": 255}, ["grey"], {"cell": [255]})
PICTURE = np.random.default_rng(0).integers(50, 200, (20, 30)).astype(np.uint8)  # [row, column]
CELL = np.zeros((20, 30), np.uint8)
CELL[5:12, 4:20] = 255


def test_each_page_is_read_and_its_file_hashed_once(tmp_path):
    images, masks = tmp_path / "images.tif", tmp_path / "masks.tif"
    pictures.write(images, PICTURE.T, PICTURE.T[::-1])
    pictures.write(masks, CELL.T, CELL.T[::-1])
    cases = [
        Case(str(k), [pictures.page_of(images, k)], pictures.page_of(masks, k), volume="v", slice=k) for k in range(2)
    ]
    first, second = check_cases(cases, CELLS.expected(), workers=1)
    assert first.problems == second.problems == []
    assert set(first.hashes) == {images, masks}
    assert first.hashes == second.hashes
    assert first.voxels != second.voxels


def test_intensity_is_compared_by_patient_and_not_by_slice():
    def slices(patient, *brightness):
        return [Record(f"{patient}_{k}", group=patient, bright={"T1": b}) for k, b in enumerate(brightness)]

    ends = [record for name in "abcd" for record in slices(name, 1.0, 5.0, 5.0, 5.0, 1.0)]
    assert cohort_notes(ends) == []
    assert "in e (20.1 times)" in cohort_notes([*ends, *slices("e", 8.0, 8.0)])[0]


def test_real_slices_and_sections_are_sound(shared_data):
    for name in ("lgg", "isbi2012"):
        task = choose_task(name, known_tasks())
        records = check_cases(by_patterns(shared_data(name), task).cases[:40], task.expected(), workers=1)
        assert [problem for record in records for problem in record.problems] == []
