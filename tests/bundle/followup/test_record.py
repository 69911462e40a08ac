"""A follow-up of a phantom with known truth: registration, volumes, matched and new lesions, another patient.

python -m pytest -s tests/bundle/followup/test_record.py prints the figures of docs/follow.md; FOLLOW_PATIENTS=6 for
more patients.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from bundle.followup.changes import Course
from bundle.followup.record import describe_follow_up
from bundle.followup.views import FollowUp
from scripts.data.images import GridImage
from scripts.data.scan_checks import SKULL
from scripts.inference.answer import measure_answer
from tests.made import refused
from tests.made.over_time import Visit, make_visit

PATIENTS = range(int(os.environ.get("FOLLOW_PATIENTS", "1")))
SETTINGS = {
    "channels": ["T1", "T1c", "T2", "FLAIR"],
    "labels": {"NCR": 1, "ED": 2, "ET": 3},
    "labels_out": {"WT": 2, "TC": 1, "ET": 3},
    "regions": {"WT": [1, 2, 3], "ET": [3]},
    "decision": "regions",
}
NETWORK = {"name": "truth", "version": None, "intended_use": "", "licences": {}, "rows": {}}
CHECKS = [{"name": SKULL, "status": "ok", "sentence": ""}]
MM, REACH_MM = 3.0, 60.0


def add(follow: FollowUp, day: int, visit: Visit) -> None:
    """Add a visit with its own label as the mask."""
    mask = GridImage(visit.label, visit.affine)
    answer = measure_answer(f"day{day:03d}", mask, visit.channels["FLAIR"], CHECKS, follow.settings)
    follow.add(day, answer, visit.channels, mask)


def make_visits(seed: int, moved: bool = True) -> dict[int, Visit]:
    """A small tumour that grows by a quarter in radius, twice, and a lesion that appears on day 60."""
    return {
        0: make_visit(seed),
        30: make_visit(seed, growth=1, move=1 if moved else 0),
        60: make_visit(seed, growth=2, move=2 if moved else 0, added_mm=12.0),
    }


@pytest.fixture(scope="module", params=PATIENTS)
def followed(request) -> tuple[int, FollowUp, dict, dict[int, Visit]]:
    visits, follow = make_visits(request.param), FollowUp(SETTINGS, Course(operations=()))
    for day, visit in visits.items():
        add(follow, day, visit)
    return request.param, follow, describe_follow_up(follow, NETWORK), visits


def test_registration_finds_known_displacements(followed):
    _, follow, _, visits = followed
    errors = []
    for view in follow.views[1:]:
        points = REACH_MM * np.concatenate([np.eye(3), -np.eye(3)])
        moved = points @ visits[view.day].moved[:3, :3].T + visits[view.day].moved[:3, 3]
        back = moved @ view.alignment.to_first[:3, :3].T + view.alignment.to_first[:3, 3]
        errors.append(float(np.linalg.norm(back - points, axis=1).max()))
    peaks = [view.alignment.peak for view in follow.views[1:]]
    print(f"\nregistration: worst error {', '.join(f'{e:.2f}' for e in errors)} mm; same brain {np.round(peaks, 2)}")
    assert max(errors) < 2.0  # less than the 3 mm at which lesions are one


def test_displacement_changes_volumes_by_a_few_percent(followed):
    seed, record = followed[0], followed[2]
    changes = []
    for point, visit in zip(record["time_points"], make_visits(seed, moved=False).values(), strict=True):
        for name, values in SETTINGS["regions"].items():
            unmoved = np.isin(visit.label, values).sum() * MM**3 / 1000
            changes.append(100 * (point["regions"][name]["volume_ml"] / unmoved - 1))
    print(f"\nvolumes of WT, ET against the scans without displacement: {np.round(changes, 1)} %")
    assert max(map(abs, changes)) < 5


def test_the_tumour_is_matched_and_the_added_lesion_new(followed):
    _, _, record, _ = followed
    whole = [lesion for lesion in record["lesions"] if lesion["region"] == "WT"]
    events = [[time["event"] for time in lesion["times"]] for lesion in whole]
    assert events[0][0] == "first"
    assert set(events[0][1:]) <= {"matched", "split", "merged", "split and merged"}
    assert [lesion for lesion, own in zip(whole, events, strict=True) if own == ["absent", "absent", "new"]]


def test_growth_meets_the_threshold_of_progression(followed):
    _, _, record, _ = followed
    met = [one["name"] for one in record["time_points"][-1]["regions"]["WT"]["thresholds"]]
    assert any(name.startswith("PD by volume: at least 40 % increase") for name in met)
    assert "response category" in record["statement"]


def follow_small(course: Course, *visits: Visit, **settings) -> FollowUp:
    """Visits of 32 voxels a side at days 0, 30, ..."""
    follow = FollowUp({**SETTINGS, **settings}, course)
    for place, visit in enumerate(visits):
        add(follow, 30 * place, visit)
    return follow


def test_an_equal_repetition_explains_no_change():
    visit = make_visit(0, size=32)
    follow = follow_small(Course(), visit, visit)
    assert describe_follow_up(follow, NETWORK)["repeats"] is None
    follow.repeat(GridImage(visit.label, visit.affine))
    record = describe_follow_up(follow, NETWORK)
    limits = {"smallest_increase_percent": 0.0, "smallest_decrease_percent": 0.0}
    assert record["repeats"]["WT"] == {"pairs": 1, "lost": 0, **limits}
    assert "WT +0 or +0 % (1 pair)" in record["notes"][-1]


def test_an_operation_outside_the_course_is_noted():
    visit = make_visit(0, size=32)
    notes = describe_follow_up(follow_small(Course(operations=(500,)), visit, visit), NETWORK)["notes"]
    assert "The operation on day 500 was after the last time point that is compared." in notes


def test_another_patient_is_not_compared():
    first, second, other = make_visit(0, size=32), make_visit(0, move=1, size=32), make_visit(1, move=1, size=32)
    record = describe_follow_up(follow_small(Course(), first, other, second), NETWORK)
    points = record["time_points"]
    assert [point["compared"] for point in points] == [True, False, True]
    assert points[1]["reason"].startswith("day 30 does not show the brain of day 0")
    assert any(note.startswith("Day 30 is not compared: day 30 ") for note in record["notes"])


def test_a_stated_patient_is_compared_and_noted():
    follow = FollowUp(SETTINGS, Course(), same_patient=True)
    add(follow, 0, make_visit(0, size=32))
    add(follow, 30, make_visit(1, move=1, size=32))
    assert "Day 30 does not seem to show the same brain" in " ".join(describe_follow_up(follow, NETWORK)["notes"])


def test_one_comparable_time_point_is_refused():
    follow = follow_small(Course(), make_visit(0, size=32))
    follow.refuse(30, "channel T2 is missing.", {})
    sentence = refused(describe_follow_up, follow, NETWORK)
    assert sentence == "1 of 2 time points can be compared, and two are needed; day 30: channel T2 is missing."


def test_a_refused_baseline_is_named():
    follow = follow_small(Course(baseline=90), *[make_visit(0, size=32)] * 2)
    follow.refuse(90, "the scan is cut.", {})
    assert refused(describe_follow_up, follow, NETWORK) == "--baseline day 90 is not compared: the scan is cut."


def test_a_cavity_before_the_operation_is_noted():
    scheme = {"labels": {"NCR": 1, "SNFH": 2, "RC": 3}, "regions": {"WT": [1, 2], "RC": [3]}}
    follow = follow_small(Course(operations=(15,)), *[make_visit(0, size=32)] * 2, **scheme)
    record = describe_follow_up(follow, NETWORK)
    notes = " ".join(record["notes"])
    assert record["regions"]["RC"]["cavity"]
    assert "There was an operation between day 0 and day 30" in notes
    assert "Day 0 is stated as pre-operative, but its mask has a cavity of" in notes
    assert "thresholds" not in record["time_points"][1]["regions"]["RC"]
    assert record["time_points"][1]["regions"]["WT"]["baseline_day"] is None
