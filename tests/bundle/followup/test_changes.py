"""Changes over time: baseline, the smallest so far, operations, and the size thresholds that are met."""

from __future__ import annotations

import pytest

from bundle.followup.changes import Course, is_cavity, measure_changes
from tests.made import refused

DAYS = (0, 30, 60, 90)


def sizes(*volumes: float, measurable: bool = True) -> list[dict]:
    """Sizes of a ball of each volume, whose product of diameters follows from it."""
    return [{"volume_ml": v, "product_mm2": round(100 * v ** (2 / 3), 1), "measurable": measurable} for v in volumes]


def thresholds(course: Course, own: list[dict]) -> list[list[str]]:
    made = measure_changes(course, DAYS[: len(own)], own)
    return [[met["name"].split(":")[0] for met in one["thresholds"]] for one in made]


def test_a_decrease_is_compared_with_the_baseline():
    assert thresholds(Course(), sizes(10, 5, 3)) == [[], [], ["PR by volume", "PR by sum of products"]]


def test_an_increase_is_compared_with_the_smallest():
    made = measure_changes(Course(), DAYS, sizes(10, 4, 5.7, 20))
    assert made[2]["changes"]["volume_ml"] == {"baseline": -43.0, "nadir": 42.5, "nadir_day": 30}
    assert [met["since_day"] for met in made[2]["thresholds"]] == [30, 30]
    assert made[3]["changes"]["volume_ml"]["nadir_day"] == 30


@pytest.mark.parametrize(("volume", "met"), [(14.0, True), (13.9, False)])
def test_a_threshold_is_met_from_its_limit_on(volume, met):
    assert ("PD by volume" in thresholds(Course(), sizes(10, volume))[1]) == met


def test_small_lesions_meet_no_threshold():
    assert thresholds(Course(), sizes(0.1, 0.3, measurable=False)) == [[], []]


def test_nothing_is_compared_across_an_operation():
    made = measure_changes(Course(operations=(40,)), DAYS, sizes(10, 11, 1, 2))
    assert [one["baseline_day"] for one in made] == [None, 0, None, 60]
    assert [bool(one["thresholds"]) for one in made] == [False, False, False, True]


def test_a_chosen_baseline_replaces_the_first_time_point():
    made = measure_changes(Course(baseline=30), DAYS, sizes(1, 10, 9, 9))
    assert [one["baseline_day"] for one in made] == [None, None, 30, 30]


def test_an_increase_from_nothing_has_no_percentage_but_meets_thresholds():
    made = measure_changes(Course(), DAYS[:3], sizes(20, 0, 30))
    assert made[2]["changes"]["volume_ml"] == {"baseline": 50.0, "nadir": None, "nadir_day": 30}
    assert [met["change_percent"] for met in made[2]["thresholds"]] == [None, None]
    assert thresholds(Course(), sizes(20, 0, 30))[2] == ["PD by volume", "PD by sum of products"]
    assert thresholds(Course(), sizes(0, 0, 1, measurable=False)) == [[], [], []]


def test_thresholds_are_compared_before_rounding():
    own = [{"volume_ml": v, "product_mm2": 100.0, "measurable": True} for v in (10.0, 13.996, 14.0)]
    assert thresholds(Course(), own) == [[], [], ["PD by volume"]]


@pytest.mark.parametrize(
    ("operations", "states"),
    [
        (None, ["not stated", "not stated"]),
        ((), ["pre-operative", "pre-operative"]),
        ((10,), ["pre-operative", "post-operative"]),
        ((-5,), ["post-operative", "post-operative"]),
    ],
)
def test_a_time_point_is_before_or_after_an_operation(operations, states):
    assert [Course(operations).state(day) for day in (0, 30)] == states


@pytest.mark.parametrize(
    ("course", "sentence"),
    [
        (Course(operations=(30,)), "both on day 30: was the scan before it, or after?"),
        (Course(baseline=31), "--baseline is day 31, which is no time point: expected one of 0, 30, 60, 90"),
    ],
)
def test_a_course_that_fits_no_time_point_is_refused(course, sentence):
    assert sentence in refused(course.require, DAYS)


def test_a_cavity_is_known_by_its_label():
    labels = {"NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}
    assert is_cavity([4], labels)
    assert not is_cavity([3, 4], labels)
