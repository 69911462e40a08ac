"""Wrong settings of imperfect labels end in one sentence."""

import pytest

from scripts.data.raters import check_ignore, check_rater_names, check_raters, choose_rater
from scripts.errors import InputError

ENTRIES = [{"case": "a", "labels": {"anna": "1", "ben": "2"}}, {"case": "b", "labels": {"anna": "3"}}]


@pytest.mark.parametrize("ignore", [0, -1, True, "255"])
def test_only_a_whole_number_above_zero_can_be_ignored(ignore):
    with pytest.raises(InputError, match="expected a whole number above 0"):
        check_ignore(ignore, {"lesion": 1}, {"lesion": [1]})


def test_a_label_cannot_be_ignored():
    with pytest.raises(InputError, match=r"ignore is 4, which is also the value of ET: .* give another value"):
        check_ignore(4, {"ET": 4}, {})
    with pytest.raises(InputError, match="also the value of WT"):
        check_ignore(3, {}, {"WT": [1, 3]})


def test_staple_is_refused_for_exclusive_classes():
    with pytest.raises(InputError, match="give raters draw or majority, or decision regions"):
        check_raters("staple", "classes")


def test_an_unknown_rater_is_answered_with_the_names():
    with pytest.raises(InputError, match="raters is 'ann': expected draw, majority, staple, or a rater: anna, ben"):
        choose_rater(ENTRIES, "ann")
    with pytest.raises(InputError, match="this data list has one label per case"):
        choose_rater([{"case": "a", "label": "1"}], "anna")


def test_a_rater_who_lacks_cases_is_refused_with_one():
    with pytest.raises(InputError, match="who has not drawn 1 of 2 training cases, such as b: give draw"):
        choose_rater(ENTRIES, "ben")


def test_a_named_rater_is_the_only_one():
    assert [entry["labels"] for entry in choose_rater(ENTRIES, "anna")] == [{"anna": "1"}, {"anna": "3"}]
    assert choose_rater(ENTRIES, "draw") == ENTRIES


@pytest.mark.parametrize("name", ["", "model", "staple", "a/b", "..", "two words"])
def test_names_that_tables_or_files_cannot_hold_are_refused(name):
    with pytest.raises(InputError, match="the list has a rater called"):
        check_rater_names([name], "the list")
