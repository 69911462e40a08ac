"""Channels that show only a part of the brain are compared where all show it; channels out of place are refused."""

import numpy as np
import pytest

from scripts.data.case_checks import check_case
from tests.made.patient import IMAGES, TASK, changed, write_patient

BRAIN = np.argwhere(IMAGES[0] != 0)
FIRST, LAST = BRAIN.min(0), BRAIN.max(0)


def without_end(axis: int, end: int, share: float) -> np.ndarray:
    """The last channel without this share of the brain at one end of an axis."""
    image, lost = IMAGES[3].copy(), int((LAST - FIRST)[axis] * share)
    part = slice(0, FIRST[axis] + lost) if end == 0 else slice(LAST[axis] + 1 - lost, None)
    np.moveaxis(image, axis, 0)[part] = 0
    return image


def record_of(folder, images):
    return check_case(write_patient(folder, images, label=None), TASK.expected())


@pytest.mark.parametrize("share", [0.2, 0.5])
@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_reduced_field_of_view_is_a_note(tmp_path, axis, end, share):
    record = record_of(tmp_path, changed(3, without_end(axis, end, share)))
    assert record.problems == []
    assert record.notes == ["channel FLAIR lacks a part of the brain; channels are compared where all show it"]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_reduced_field_of_view_out_of_place_is_refused(tmp_path, axis):
    moved = np.roll(without_end(2, 1, 0.2), 8, axis=axis)  # 24 mm
    (problem,) = record_of(tmp_path, changed(3, moved)).problems
    assert "channel FLAIR does not lie on the other channels" in problem


@pytest.mark.parametrize("side", [12, 20])
def test_a_crop_inside_the_brain_has_no_alignment_to_check(tmp_path, side):
    middle = (FIRST + LAST) // 2
    box = tuple(slice(at - side // 2, at + side // 2) for at in middle)
    rng = np.random.default_rng(0)
    images = [np.where(image[box] == 0, 1, image[box]) + rng.normal(0, 1e-3, (side,) * 3) for image in IMAGES]
    record = record_of(tmp_path, images)
    assert record.problems == []
    assert "shows no background" in record.notes[0]


def test_a_crop_is_checked_as_a_whole_scan(tmp_path):
    box = tuple(slice(a, b + 1) for a, b in zip(FIRST, LAST, strict=True))
    assert record_of(tmp_path, [image[box] for image in IMAGES]).problems == []
    (tmp_path / "moved").mkdir()
    moved = changed(3, np.roll(IMAGES[3], 8, axis=1))
    assert record_of(tmp_path / "moved", [image[box] for image in moved]).problems != []
