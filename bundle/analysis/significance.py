"""Paired tests between systems, which differences they can show, and how firm the order of systems is.

One difference per patient. Distances may be infinite (one mask empty): an infinite difference ranks beyond every finite
one, and two infinite distances are equal.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from bundle.analysis.statistics import (
    FEWEST,
    LEVEL,
    RESAMPLES,
    SEED,
    Interval,
    make_finite,
    mean_interval,
    median_interval,
    quantiles,
)

POWER = 0.8  # with which `detectable_difference`s are shown


class PairedTest(NamedTuple):
    """What the differences of two systems come down to, one difference a patient.

    `mean` and its interval are None where a difference is infinite. `p` is of Wilcoxon's signed-rank test.
    """

    patients: int
    mean: float | None
    mean_interval: Interval
    median: float
    median_interval: Interval
    higher: int
    equal: int
    lower: int
    p: float


class Ranking(NamedTuple):
    """Systems in order: the mean over patients of each one's rank (1 is best), and how firm the order is.

    `places` is, for each system, the share of draws in which it took place 1, 2 ...; `holds` the share in which every
    system kept its place. Both are None for fewer than five patients.
    """

    mean_ranks: list[float]
    holds: float | None
    places: list[list[float]] | None


def subtract_scores(this: Sequence[float], other: Sequence[float]) -> np.ndarray:
    """This minus the other, where inf minus inf is 0 and a single inf is an infinite difference.

    Rounded to 12 places, so that what differs by the last bit of a float is a tie.
    """
    this, other = np.asarray(this, float), np.asarray(other, float)
    with np.errstate(invalid="ignore"):
        return np.where(this == other, 0.0, np.round(this - other, 12))


def paired_test(differences: Sequence[float]) -> PairedTest:
    """Are these differences, one a patient, more than chance?

    Intervals are of the paired bootstrap; the test is Wilcoxon's with Pratt's zeros, to which infinite differences are
    the largest.
    """
    differences = np.asarray(differences, float)
    each = range(len(differences))
    infinite = np.isinf(differences).any()
    return PairedTest(
        patients=len(differences),
        mean=None if infinite else float(differences.mean()),
        mean_interval=mean_interval(differences, each),
        median=quantiles(differences, [0.5])[0],
        median_interval=median_interval(differences, each),
        higher=int((differences > 0).sum()),
        equal=int((differences == 0).sum()),
        lower=int((differences < 0).sum()),
        p=_wilcoxon(make_finite(differences)[0]),
    )


def detectable_difference(differences: Sequence[float], tests: int = 1) -> float | None:
    """The mean difference that so many patients would have shown in four of five comparisons, if they spread as here.

    The formula is that of the paired t test at 5 % over the number of tests, which is about Wilcoxon's power too. None
    for fewer than five patients, for differences that are infinite or all the same, and where no difference can be
    significant.
    """
    differences = np.asarray(differences, float)
    patients = len(differences)
    if (
        patients < FEWEST
        or np.isinf(differences).any()
        or not np.ptp(differences)
        or not can_reach_significance(patients, tests)
    ):
        return None
    error = differences.std(ddof=1) / np.sqrt(patients)
    return float(error * (stats.t.isf((1 - LEVEL) / tests / 2, patients - 1) + stats.t.ppf(POWER, patients - 1)))


def can_reach_significance(patients: int, tests: int = 1) -> bool:
    """Can so many patients show a difference at all, when the smallest p, 2 / 2^n, is multiplied by the tests?"""
    return tests * 2.0 ** (1 - patients) < 1 - LEVEL


def rank_systems(ranks: np.ndarray) -> Ranking:
    """Order systems by their mean rank, and draw patients anew to see how often that order comes out.

    `ranks` is [patients, systems], 1 the best of a patient, equal ones sharing the mean of their ranks.
    """
    patients = len(ranks)
    mean_ranks = ranks.mean(axis=0)
    if patients < FEWEST:
        return Ranking(mean_ranks.tolist(), None, None)
    drawn = np.random.default_rng(SEED).multinomial(patients, np.full(patients, 1 / patients), RESAMPLES)
    places = _places(drawn @ ranks)
    shares = [(places == place).mean(axis=0) for place in range(1, ranks.shape[1] + 1)]
    holds = (places == _places(ranks.sum(axis=0))).all(axis=1).mean()
    return Ranking(mean_ranks.tolist(), float(holds), np.transpose(shares).tolist())


def _places(totals: np.ndarray) -> np.ndarray:
    return stats.rankdata(np.round(totals, 9), method="min", axis=-1)


def correct_by_holm(p_values: Sequence[float]) -> list[float]:
    """The p values corrected for their number by Holm's step-down method (Scand J Stat 6:65, 1979)."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1)
    return corrected.tolist()


def _wilcoxon(differences: np.ndarray) -> float:
    if not differences.any():
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that few patients make the normal approximation rough is said on the page
        return float(stats.wilcoxon(differences, zero_method="pratt").pvalue)
