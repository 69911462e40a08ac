"""User-defined weights of regions and costs of errors per ml, and the resulting scores."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from scripts.errors import InputError
from scripts.scoring.case import WHOLE_CASE

POINTS = "points"  # the unit of costs and prices


class Price(NamedTuple):
    """Cost of errors per ml of a region (per cm2 or pixel in 2D): `fn` missed, `fp` added in error."""

    fn: float
    fp: float


Weights = Mapping[str, float] | None  # by region
Prices = Mapping[str, Price] | None  # by region, per ml


def parse_weights(text: str, regions: Sequence[str]) -> dict[str, float]:
    """`"WT=1,ET=2"` as `{"WT": 1, "ET": 2}`: the weight of each region's Dice; other regions have none.

    Raises:
        InputError: the text has another form, a region is unknown, or all weights are 0.
    """
    weights = _numbers(text, 'weights are "{}": expected one number per region, such as "WT=1,ET=2"')
    _require_known(weights, regions)
    return _require_positive(weights, "the weights of all regions are 0: give one above 0.")


def parse_prices(text: str, regions: Sequence[str]) -> dict[str, Price]:
    """Prices per ml: `"fn=2,fp=1"` for all regions, `"ET:fn=5,ET:fp=1"` for ET alone.

    A region's own price replaces the general one: `"fn=2,fp=1,ET:fn=5"`. A price that is not given is 0.

    Raises:
        InputError: the text has another form, a region is unknown, or all prices are 0.
    """
    form = 'the cost is "{}": expected a number per ml missed (fn) or added (fp), such as "fn=2,fp=1" or "ET:fn=5"'
    general: dict[str, float] = {}
    own: dict[str, dict[str, float]] = {}
    for key, number in _numbers(text, form).items():
        region, _, kind = key.rpartition(":")
        if kind not in Price._fields:
            raise InputError(form.format(text) + ".")
        _require_known([region] if region else [], regions)
        (own.setdefault(region, {}) if region else general)[kind] = number
    free = {"fn": 0.0, "fp": 0.0}
    prices = {region: Price(**{**free, **general, **own.get(region, {})}) for region in regions}
    return _require_positive({r: p for r, p in prices.items() if any(p)}, "all prices are 0: give one above 0.")


def add_user_scores(scores: pd.DataFrame, weights: Weights = None, prices: Prices = None) -> pd.DataFrame:
    """`Evaluation.scores` with `weighted_dice` and the sum of the `cost` in rows of region `all`.

    Rows of regions with a price have their `cost` too. The cost of a failed case is unknown: inf.

    Raises:
        InputError: a case lacks a metric that is needed.
    """
    failed = scores["note"] == "failed"
    whole = scores[["case", "patient", "note"]].drop_duplicates("case").assign(region=WHOLE_CASE)
    whole["note"] = whole["note"].where(whole["note"] == "failed", "")
    if prices:
        priced = scores["region"].isin(list(prices))
        _require(scores[~failed], prices, ("volume_fn", "volume_fp"))
        fn, fp = (scores["region"].map({r: getattr(p, kind) for r, p in prices.items()}) for kind in Price._fields)
        cost = (fn * scores["volume_fn"] + fp * scores["volume_fp"]).mask(failed & priced, np.inf)
        scores = scores.assign(cost=cost)
        whole["cost"] = whole["case"].map(cost[priced].groupby(scores["case"]).sum())
    if weights:
        _require(scores, weights, ("dice",))
        share = scores["region"].map(weights) / sum(weights.values())
        whole["weighted_dice"] = whole["case"].map((share * scores["dice"]).groupby(scores["case"]).sum())
    return pd.concat([scores, whole], ignore_index=True) if weights or prices else scores


def _numbers(text: str, form: str) -> dict[str, float]:
    """`"a=1,b=2"` as a dictionary of numbers from 0; `form` is the error for any other text."""
    found: dict[str, float] = {}
    for pair in str(text).split(","):
        key, _, number = (part.strip() for part in pair.rpartition("="))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not key or key in found or not 0 <= value < math.inf:
            raise InputError(form.format(text) + ", each once and 0 or more.")
        found[key] = value
    return found


def _require_known(given: Iterable[str], regions: Sequence[str]) -> None:
    if unknown := [region for region in given if region not in regions]:
        raise InputError(f"there is no region '{unknown[0]}' in cases.csv: expected one of {', '.join(regions)}.")


def _require_positive(values: dict, sentence: str) -> dict:
    if not any(value if isinstance(value, float) else any(value) for value in values.values()):
        raise InputError(sentence)
    return values


def _require(scores: pd.DataFrame, regions: Mapping[str, object], metrics: Sequence[str]) -> None:
    for metric in metrics:
        table = scores.pivot(index="case", columns="region", values=metric) if metric in scores else pd.DataFrame()
        for region in regions:
            lacking = table.index[table[region].isna()] if region in table else ["any case"]
            if len(lacking):
                raise InputError(
                    f"cases.csv has no {metric} of {region} of {lacking[0]}: score the predictions again"
                    " (`python -m bundle score`)."
                )
