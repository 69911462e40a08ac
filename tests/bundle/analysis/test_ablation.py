"""Differences of variants are paired by patient, and hold the variation between patients and between trainings."""

import numpy as np
import pandas as pd
import pytest

from bundle.analysis.ablation import MEAN, compare_variants, crossed_interval, rank_variants
from bundle.analysis.significance import correct_by_holm

PATIENTS = [f"p{k}" for k in range(24)]


def table(effects: dict[str, float], seeds=(0, 1), folds=(0, 1), noise=0.02, between_seeds=0.0, part="validation"):
    """Dice of variants with these effects: each patient has an own level, each training an own deviation."""
    draw, rows = np.random.default_rng(3), []
    level = dict(zip(PATIENTS, draw.uniform(0.4, 0.7, len(PATIENTS)), strict=True))
    for variant, effect in effects.items():
        for seed in seeds:
            for fold in folds:
                training = draw.normal(0, between_seeds)
                own = PATIENTS if part == "test" else PATIENTS[fold :: len(folds)]
                for patient in own:
                    for region in ("WT", "ET"):
                        dice = level[patient] + effect + training + draw.normal(0, noise)
                        rows.append((variant, seed, fold, patient, patient, region, dice))
    return pd.DataFrame(rows, columns=["variant", "seed", "fold", "case", "patient", "region", "dice"])


def rows_of(results, variant, difference=0.01):
    return {
        row["region"]: row for row in compare_variants(results, "baseline", difference) if row["variant"] == variant
    }


@pytest.mark.parametrize(
    ("effect", "noise", "finding"),
    [(0.1, 0.02, "better"), (-0.1, 0.02, "worse"), (0.0, 0.001, "equal"), (0.0, 0.2, "undecided")],
)
def test_finding_follows_the_size_of_the_effect(effect, noise, finding):
    own = rows_of(table({"baseline": 0.0, "other": effect}, noise=noise), "other")
    assert {row["finding"] for row in own.values()} == {finding}
    assert own["WT"]["patients"] == len(PATIENTS)
    assert own["WT"]["seeds"] == 2


def test_difference_is_paired_by_patient_seed_and_fold():
    results = table({"baseline": 0.0, "other": 0.05})
    wide = (
        results[results["region"] == "WT"].set_index(["variant", "seed", "fold", "patient"])["dice"].unstack("variant")
    )
    row = rows_of(results, "other")["WT"]
    assert row["difference"] == pytest.approx((wide["other"] - wide["baseline"]).mean())
    assert row["interval"][0] < row["difference"] < row["interval"][1]


def test_variant_is_compared_with_another_one_as_well():
    results = table({"baseline": 0.0, "first": 0.05, "second": 0.2})
    rows = compare_variants(results, "baseline", 0.01, steps=[("second", "first"), ("second", "not_trained_yet")])
    found = {row["variant"]: row["difference"] for row in rows if row["region"] == MEAN}
    assert found == pytest.approx({"first": 0.05, "second": 0.2, "second against first": 0.15}, abs=0.02)


def test_seed_without_a_baseline_does_not_count():
    results = table({"baseline": 0.0, "other": 0.05})
    without = results[~((results["variant"] == "baseline") & (results["seed"] == 1))]
    assert rows_of(without, "other")["WT"]["seeds"] == 1


def test_mean_over_regions_has_its_own_row():
    own = rows_of(table({"baseline": 0.0, "other": 0.05}), "other")
    assert own[MEAN]["difference"] == pytest.approx((own["WT"]["difference"] + own["ET"]["difference"]) / 2)


def test_variation_between_trainings_widens_the_interval():
    def width(between: float) -> float:
        low, high = rows_of(table({"baseline": 0.0, "other": 0.0}, between_seeds=between), "other")["WT"]["interval"]
        return high - low

    assert width(0.1) > 2 * width(0.0)


def test_cases_of_a_patient_are_averaged_first():
    results = table({"baseline": 0.0, "other": 0.05})
    doubled = pd.concat([results, results[results["patient"] == "p0"].assign(case="again")])
    assert rows_of(doubled, "other")["WT"] == rows_of(results, "other")["WT"]


def test_test_patients_are_drawn_once_over_all_folds():
    results = table({"baseline": 0.0, "other": 0.05}, part="test")
    row = rows_of(results, "other")["WT"]
    assert row["patients"] == len(PATIENTS)
    one_fold = rows_of(results[results["fold"] == 0], "other")["WT"]
    widths = [own["interval"][1] - own["interval"][0] for own in (row, one_fold)]
    assert widths[0] > 0.6 * widths[1]  # twice the trainings, but not twice the patients


def test_p_values_are_corrected_over_all_rows():
    rows = compare_variants(table({"baseline": 0.0, "a": 0.02, "b": 0.005}), "baseline", 0.01)
    assert [row["p_holm"] for row in rows] == correct_by_holm([row["p"] for row in rows])


def test_interval_agrees_with_a_plain_loop():
    draw = np.random.default_rng(0)
    values = pd.DataFrame(draw.normal(0, 1, (12, 3)) + draw.normal(0, 1, (1, 3)))
    means = []
    for _ in range(4000):
        patients, seeds = draw.integers(0, 12, 12), draw.integers(0, 3, 3)
        means.append(values.to_numpy()[np.ix_(patients, seeds)].mean())
    found, _ = crossed_interval(values, [0] * 12)
    assert found == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.08)


def test_few_patients_have_no_interval():
    results = table({"baseline": 0.0, "other": 0.5})
    few = results[results["patient"].isin(PATIENTS[:4])]
    row = rows_of(few, "other")["WT"]
    assert row["interval"] is None
    assert row["finding"] == "undecided"


def test_ranking_orders_variants_by_mean_rank():
    found = rank_variants(table({"baseline": 0.0, "better": 0.1, "worse": -0.1}))
    assert [one["variant"] for one in found["variants"]] == ["better", "baseline", "worse"]
    assert found["holds"] == 1.0
    assert found["patients"] == len(PATIENTS)
