"""Calibration of the Dice that is predicted without a reference, and how well it holds on patients that took no part.

One half of the patients fits a ridge regression (Hoerl and Kennard 1970) of the logit of the Dice, the other half
bounds it from below by split conformal prediction (Papadopoulos et al. 2002; Lei et al. 2018): the Dice of a new
patient reaches the bound with a probability of at least 90 %, if that patient is like those of the calibration. Of
several scans of a patient, the one with the largest error counts.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from bundle.analysis.statistics import share_interval
from scripts.errors import InputError
from scripts.files import read_mapping
from scripts.inference.predicted_dice import LEVEL, MEASURED, log_odds, predict_dice, scale_number
from scripts.scoring.cohort import read_cases

FEWEST = 20  # patients: ten fit at most seven slopes, ten bound; nine are the fewest that can bound at 90 %
SEED = 0  # of the halves
PENALTY = 1.0  # of the ridge, for numbers of standard deviation 1
LOW = 0.7  # Dice; a bound below it is a warning
CASE = ["case", "patient", "region", "dice"]


def read_measured_masks(evaluation: Path, numbers: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The Dice and the numbers of the masks of an evaluation, one row per case and region, and what made the masks.

    Masks that are empty have no row, whatever the truth: they predict nothing. A mask where the truth is empty counts
    as Dice 0.

    Args:
        evaluation: its folder.
        numbers: the name of the file of numbers in it.

    Raises:
        InputError: a file is missing.
    """
    path = evaluation / numbers
    if not evaluation.is_dir():
        raise InputError(f"there is no folder {evaluation}: give that of an evaluation, `python -m bundle evaluate`.")
    if not path.is_file():
        raise InputError(
            f"{evaluation} has no {numbers}, as one of slices or by an earlier version: evaluate volumes again,"
            f" `python -m bundle evaluate RUN --part validation --out {evaluation} --resume`."
        )
    content, scores = read_mapping(path), read_cases(evaluation / "cases.csv")
    dice = scores[scores["metric"] == "dice"]
    rows = [
        {**row, **content["cases"][row["case"]][row["region"]]}
        for row in dice.rename(columns={"value": "dice"})[CASE].to_dict("records")
        if row["region"] in content["cases"].get(row["case"], {})
    ]
    return pd.DataFrame(rows, columns=[*CASE, *MEASURED]), content["made_with"]


def calibrate_region(masks: pd.DataFrame) -> dict[str, Any]:
    """A region's part of a calibration, as `scripts.inference.predicted_dice.predict_dice` takes it.

    Args:
        masks: the rows of the region (`read_measured_masks`).
    """
    patients = sorted(masks["patient"].unique())
    if len(patients) < FEWEST:
        few = f"{len(patients)} {'patient has' if len(patients) == 1 else 'patients have'} a mask of this region"
        return {"patients": len(patients), "reason": f"Not calibrated: {few}, and {FEWEST} are needed."}
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kinds = [kind for kind in MEASURED if masks[kind].notna().all()]
    inputs = np.column_stack([masks[kind].map(partial(scale_number, kind)) for kind in kinds])
    truth = masks["dice"].map(log_odds).to_numpy()
    chosen = np.random.default_rng(SEED).permutation(patients)[: len(patients) // 2]
    fits = masks["patient"].isin(chosen).to_numpy()
    weights = 1 / masks.groupby("patient")["case"].transform("size").to_numpy()
    model = make_pipeline(StandardScaler(), Ridge(alpha=PENALTY))
    model.fit(inputs[fits], truth[fits], ridge__sample_weight=weights[fits])
    scaler, ridge = model[0], model[1]
    slopes = ridge.coef_ / scaler.scale_
    errors = pd.Series(model.predict(inputs) - truth)[~fits].groupby(masks["patient"].to_numpy()[~fits]).max()
    return {
        "patients": len(patients),
        "numbers": kinds,
        "slopes": slopes.tolist(),
        "intercept": float(ridge.intercept_ - slopes @ scaler.mean_),
        "ranges": np.column_stack([inputs.min(0), inputs.max(0)]).tolist(),
        "margin": find_margin(errors.to_numpy()),
    }


def describe_calibration(regions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What a calibration has for each region, a line each."""
    calibrated = "Calibrated on {patients} patients."
    return [f"{name}: {own.get('reason') or calibrated.format(**own)}" for name, own in regions.items()]


def find_margin(errors: Sequence[float]) -> float:
    """What a new error exceeds with a probability of at most 1 - `LEVEL`: the ceil(`LEVEL` (n + 1))th smallest of n."""
    return float(np.sort(errors)[math.ceil(round(LEVEL * (len(errors) + 1), 9)) - 1])


def leave_patients_out(masks: pd.DataFrame) -> pd.DataFrame:
    """Each mask with the prediction of a calibration that its patient took no part in: `value`, `lower`, `sentence`."""
    found = masks.assign(value=np.nan, lower=np.nan, sentence="")
    for region, own in masks.groupby("region", sort=False):
        for patient in own["patient"].unique():
            here = own["patient"] == patient
            one = predict_masks(own[here], {str(region): calibrate_region(own[~here])})
            found.loc[one.index, one.columns] = one
    return found


def predict_masks(masks: pd.DataFrame, regions: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Each mask with the prediction of a calibration, by its regions: `value` and `lower`, or NaN, and `sentence`."""
    found = [predict_dice(regions[row["region"]], row) for row in masks.to_dict("records")]
    value, lower = (pd.Series([one[name] for one in found], masks.index, float) for name in ("value", "lower"))
    return masks.assign(value=value, lower=lower, sentence=[one["sentence"] for one in found])


def summarise_predictions(predicted: pd.DataFrame) -> list[dict[str, Any]]:
    """How predictions hold, one row per region, with the patient as the unit: of several scans the worst counts.

    Returns:
        `region`; `patients` with a mask, and of those `predicted`; `covered`: at or above the bound, with its Wilson
        `interval`; `correlation`: Spearman's, of predicted and true Dice, and `correlation_expected` of the Dice that
        the probabilities alone expect; `worst`: a tenth of the patients, at least one, and of those `caught` among as
        many with the lowest prediction, and `warned` by a bound below 0.7; `warnings` of all patients.
    """
    return [_summarise_region(region, own) for region, own in predicted.groupby("region", sort=False)]


def _summarise_region(region: Any, own: pd.DataFrame) -> dict[str, Any]:
    everybody = own["patient"].nunique()
    expected = own.groupby("patient")[["dice", "expected_dice"]].min()
    about = {"region": region, "patients": everybody, "correlation_expected": _correlate(*expected.to_numpy().T)}
    known = own[own["value"].notna()]
    held = (known["dice"] >= known["lower"]).groupby(known["patient"]).all()
    worst_scans = known.groupby("patient")[["dice", "value", "lower"]].min()
    count = math.ceil(len(held) / 10)
    worst = {*worst_scans["dice"].nsmallest(count).index}
    lowest = {*worst_scans["value"].nsmallest(count).index}
    warned = {*worst_scans.index[worst_scans["lower"] < LOW]}
    return {
        **about,
        "predicted": len(held),
        "covered": int(held.sum()),
        "interval": share_interval(int(held.sum()), len(held)),
        "correlation": _correlate(worst_scans["dice"], worst_scans["value"]),
        "worst": count,
        "caught": len(worst & lowest),
        "warned": len(worst & warned),
        "warnings": len(warned),
    }


def _correlate(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None where it is not defined."""
    if len(one) < 3 or len({*one}) == 1 or len({*other}) == 1:
        return None
    return float(spearmanr(one, other).statistic)
