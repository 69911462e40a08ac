"""Groups of cases, such as sites, get their scores and their errors."""

import pytest

from bundle.analysis.evaluation import read_evaluation
from bundle.analysis.group_summary import summarise_groups
from tests.made import rows_of, write


def test_errors_are_counted_and_measured_by_site(tmp_path):
    rows = rows_of("a", "WT", 0.9, volume_fn=1.0, volume_fp=2.0) + rows_of("b", "WT", 0.6, volume_fn=3.0, volume_fp=4.0)
    rows += rows_of("c", "WT", 0, 7.0, note="missed")
    sites = {"site": {"a": "North", "b": "North", "c": "South"}}
    north, south = summarise_groups(read_evaluation(write(tmp_path, rows, groups=sites)))["site"]["rows"]
    assert (north["group"], north["cases"]) == ("North", 2)
    errors = north["regions"]["WT"]
    assert (errors["low"], errors["missed"], errors["missing"], errors["added"]) == (1, 0, 2.0, 3.0)
    assert (south["regions"]["WT"]["missed"], south["regions"]["WT"]["missing"]) == (1, pytest.approx(7.0))
