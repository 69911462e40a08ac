"""Paired tests between systems, their power, and the stability of a ranking.

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

POWER = 0.8  # of the paired test, for `detectable_difference`


class PairedTest(NamedTuple):
    """Summary of the differences between two systems, one difference per patient.

    `mean` and its interval are None where a difference is infinite. `p` is from Wilcoxon's signed-rank test.
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
    """Ranking of systems: the mean rank of each over patients (1 is best), and how stable the order is.

    `places` is, for each system, the share of bootstrap draws in which it took place 1, 2 ...; `holds` the share in
    which every system kept its place. Both are None for fewer than five patients.
    """

    mean_ranks: list[float]
    holds: float | None
    places: list[list[float]] | None


def subtract_scores(this: Sequence[float], other: Sequence[float]) -> np.ndarray:
    """`this` minus `other`; inf minus inf is 0, and a single inf gives an infinite difference.

    Rounded to 12 places, so that numbers that differ only in the last bit of a float are ties.
    """
    this, other = np.asarray(this, float), np.asarray(other, float)
    with np.errstate(invalid="ignore"):
        return np.where(this == other, 0.0, np.round(this - other, 12))


def paired_test(differences: Sequence[float]) -> PairedTest:
    """Test whether differences, one per patient, are centred on 0.

    Intervals are from the paired bootstrap; the test is Wilcoxon's with Pratt's treatment of zeros, and infinite
    differences have the highest ranks.
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


def sign_test(higher: int, lower: int) -> float:
    """The two-sided p of the exact sign test, of the patients that differ in one direction and the other.

    Where each patient has one case that is counted or not, this is McNemar's exact test.
    """
    return float(stats.binomtest(higher, higher + lower).pvalue) if higher + lower else 1.0


def detectable_difference(differences: Sequence[float], tests: int = 1) -> float | None:
    """Mean difference that this number of patients, with this spread, shows with a power of 80 %.

    Follows the paired t test at 5 % divided by the number of tests; Wilcoxon's test has about the same power. None
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
    """Whether this number of patients can reach significance: the smallest p, 2 / 2^n, times the number of tests."""
    return tests * 2.0 ** (1 - patients) < 1 - LEVEL


def rank_systems(ranks: np.ndarray) -> Ranking:
    """Order systems by mean rank, and bootstrap patients to see how often that order recurs.

    `ranks` is [patients, systems], 1 the best in a patient; ties share the mean of their ranks.
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
        warnings.simplefilter("ignore")  # the page says that few patients make the normal approximation rough
        return float(stats.wilcoxon(differences, zero_method="pratt").pvalue)
