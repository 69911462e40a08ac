"""Checks over the cases of a cohort, and notes on those that differ."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from bundle.cohort.outliers import check_cases, outlier_notes
from bundle.cohort.recognise import read_by_patterns
from bundle.cohort.tasks import choose_task, known_tasks
from scripts.data import pictures
from scripts.data.case_files import Case
from scripts.data.case_record import CaseRecord
from tests.made.patient import CELL, CELLS, IMAGES, PICTURE, TASK, changed, cohort, write_patient


@pytest.fixture
def write(tmp_path):
    """`write_patient` into the folder of the test."""
    return partial(write_patient, tmp_path)


def test_processes_find_what_one_process_finds(write):
    cases = [write(changed(2, np.roll(IMAGES[2], 8, 0))), replace(write(label=None), case="other")]
    assert check_cases(cases, TASK.expected(), workers=2) == check_cases(cases, TASK.expected(), workers=1)


@pytest.mark.parametrize(
    ("last", "note"),
    [
        ({"spacing": (1.0, 1.0, 5.0)}, "spacing in mm: 10 of 11 cases have 1 x 1 x 1; others: odd (1 x 1 x 5)."),
        ({"orientation": "RAS"}, "orientation: 10 of 11 cases have LPS; others: odd (RAS)."),
        ({"bright": {"T1": np.log(32767)}}, "intensity of T1: far from the median of the cohort in odd (49.3 times)."),
    ],
)
def test_unusual_case_of_a_cohort_is_noted(last, note):
    assert outlier_notes(cohort(**last)) == [note]


def test_a_cohort_of_equals_has_no_notes():
    assert outlier_notes(cohort()) == outlier_notes([]) == []


def test_each_page_is_read_and_its_file_hashed_once(tmp_path):
    images, masks = tmp_path / "images.tif", tmp_path / "masks.tif"
    pictures.write_picture(images, PICTURE.T, PICTURE.T[::-1])
    pictures.write_picture(masks, CELL.T, CELL.T[::-1])
    cases = [
        Case(str(k), [pictures.page_name(images, k)], pictures.page_name(masks, k), volume="v", slice=k)
        for k in range(2)
    ]
    first, second = check_cases(cases, CELLS.expected(), workers=1)
    assert first.problems == second.problems == []
    assert set(first.hashes) == {images, masks}
    assert first.hashes == second.hashes
    assert first.voxels != second.voxels


def test_intensity_is_compared_by_patient_and_not_by_slice():
    def slices(patient, *brightness):
        return [CaseRecord(f"{patient}_{k}", group=patient, bright={"T1": b}) for k, b in enumerate(brightness)]

    ends = [record for name in "abcd" for record in slices(name, 1.0, 5.0, 5.0, 5.0, 1.0)]
    assert outlier_notes(ends) == []
    assert "in e (20.1 times)" in outlier_notes([*ends, *slices("e", 8.0, 8.0)])[0]


def test_real_slices_and_sections_are_sound(shared_data):
    for name in ("lgg", "isbi2012"):
        task = choose_task(name, known_tasks())
        records = check_cases(read_by_patterns(shared_data(name), task).cases[:40], task.expected(), workers=1)
        assert [problem for record in records for problem in record.problems] == []
