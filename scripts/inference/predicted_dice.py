"""The Dice that a mask is likely to have, with a lower bound, from numbers that are known without a reference.

The calibration, `quality.json` next to the weights, is fitted by `python -m bundle calibrate`; applying it takes a sum
and a comparison. docs/quality.md describes it.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.data.datalist import file_hash
from scripts.errors import InputError
from scripts.files import read_mapping

QUALITY = "quality.json"  # next to the weights
QUALITY_VERSION = 1
MIRRORS, MEMBERS = "mirror_agreement", "member_agreement"
LEVEL, PERCENT = 0.9, "90 %"  # confidence of the lower bound
BEYOND = 0.25  # of the range of calibration, by which a number may exceed it
SMALLEST = 1e-3  # ml, and distance, before the logarithm
LEAST = 0.01  # a Dice nearer to 0 or 1 counts as this far from it, on the scale of the logit


def log_odds(share: float) -> float:
    """The logit of a share, which is kept `LEAST` away from 0 and 1."""
    share = min(max(share, LEAST), 1 - LEAST)
    return math.log(share / (1 - share))


# what is measured: its scale in the model, and its words
MEASURED: Mapping[str, tuple[str, str]] = {
    "expected_dice": ("logit", "the Dice expected by the network's own probabilities"),
    "border_entropy": ("as is", "the entropy at the border"),
    "volume_ml": ("log", "the volume in ml"),
    "largest_share": ("logit", "the share of the largest component"),
    "feature_distance": ("log", "the distance of the deep features"),
    MIRRORS: ("logit", "the agreement of mirrored views"),
    MEMBERS: ("logit", "the agreement of the ensemble's members"),
}


def scale_number(kind: str, value: float) -> float:
    """A number of a mask on its scale in the model."""
    scale = MEASURED[kind][0]
    return log_odds(value) if scale == "logit" else math.log(max(value, SMALLEST)) if scale == "log" else value


def find_quality(weights: Sequence[str | os.PathLike]) -> str | None:
    """The calibration next to the weights, of an ensemble next to those of its first member; None if there is none."""
    path = Path(weights[0]).with_name(QUALITY)
    return path.as_posix() if path.is_file() else None


def read_quality(path: str | os.PathLike) -> dict[str, Any]:
    """The calibration in a file.

    Raises:
        InputError: it cannot be read, or is of another version.
    """
    content = read_mapping(Path(path))
    if content.get("quality_version") != QUALITY_VERSION or "regions" not in content:
        raise InputError(
            f"{path} is not a calibration of version {QUALITY_VERSION}: make it by `python -m bundle calibrate`, or"
            " delete it, and no Dice is predicted."
        )
    return content


def predict_dice(own: Mapping[str, Any], numbers: Mapping[str, float] | None) -> dict[str, Any]:
    """The prediction for a region of one mask.

    Args:
        own: the region's part of a calibration.
        numbers: of the mask (`MEASURED`); None: the mask is empty.
    """
    if own.get("reason"):
        return without_value(own["reason"], own["patients"])
    if numbers is None:
        return without_value("Not predicted: the mask of this region is empty.", own["patients"])
    total = own["intercept"]
    for kind, (low, high), slope in zip(own["numbers"], own["ranges"], own["slopes"], strict=True):
        words = MEASURED[kind][1]
        if kind not in numbers or not math.isfinite(numbers[kind]):
            return without_value(f"Not predicted: {words} was not measured for this mask.", own["patients"])
        here, beyond = scale_number(kind, numbers[kind]), BEYOND * (high - low)
        if not low - beyond <= here <= high + beyond:
            sentence = (
                f"Not predicted: {words} is {numbers[kind]:.3g}, unlike that of the {own['patients']} patients of"
                " the calibration."
            )
            return without_value(sentence, own["patients"])
        total += slope * here
    value, lower = (1 / (1 + math.exp(-at)) for at in (total, total - own["margin"]))
    lower = lower if lower > LEAST else 0.0
    sentence = (
        f"Predicted Dice {value:.2f}, with {PERCENT} confidence at least {lower:.2f}, from {own['patients']} patients."
    )
    if MEMBERS in numbers and MEMBERS not in own["numbers"] and math.isfinite(numbers[MEMBERS]):
        sentence += " Calibrated on masks of the single networks, not of their mean."
    return {"value": round(value, 4), "lower": round(lower, 4), "patients": own["patients"], "sentence": sentence}


def describe_prediction(predicted: Mapping[str, Mapping[str, Any]]) -> str:
    """The predictions for one mask on a line; "" where there are none."""
    if all(own["value"] is None for own in predicted.values()):
        sentences = {own["sentence"] for own in predicted.values()}
        own_words = (f"{name}: {own['sentence']}" for name, own in predicted.items())
        return " ".join(sentences if len(sentences) == 1 else own_words)
    parts = []
    for name, own in predicted.items():
        known = own["value"] is not None
        parts.append(f"{name} {own['value']:.2f} (at least {own['lower']:.2f})" if known else f"{name} not predicted")
    return f"predicted Dice, with its {PERCENT} bound: {', '.join(parts)}"


def without_value(sentence: str, patients: int = 0) -> dict[str, Any]:
    """A prediction without a value, for the reason in the sentence."""
    return {"value": None, "lower": None, "patients": patients, "sentence": sentence}


def find_obstacle(
    known: Mapping[str, Any] | None, weights: Sequence[str | os.PathLike], made_with: Mapping[str, Any]
) -> str:
    """Why a calibration says nothing of these masks; "" if it does."""
    if known is None:
        return "Not calibrated: the network came without a calibration."
    if not {file_hash(file) for file in weights} <= {*known["weights"]}:
        return "Not calibrated: the calibration is of other weights."
    different = (name for name in known["made_with"] if known["made_with"][name] != made_with.get(name))
    if name := next(different, None):
        return (
            f"Not predicted: calibrated with {name} {json.dumps(known['made_with'][name])}, and this mask was made with"
            f" {json.dumps(made_with.get(name))}."
        )
    return ""
