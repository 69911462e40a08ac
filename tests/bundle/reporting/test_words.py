"""Rounding and wording of numbers."""

import pytest

from bundle.reporting.words import (
    MINUS,
    NOTHING,
    format_amount,
    format_change,
    format_p,
    format_range,
    format_share,
    format_signed,
    format_whole,
    join_words,
    metric_name,
    plural,
    size_word,
    unit_sign,
)

INF = float("inf")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.8549, "0.85"),
        (0.001, "<0.01"),
        (0, "0.00"),
        (0.9999, ">0.99"),
        (1, "1.00"),
        (None, NOTHING),
        (float("nan"), NOTHING),
    ],
)
def test_a_share_is_never_rounded_to_perfect_or_to_nothing(value, written):
    assert format_share(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (14.24, "14.2"),
        (0.312, "0.31"),
        (0.0051, "0.005"),
        (192.3, "192"),
        (0, "0"),
        (1234.5, "1\u202f234"),
        (None, NOTHING),
    ],
)
def test_an_amount_has_about_three_digits(value, written):
    assert format_amount(value) == written


@pytest.mark.parametrize("value", [INF, "inf"])
def test_inf_is_a_sign_also_when_it_comes_from_json(value):
    assert format_amount(value) == "∞"
    assert format_range([1, value], format_amount) == "1.0 to ∞"


def test_differences_carry_their_sign():
    assert (format_signed(2.0), format_signed(-2.0), format_signed(0.0)) == ("+2.0", MINUS + "2.0", "0")
    assert (format_change(0.0123), format_change(-0.5), format_change(0.0001)) == ("+0.012", MINUS + "0.500", "0.000")
    assert format_signed("-inf") == MINUS + "∞"


def test_a_small_p_value_is_not_zero():
    assert [format_p(p) for p in (1e-9, 0.0123, 0.512)] == ["<0.001", "0.012", "0.51"]


def test_metric_names_are_standard_terms_with_the_tables_unit():
    assert metric_name("hd95") == "HD95"
    assert metric_name("nsd_2mm") == "NSD 2 mm"
    assert metric_name("nsd_2mm", "pixel") == "NSD 2 pixels"
    assert metric_name("of_another_system") == "of another system"


def test_flat_masks_have_areas():
    assert (size_word("ml"), size_word("cm2"), size_word("pixel")) == ("volume", "area", "area")
    assert unit_sign("cm2") == "cm²"


def test_counts_and_lists_read_as_english():
    assert (plural(1, "case"), plural(3, "case"), format_whole(3.0)) == ("1 case", "3 cases", "3")
    assert join_words(["A", "B", "C"]) == "A, B and C"
    assert join_words(["A"]) == "A"
    assert join_words([f"{k}" for k in range(20)], most=4) == "0, 1, 2 and 17 more"


def test_no_interval_is_a_dash():
    assert format_range(None) == NOTHING
