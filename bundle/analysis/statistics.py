"""Quantiles, and intervals with the patient as the unit.

Several cases of a patient are not independent: intervals resample patients, each with all of its cases (the cluster
bootstrap of Davison and Hinkley, Bootstrap Methods, 1997, 3.8). Distances may be infinite (one mask empty): an infinite
value ranks beyond every finite one.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

SEED = 0
RESAMPLES = 9999
LEVEL = 0.95
FEWEST = 5  # patients, at least, for an interval
ENOUGH = 50  # patients; below, bootstrap intervals are too narrow

Interval = tuple[float, float] | None


def describe_intervals(unit: str) -> dict[str, Any]:
    """How intervals are computed, for a JSON file; `unit` is the unit of resampling: patient or image."""
    return {"level": LEVEL, "unit": unit, "resamples": RESAMPLES, "seed": SEED, "enough": ENOUGH}


def mean_interval(values: Sequence[float], patients: Sequence[str]) -> Interval:
    """The 95 % interval of the mean over cases (BCa bootstrap over patients).

    None for fewer than five patients, for values that are all the same, and for infinite values.
    """
    values = np.asarray(values, float)
    return None if np.isinf(values).any() else _bootstrap(values, patients, np.mean, np.nanmean, "BCa")


def median_interval(values: Sequence[float], patients: Sequence[str]) -> Interval:
    """The 95 % interval of the median over cases (percentile bootstrap over patients), or None."""
    finite, top = make_finite(values)
    found = _bootstrap(finite, patients, np.median, np.nanmedian, "percentile")
    return found and tuple(_back(np.array(found), top).tolist())


def ratio_interval(parts: Sequence[float], wholes: Sequence[float]) -> Interval:
    """The 95 % interval of sum(parts) / sum(wholes), one pair per patient (percentile bootstrap), or None.

    Patients with a whole of 0 are left out.
    """
    parts, wholes = (np.asarray(values, float)[np.asarray(wholes) > 0] for values in (parts, wholes))
    if len(wholes) < FEWEST or np.ptp(parts / wholes) == 0:
        return None
    drawn = np.random.default_rng(SEED).multinomial(len(wholes), np.full(len(wholes), 1 / len(wholes)), RESAMPLES)
    low, high = np.quantile((drawn @ parts) / (drawn @ wholes), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def quantiles(values: Sequence[float], at: Sequence[float]) -> list[float]:
    """Quantiles; inf where one falls between the largest finite value and inf. NaN for no values."""
    if not len(values):
        return [float("nan")] * len(at)
    finite, top = make_finite(values)
    return _back(np.quantile(finite, at), top).tolist()


def quartiles(values: Sequence[float]) -> list[float]:
    """The first quartile, the median and the third quartile, as `quantiles` gives them."""
    return quantiles(values, [0.25, 0.5, 0.75])


def describe_spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles, 5th and 95th percentile, extremes, and the number of infinite values."""
    at = {"median": 0.5, "q1": 0.25, "q3": 0.75, "p5": 0.05, "p95": 0.95}
    return {
        **dict(zip(at, quantiles(values, list(at.values())), strict=True)),
        "minimum": float(np.min(values)),
        "maximum": float(np.max(values)),
        "infinite": int(np.isinf(values).sum()),
    }


def make_finite(values: Sequence[float]) -> tuple[np.ndarray, float]:
    """The values with +-inf replaced by finite ones beyond all others, and the largest magnitude that was finite."""
    values = np.asarray(values, float)
    top = float(np.abs(values[np.isfinite(values)]).max(initial=0))
    return np.where(np.isinf(values), np.sign(values) * (2 * top + 1), values), top


def share_interval(hits: int, of: int) -> Interval:
    """Wilson's 95 % interval of a share; None if `of` is 0."""
    if not of:
        return None
    found = stats.binomtest(hits, of).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def _bootstrap(values: np.ndarray, patients: Sequence[str], plain, padded, method: str) -> Interval:
    """Resample patients, each with all of its cases: one row per patient, padded with NaN."""
    groups = [group.to_numpy() for _, group in pd.Series(values).groupby(np.asarray(patients))]
    if len(groups) < FEWEST or np.ptp(values) == 0:
        return None
    table = np.full((len(groups), max(map(len, groups))), np.nan)
    for row, group in zip(table, groups, strict=True):
        row[: len(group)] = group
    statistic = padded if np.isnan(table).any() else plain

    def of_patients(numbers: np.ndarray, axis: int = -1) -> np.ndarray:
        drawn = table[numbers]
        return statistic(drawn.reshape(*drawn.shape[:-2], -1), axis=-1)

    with warnings.catch_warnings(), np.errstate(invalid="ignore"):  # means that are all the same are 0 / 0
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # gives NaN, which becomes None
        found = stats.bootstrap(
            (np.arange(len(groups)),),
            of_patients,
            n_resamples=RESAMPLES,
            batch=1000,
            confidence_level=LEVEL,
            method=method,
            rng=np.random.default_rng(SEED),
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    return None if np.isnan(low) or np.isnan(high) else (low, high)


def _back(values: np.ndarray, top: float) -> np.ndarray:
    return np.where(np.abs(values) > top * (1 + 1e-12), np.copysign(np.inf, values), values)
