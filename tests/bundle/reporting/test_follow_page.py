"""Findings of a follow-up in sentences."""

from __future__ import annotations

from bundle.reporting.follow_page import list_findings


def make_record(
    event: str, parts: list[int], operations: list[int] | None = None, thresholds: list | None = None
) -> dict:
    """A record of two time points with one lesion, whose second event is given."""
    points = [
        {"day": day, "compared": True, "regions": {"ET": {"thresholds": met}}}
        for day, met in ((0, []), (40, thresholds or []))
    ]
    times = [{"day": 0, "event": "first", "parts": [1], "volume_ml": 1.0}]
    times.append({"day": 40, "event": event, "parts": parts, "volume_ml": 2.0 if parts else 0.0})
    lesion = {"region": "ET", "number": 1, "times": times}
    return {"time_points": points, "lesions": [lesion], "operations": operations}


def test_a_threshold_is_named_and_no_category():
    met = {"name": "PD by volume: at least 40 % increase", "change_percent": 55.0, "since_day": 0}
    (finding,) = list_findings(make_record("matched", [1], thresholds=[met]))
    assert finding == (
        "Day 40, ET: the change meets the size threshold “PD by volume: at least 40 % increase” (+55 % since day 0)."
    )


def test_new_and_gone_lesions_are_named():
    assert list_findings(make_record("new", [1])) == ["Day 40, ET: lesion 1 is new, 2.00 ml."]
    assert list_findings(make_record("gone", [])) == ["Day 40, ET: lesion 1 is gone."]


def test_a_lesion_gone_after_an_operation_says_so():
    (finding,) = list_findings(make_record("gone", [], operations=[20]))
    assert finding == "Day 40, ET: lesion 1 is gone, across an operation."


def test_uncertain_lesions_are_counted():
    (finding,) = list_findings(make_record("uncertain", []))
    assert finding == "Day 40: 1 lesion may be new or gone, too small or too near the edge to say."
