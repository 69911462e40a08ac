"""Clicks until a Dice is reached count cases that never reach it, and seconds are compared within a case."""

import math

import pandas as pd
import pytest

from bundle.analysis.click_summary import count_clicks_to_reach, summarise_clicks, summarise_seconds

COURSES = {"A": [0.5, 0.85, 0.95], "B": [0.82, 0.7, 0.91], "C": [0.1, 0.2, 0.3]}
SECONDS = {"A": [8.0, 2.0, 4.0], "B": [10.0, 1.0, math.nan], "C": [1.0, 0.5, 0.5]}
ROWS = pd.DataFrame(
    {"case": case, "patient": case, "region": "WT", "clicks": clicks, "dice": dice, "seconds": SECONDS[case][clicks]}
    for case, course in COURSES.items()
    for clicks, dice in enumerate(course)
)


def test_clicks_to_reach_count_cases_that_never_do():
    low, high = count_clicks_to_reach(ROWS)
    assert (low.goal, low.at_once, low.reached, low.n, low.median) == (0.8, 1, 2, 3, 1)
    assert (high.goal, high.at_once, high.reached, high.n, high.median) == (0.9, 0, 2, 3, 2)
    (never, _) = count_clicks_to_reach(ROWS[ROWS["case"] == "C"])
    assert (never.reached, never.median) == (0, math.inf)


def test_means_have_intervals_from_five_patients_on():
    first = summarise_clicks(ROWS, ["dice"])[0]
    assert (first.clicks, first.n, first.interval, first.smallest, first.largest) == (0, 3, None, 0.1, 0.82)
    assert first.mean == pytest.approx((0.5 + 0.82 + 0.1) / 3)
    others = ROWS.assign(patient=ROWS["case"] + "2", dice=ROWS["dice"] + 0.01)
    low, high = summarise_clicks(pd.concat([ROWS, others]), ["dice"])[0].interval
    assert 0.1 < low < first.mean < high < 0.83


def test_seconds_of_clicks_are_relative_to_the_own_scan():
    assert summarise_seconds(ROWS) == {"automatic": 8.0, "click": 1.0, "ratio": pytest.approx(3 / 8)}
