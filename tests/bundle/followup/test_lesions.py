"""Lesions over time: matched, split, merged, new, gone, and uncertain."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
import pytest

from bundle.followup.lesions import find_region_lesions, track_lesions
from scripts.scoring.measures import measure_lesions_of
from tests.made.head import rigid_matrix

SHAPE, MM = (40, 40, 40), 2.0
AFFINE = nib.affines.from_matvec(np.diag([MM] * 3), [-40.0] * 3)
FAR, NEAR, OTHER = (10, 10, 10), (18, 10, 10), (28, 28, 28)


def balls(*places: tuple[Sequence[int], float]) -> np.ndarray:
    """A mask of balls, by centre (voxels) and radius (mm)."""
    grid = np.indices(SHAPE)
    mask = np.zeros(SHAPE, bool)
    for centre, radius in places:
        mask |= np.linalg.norm(grid - np.reshape(centre, (3, 1, 1, 1)), axis=0) * MM <= radius
    return mask


def track(*masks: np.ndarray, to_first: Sequence[np.ndarray] | None = None) -> list[dict]:
    """The lesions of masks at days 0, 1, ..."""
    times = []
    for place, mask in enumerate(masks):
        measures = measure_lesions_of(mask, AFFINE, None, None)
        named = [{"number": number, **lesion} for number, lesion in enumerate(measures, start=1)]
        times.append(find_region_lesions(mask, AFFINE, named, to_first[place] if to_first else np.eye(4)))
    return track_lesions("WT", times, range(len(masks)))


def events(lesions: list[dict]) -> list[list[str]]:
    return [[time["event"] for time in lesion["times"]] for lesion in lesions]


def test_a_grown_lesion_is_matched():
    (lesion,) = track(balls((FAR, 6)), balls((FAR, 9)))
    assert [time["event"] for time in lesion["times"]] == ["first", "matched"]
    assert lesion["times"][1]["volume_ml"] > lesion["times"][0]["volume_ml"]


def test_lesions_are_matched_after_registration():
    moved = rigid_matrix((0, 0, 90), (0, 0, 0))
    turned = np.rot90(balls((FAR, 8)), axes=(0, 1))
    assert events(track(balls((FAR, 8)), turned)) != [["first", "matched"]]
    place = np.argwhere(turned).mean(0) * MM - 40
    back = next(
        m for m in (moved, np.linalg.inv(moved)) if abs((m[:3, :3] @ place) - (np.array(FAR) * MM - 40)).max() < 3
    )
    assert events(track(balls((FAR, 8)), turned, to_first=[np.eye(4), back])) == [["first", "matched"]]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], [(FAR, 8)], [["absent", "new"]]),
        ([(FAR, 8)], [], [["first", "gone"]]),
        ([], [(FAR, 2)], [["absent", "uncertain"]]),
        ([(FAR, 2)], [], [["first", "uncertain"]]),
        ([(FAR, 4), (NEAR, 4)], [((14, 10, 10), 14)], [["first", "merged"]]),
        ([((14, 10, 10), 14)], [(FAR, 4), (NEAR, 4)], [["first", "split"]]),
        ([(FAR, 8)], [(FAR, 8), (OTHER, 8)], [["first", "matched"], ["absent", "new"]]),
    ],
    ids=["new", "gone", "small and new", "small and gone", "merged", "split", "one of two new"],
)
def test_what_becomes_of_a_lesion_has_a_name(before, after, expected):
    assert events(track(balls(*before), balls(*after))) == expected


def test_parts_of_a_lesion_are_summed():
    (lesion,) = track(balls((FAR, 4), (NEAR, 6)), balls(((14, 10, 10), 14)))
    first = lesion["times"][0]
    assert first["parts"] == [1, 2]
    assert first["volume_ml"] == pytest.approx(np.count_nonzero(balls((FAR, 4), (NEAR, 6))) * MM**3 / 1000)


def test_a_lesion_that_returns_is_back():
    assert events(track(balls((FAR, 8)), balls(), balls((FAR, 8)))) == [["first", "gone", "back"]]


def test_a_lesion_outside_of_the_earlier_scan_is_uncertain():
    away = nib.affines.from_matvec(np.eye(3), [90.0, 0, 0])
    lesions = track(balls(), balls((FAR, 8)), to_first=[np.eye(4), away])
    assert events(lesions) == [["absent", "uncertain"]]


def test_without_a_lesion_there_is_no_row():
    assert track(balls(), balls()) == []
