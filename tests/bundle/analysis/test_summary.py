"""The numbers in summary.json."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest

from bundle.analysis import evaluation as evaluations
from bundle.analysis.costs import Price
from bundle.analysis.summary import match_reference, rank_cases, summarise_evaluation
from tests.made import ROOT, cohort, failed, rows_of, write

SCHEMA = json.loads((ROOT / "bundle/reporting/summary.schema.json").read_text())
TEN = [0.1, 0.45, 0.55, 0.62, 0.69, 0.75, 0.8, 0.85, 0.9, 0.95]
OF_THE_PAGE = {"warnings": [], "limits": [], "atlas": None, "label_errors": None}


def own_summary(folder: Path, rows: list, weights: dict | None = None, prices: dict | None = None) -> dict:
    return summarise_evaluation(evaluations.read_evaluation(write(folder, rows)), "title", None, weights, prices)


def summary_of(folder: Path, rows: list, reference: list | None = None, **scored) -> dict:
    evaluation = evaluations.read_evaluation(write(folder / "here", rows, **scored))
    other = (
        match_reference(evaluation, evaluations.read_evaluation(write(folder / "there", reference)))
        if reference
        else None
    )
    return summarise_evaluation(evaluation, "title", other)


def test_intervals_are_of_patients_not_of_scans(tmp_path):
    visits = [
        row for k, d in enumerate(TEN) for v in range(3) for row in rows_of(f"c{k}-{v}", "WT", d, patient=f"c{k}")
    ]
    many = summary_of(tmp_path / "many", visits)
    once = summary_of(tmp_path / "once", cohort(TEN))
    assert (many["cases"], many["patients"]) == (30, 10)
    width = [np.ptp(s["regions"]["WT"]["metrics"]["dice"]["mean_interval"]) for s in (many, once)]
    assert width[0] == pytest.approx(width[1], rel=0.05)


def test_lesions_by_volume_come_from_their_own_table(tmp_path):
    folder = write(tmp_path, cohort([0.8]))
    sizes, found = [0.05, 0.1, 0.5, 5, 50], [0, 1, 0, 1, 1]
    pd.DataFrame(
        {
            "case": "c00",
            "patient": "c00",
            "region": "WT",
            "lesion": range(5),
            "volume": sizes,
            "unit": "ml",
            "detected": found,
            "dice": 0.5,
        }
    ).to_csv(folder / "lesions.csv", index=False)
    classes = summarise_evaluation(evaluations.read_evaluation(folder), "title")["regions"]["WT"]["lesions_by_volume"]
    assert [(c["lesions"], c["found"]) for c in classes] == [(2, 1), (1, 0), (1, 1), (1, 1)]
    assert classes[-1]["up_to"] == "inf"


def test_the_worst_and_the_typical_are_of_different_patients(tmp_path):
    rows = cohort(TEN) + rows_of("again", "WT", 0.2, patient="c00")
    summary = summary_of(tmp_path, rows)
    assert summary["worst"] == ["c00", "c01", "c02", "c03", "c04"]
    assert summary["typical"] == ["c05", "c06", "c07"]


def test_ranking_averages_over_regions_and_leaves_out_failed_cases(tmp_path):
    rows = cohort([0.9, 0.6], "WT") + cohort([0.1, 0.6], "ET") + failed("lost")
    ranking = rank_cases(evaluations.read_evaluation(write(tmp_path, rows)))
    assert list(ranking["case"]) == ["c00", "c01"]
    assert list(ranking["dice"]) == pytest.approx([0.5, 0.6])


def test_unrecorded_roles_are_null(tmp_path):
    assert summary_of(tmp_path, cohort([0.8]))["roles"] is None
    assert summary_of(tmp_path, cohort([0.8]), about={"command": "score"})["roles"] is None
    known = summary_of(tmp_path, cohort([0.8]), about={"patients": {"training": ["c00"]}})["roles"]
    assert known == {"test": [], "validation": [], "training": ["c00"]}


@pytest.mark.parametrize("about", [None, "a model", {"patients": 12}, {"patients": ["c00"]}])
def test_metadata_of_other_programs_does_no_harm(tmp_path, about):
    assert summary_of(tmp_path, cohort([0.8]), about=about, versions=3)["roles"] is None


def test_comparison_uses_only_the_common_cases(tmp_path):
    here, there = cohort(TEN), [row for row in cohort([d - 0.05 for d in TEN]) if row[0] != "c09"]
    reference = summary_of(tmp_path, here, there)["reference"]
    assert (reference["cases"], reference["only_here"], reference["only_in_reference"]) == (9, ["c09"], [])
    dice = reference["differences"][0]
    assert (dice["metric"], dice["better"], dice["worse"]) == ("dice", 9, 0)
    assert dice["mean"] == pytest.approx(0.05)


def test_case_that_failed_in_one_system_is_still_compared(tmp_path):
    there = [*[row for row in cohort(TEN) if row[0] != "c09"], *failed("c09")]
    dice = summary_of(tmp_path, cohort(TEN), there)["reference"]["differences"][0]
    assert (dice["better"], dice["equal"], dice["worse"]) == (1, 9, 0)


def test_reference_with_other_regions_is_compared_on_shared_ones(tmp_path):
    here = cohort(TEN, "WT") + cohort(TEN, "ET")
    rows = summary_of(tmp_path, here, cohort(TEN, "WT"))["reference"]["differences"]
    assert {row["region"] for row in rows} == {"WT"}


def test_costs_are_summed_over_regions_and_costliest_patients_explained(tmp_path):
    rows = [
        row
        for k in range(7)
        for region in ("WT", "ET")
        for row in rows_of(f"c{k}", region, 0.8, volume_fn=float(k), volume_fp=1.0)
    ]
    cost = own_summary(tmp_path, rows, prices={"WT": Price(2, 1), "ET": Price(4, 0)})["cost"]
    assert cost["regions"]["WT"]["median"] == 3 * 2 + 1
    assert cost["total"]["median"] == 3 * 2 + 1 + 3 * 4
    assert [(row["patient"], row["value"]) for row in cost["worst"]] == [(f"c{k}", 6 * k + 1) for k in (6, 5, 4, 3, 2)]
    assert cost["worst"][0]["regions"] == {"WT": {"fn": 6, "fp": 1}, "ET": {"fn": 6, "fp": 1}}


def test_failed_case_is_the_costliest_and_leaves_no_mean(tmp_path):
    summary = own_summary(tmp_path, [*cohort(TEN), *failed("lost")], {"WT": 1.0}, {"WT": Price(1, 1)})
    assert (summary["cost"]["total"]["mean"], summary["cost"]["total"]["infinite"]) == (None, 1)
    assert summary["cost"]["worst"][0] == {
        "patient": "lost",
        "value": "inf",
        "regions": {"WT": {"fn": None, "fp": None}},
    }
    assert summary["weighted_dice"]["worst"][0] == {"patient": "lost", "value": 0}
    assert summary["weighted_dice"]["spread"]["cases"] == 11
    jsonschema.validate(json.loads(json.dumps(summary | OF_THE_PAGE)), SCHEMA)


def test_nothing_is_weighted_without_weights_or_costs(tmp_path):
    summary = own_summary(tmp_path, cohort(TEN))
    assert (summary["weighted_dice"], summary["cost"]) == (None, None)


def test_comparison_rows_have_the_form_of_compare_json(tmp_path):
    schema = json.loads((ROOT / "bundle/reporting/compare.schema.json").read_text())
    rows = summary_of(tmp_path, cohort(TEN), cohort(TEN[::-1]))["reference"]["differences"]
    for row in rows:
        jsonschema.validate(row, schema["$defs"]["difference"] | {"$defs": schema["$defs"]})


@pytest.mark.parametrize("kind", ["many", "one", "dice alone"])
def test_the_summary_is_strict_json_of_the_documented_form(tmp_path, kind):
    rows = {
        "many": cohort(TEN)
        + rows_of("m", "WT", 0, note="missed")
        + failed("lost")
        + rows_of("m", "ET", 1, 0.0, note="absent"),
        "one": cohort([0.8]),
        "dice alone": [row for row in cohort(TEN) if row[3] == "dice"],
    }[kind]
    summary = summary_of(tmp_path, rows, cohort(TEN) if kind == "many" else None, part="test")
    text = json.dumps(summary | OF_THE_PAGE, allow_nan=False)
    jsonschema.validate(json.loads(text), SCHEMA)
