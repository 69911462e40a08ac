"""Only systems scored by the same rules are compared, on the same patients."""

import pytest

from bundle.analysis.costs import Price
from bundle.analysis.evaluation import read_evaluation
from bundle.analysis.pairing import match_systems
from scripts.errors import InputError
from tests.made import INF, cohort, failed, rows_of, write

TEN = [0.1, 0.45, 0.55, 0.62, 0.69, 0.75, 0.8, 0.85, 0.9, 0.95]


def matched(folder, first, second, record=({}, {}), **options):
    tables = [
        read_evaluation(write(folder / name, rows, **own))
        for name, rows, own in zip("AB", (first, second), record, strict=True)
    ]
    return match_systems(tables, ["A", "B"], **options)


def test_cases_of_a_patient_are_averaged_before_systems_are_compared(tmp_path):
    first = rows_of("a1", "WT", 0.8, patient="a") + rows_of("a2", "WT", 0.6, patient="a") + rows_of("b", "WT", 0.5)
    second = rows_of("a1", "WT", 0.9, patient="a") + rows_of("a2", "WT", 0.7, patient="a") + rows_of("b", "WT", 0.5)
    found = matched(tmp_path, first, second)
    assert found.values["dice", "WT"].to_dict("index") == {
        "a": {"A": pytest.approx(0.7), "B": pytest.approx(0.8)},
        "b": {"A": 0.5, "B": 0.5},
    }
    assert (found.cases, found.patients) == (3, ("a", "b"))


def test_only_scans_of_every_system_are_averaged_and_others_named(tmp_path):
    first = cohort([0.8, 0.6]) + rows_of("again", "WT", 0.1, patient="c00") + rows_of("x", "WT", 0.3)
    found = matched(tmp_path, first, [*cohort([0.8, 0.6]), *rows_of("y", "WT", 0.3)])
    assert list(found.values["dice", "WT"]["A"]) == [0.8, 0.6]
    assert found.unpaired == {
        "A": {"cases": ["again", "x"], "patients": ["x"]},
        "B": {"cases": ["y"], "patients": ["y"]},
    }


def test_a_scan_without_a_distance_leaves_its_patient_without_one(tmp_path):
    first = rows_of("a1", "WT", 0, patient="a", note="missed") + rows_of("a2", "WT", 0.9, patient="a") + cohort([0.8])
    second = rows_of("a1", "WT", 0.8, patient="a") + rows_of("a2", "WT", 0.9, patient="a") + cohort([0.8])
    assert list(matched(tmp_path, first, second).values["hd95", "WT"]["A"]) == [INF, pytest.approx(2)]


def test_a_failed_case_is_compared_as_an_empty_prediction(tmp_path):
    found = matched(tmp_path, cohort([0.8, 0.7]), [*cohort([0.8]), *failed("c01")], prices={"WT": Price(1, 1)})
    assert found.values["dice", "WT"].loc["c01", "B"] == 0
    assert found.values["hd95", "WT"].loc["c01", "B"] == INF
    assert found.values["cost", "all"].loc["c01", "B"] == INF


def test_slices_are_compared_as_volumes_where_every_system_has_them(tmp_path):
    slices = [row for patient in "ab" for k in range(2) for row in rows_of(f"{patient}{k}", "WT", 0.2, patient=patient)]
    for name, dice in (("A", 0.8), ("B", 0.6)):
        write(tmp_path / name, rows_of("a", "WT", dice) + rows_of("b", "WT", dice)).joinpath("cases.csv").rename(
            tmp_path / name / "patients.csv"
        )
    found = matched(tmp_path, slices, slices)
    assert found.slices_together
    assert found.values["dice", "WT"].to_numpy().tolist() == [[0.8, 0.6], [0.8, 0.6]]


def test_costs_are_tested_in_total_and_shown_per_region(tmp_path):
    rows = cohort(TEN, "WT") + cohort(TEN, "ET")
    prices = {"WT": Price(2, 1), "ET": Price(2, 1)}
    found = matched(tmp_path, rows, rows, metrics=["dice"], weights={"WT": 1.0}, prices=prices)
    assert list(found.tested) == [("dice", "WT"), ("dice", "ET"), ("weighted_dice", "all"), ("cost", "all")]
    assert [*found.values][-2:] == [("cost", "WT"), ("cost", "ET")]


def test_metrics_and_regions_can_be_chosen(tmp_path):
    rows = cohort(TEN, "WT") + cohort(TEN, "ET")
    found = matched(tmp_path, rows, rows, regions=["ET"], metrics=["assd", "recall"])
    assert list(found.tested) == [("assd", "ET"), ("recall", "ET")]


def pixels(rows):
    return [[*row[:5], "pixel" if row[5] == "mm" else row[5], row[6]] for row in rows]


def lists(one, two):
    return ({"datalist": one}, {"datalist": two})


def rules(one, two):
    return ({"definitions": one}, {"definitions": two})


BOTH = cohort(TEN, "WT")
REFUSED = {
    "two data lists": (
        (BOTH, BOTH, lists("a" * 64, "b" * 64)),
        r"different data lists \(aaaaaaaa and bbbbbbbb in evaluation",
    ),
    "two meanings of a metric": (
        (BOTH, BOTH, rules({"metrics": {"hd95": "pooled"}}, {"metrics": {"hd95": "directed"}})),
        "different definitions of hd95",
    ),
    "two rules": ((BOTH, BOTH, rules({"tolerances": [1]}, {"tolerances": [2]})), "different definitions of tolerances"),
    "two sets of regions": (
        (BOTH, BOTH + cohort(TEN, "ET")),
        "has regions WT and .*B has WT, ET: --regions WT compares",
    ),
    "no common region": ((BOTH, cohort(TEN, "ET")), "has regions WT and .*B has ET: score both with one data list"),
    "two units": ((BOTH, pixels(BOTH)), "measured in mm and ml, .*B in pixel and ml"),
    "two truths": (
        (BOTH, cohort(TEN, truths=[99.0] * 10)),
        r"c00 has 10 ml of WT in .*A and 99 in .*B: they were scored against different labels",
    ),
    "two patients of one name": (
        (BOTH, [[row[0], "other" if row[0] == "c03" else row[1], *row[2:]] for row in BOTH]),
        "case c03 belongs to patient c03 in .* and to other in",
    ),
    "one common patient": ((BOTH, cohort(TEN[:1]) + rows_of("x", "WT", 0.8)), "one patient in common, c00"),
    "no common patient": ((BOTH, rows_of("x", "WT", 0.8)), "no case in common"),
    "lost rows": (
        (BOTH + cohort(TEN, "ET"), BOTH + cohort(TEN[:9], "ET")),
        "B has no Dice of ET of case c09: rows are missing",
    ),
}


@pytest.mark.parametrize(("given", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_differently_scored_evaluations_are_not_compared(tmp_path, given, said):
    with pytest.raises(InputError, match=said):
        matched(tmp_path, *given)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"regions": ["XX"]}, "has no region 'XX': expected one of WT"),
        ({"metrics": ["volume_error"]}, "no metric 'volume_error' to compare: expected one of dice, iou"),
        ({"metrics": ["rand_f"]}, "no metric 'rand_f' to compare"),
    ],
)
def test_incomparable_evaluations_are_refused(tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        matched(tmp_path, BOTH, BOTH, **options)


def test_the_same_folder_twice_is_refused_under_two_names_too(tmp_path):
    folder = write(tmp_path / "here", BOTH)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(InputError, match="link is given twice"):
        match_systems([read_evaluation(folder), read_evaluation(tmp_path / "link")], ["A", "B"])


def test_a_later_version_that_measures_more_can_still_be_compared(tmp_path):
    scored = rules({"metrics": {"dice": "overlap"}}, {"metrics": {"dice": "overlap", "new": "thing"}, "more": 1})
    assert matched(tmp_path, BOTH, BOTH, scored).cases == 10
