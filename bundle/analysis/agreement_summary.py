"""Summary of the agreement of raters: the content of `raters.json`, which page and terminal quote.

It is strict JSON (`bundle.analysis.strict_json`).
"""

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from bundle.analysis.consensus import CONSENSUS, DEFINITIONS
from bundle.analysis.rater_masks import MODEL
from bundle.analysis.rater_pairs import METRICS, ImageAgreement
from bundle.analysis.statistics import describe_intervals, describe_spread, mean_interval
from bundle.analysis.strict_json import to_strict_json
from scripts.scoring import metrics

SCHEMA = 1
VERDICTS = ("dice", "nsd_2mm")  # metrics in which the model is compared with the raters
HALF = 0.5  # of the image: a mask that covers more is likely that of the background


def summarise_agreement(
    compared: Sequence[ImageAgreement],
    pairs: pd.DataFrame,
    raters: Sequence[str],
    model: bool,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of raters.json; `about` holds further entries (title, folders, foreground)."""
    between = select_pairs(pairs, raters, raters)
    length, size = next((one.units for one in compared if one.units[0]), ("", ""))
    summary = {
        "schema": SCHEMA,
        **about,
        "raters": list(raters),
        "units": {"length": length, "size": size},
        "images": {one.image.name: _image(one, between) for one in compared},
        "incomplete": {
            one.image.name: [rater for rater in raters if rater not in one.sizes]
            for one in compared
            if not {*raters} <= one.sizes.keys()
        },
        "without_model": [one.image.name for one in compared if model and MODEL not in one.sizes],
        "failed": {file: reason for one in compared for file, reason in one.failed.items()},
        "notes": [note for one in compared for note in one.notes],
        "covered": _mean([one.covered for one in compared if one.covered is not None]),
        "between_raters": _spreads(between),
        "pairs": [
            {"first": first, "second": second, "images": len(own), "metrics": _spreads(own, interval=False)}
            for (first, second), own in between.groupby(["first", "second"], sort=False)
        ],
        "by_rater": {rater: _person(rater, raters, pairs, compared) for rater in raters},
        "model": _model(raters, pairs, compared) if model else None,
        "intervals": describe_intervals("image"),
        "definitions": {name: metrics.METRICS[name].meaning for name in METRICS} | DEFINITIONS,
        "versions": {name: version(name) for name in ("numpy", "scipy", "SimpleITK", "nibabel")},
    }
    return to_strict_json(summary)


def compare_model_with_raters(pairs: pd.DataFrame, raters: Sequence[str], metric: str) -> dict[str, Any]:
    """Compare the model's agreement with the raters to their agreement with each other.

    For each image, the mean over pairs of model and rater minus the mean over pairs of raters; averaged over images,
    with an interval that resamples images. The ratio of the two means is the index of Williams (Biometrics 32:619,
    1976; Chalana and Kim, IEEE TMI 16:642, 1997). `place` is the position of the model's mean among the raters' own
    means, on the images that all of them drew: below the lowest, within, or above; None without such images, or for two
    raters, whose means are equal.
    """
    between, against = select_pairs(pairs, raters, raters), select_pairs(pairs, [MODEL], raters)
    by_image = pd.DataFrame(
        {"raters": between.groupby("image")[metric].mean(), "model": against.groupby("image")[metric].mean()}
    ).dropna()
    difference = by_image["model"] - by_image["raters"]
    drawn = between.groupby("image").size()
    complete = by_image.index.intersection(drawn.index[drawn == math.comb(len(raters), 2)])
    place, own = None, {}
    if len(raters) > 2 and len(complete):
        same = between[between["image"].isin(complete)]
        own = {rater: float(select_pairs_with_raters(same, rater, raters)[metric].mean()) for rater in raters}
        here = float(by_image.loc[complete, "model"].mean())
        place = "below" if here < min(own.values()) else "above" if here > max(own.values()) else "within"
    return {
        "images": len(by_image),
        "model": _mean(by_image["model"]),
        "raters": _mean(by_image["raters"]),
        "difference": _mean(difference),
        "interval": mean_interval(difference, difference.index),
        "complete_images": len(complete),
        "rater_means": own,
        "place": place,
    }


def _model(raters: Sequence[str], pairs: pd.DataFrame, compared: Sequence[ImageAgreement]) -> dict[str, Any]:
    own = select_pairs_with_raters(pairs, MODEL, raters)
    return {
        **_person(MODEL, raters, pairs, compared),
        "by_rater": {
            rater: {"images": len(rows), "metrics": _spreads(rows, interval=False)}
            for rater, rows in own.groupby("second", sort=False)
        },
        "like_a_rater": {metric: compare_model_with_raters(pairs, raters, metric) for metric in VERDICTS},
    }


def _person(who: str, raters: Sequence[str], pairs: pd.DataFrame, compared: Sequence[ImageAgreement]) -> dict[str, Any]:
    """Agreement of a rater or the model with the (other) raters and the consensus, and its size bias."""
    return {
        "images": sum(who in one.sizes for one in compared),
        "with_raters": _spreads(select_pairs_with_raters(pairs, who, raters)),
        **{f"with_{name}": _spreads(select_pairs(pairs, [who], [name]), interval=False) for name in CONSENSUS},
        "size_bias": _size_bias(who, raters, compared),
    }


def _size_bias(who: str, raters: Sequence[str], compared: Sequence[ImageAgreement]) -> dict[str, Any] | None:
    """Its size minus the mean size of the other raters, over the images that both drew."""
    found = sizes_with_others(who, raters, {one.image.name: one.sizes for one in compared})
    if not len(found):
        return None
    bias = found["own"] - found["others"]
    relative = (bias / found["others"])[found["others"] > 0]
    return {
        "absolute": _spread(bias, found.index),
        "relative": _spread(relative, relative.index) if len(relative) else None,
    }


def _image(one: ImageAgreement, between: pd.DataFrame) -> dict[str, Any]:
    own = between[between["image"] == one.image.name]
    return {
        "sizes": one.sizes,
        "undecided": one.undecided,
        "dice": _mean(own["dice"]),
        "picture": f"disagreement/{one.image.name}.png" if one.undecided is not None else None,
    }


def sizes_with_others(who: str, raters: Sequence[str], images: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """For each image that `who` and another rater drew: its size, `own`, and the mean of the `others`."""
    found = {}
    for image, sizes in images.items():
        others = [sizes[rater] for rater in raters if rater != who and rater in sizes]
        if who in sizes and others:
            found[image] = (sizes[who], float(np.mean(others)))
    return pd.DataFrame.from_dict(found, orient="index", columns=["own", "others"], dtype=float)


def select_pairs(pairs: pd.DataFrame, first: Sequence[str], second: Sequence[str]) -> pd.DataFrame:
    """The rows with a first and a second mask of these raters."""
    return pairs[pairs["first"].isin(first) & pairs["second"].isin(second)]


def select_pairs_with_raters(pairs: pd.DataFrame, who: str, raters: Sequence[str]) -> pd.DataFrame:
    """The rows of a rater or the model with the (other) raters."""
    first, second = pairs["first"], pairs["second"]
    return pairs[(first == who) & second.isin(raters) | (second == who) & first.isin(raters)]


def _spreads(rows: pd.DataFrame, interval: bool = True) -> dict[str, Any] | None:
    if not len(rows):
        return None
    return {metric: _spread(rows[metric], rows["image"], interval) for metric in METRICS}


def _spread(values: pd.Series, images: Any, interval: bool = True) -> dict[str, Any]:
    """Statistics of values of images; the interval of the mean resamples images, each with all of its values."""
    return {
        "n": len(values),
        "images": len(set(images)),
        "mean": _mean(values),
        **({"mean_interval": mean_interval(values, images)} if interval else {}),
        **describe_spread(values),
    }


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None
