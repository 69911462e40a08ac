"""Formats of numbers, units and lists, the same on every page and in the terminal."""

import math
from collections.abc import Sequence
from typing import Any

NAMES = {  # of metrics, for readers
    "dice": "Dice",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "hd95": "HD95",
    "hd100": "Hausdorff",
    "assd": "ASSD",
    "volume_truth": "True volume",
    "volume_prediction": "Predicted volume",
    "volume_error": "Volume error",
    "volume_error_absolute": "Absolute volume error",
    "volume_error_relative": "Relative volume error",
    "volume_fp": "Added volume",
    "volume_fn": "Missed volume",
    "lesions_tp": "Lesions found",
    "lesions_fp": "False lesions",
    "lesions_fn": "Missed lesions",
    "lesion_f1": "Lesion F1",
    "lesionwise_dice_brats2023": "Lesion-wise Dice, BraTS 2023",
    "lesionwise_hd95_brats2023": "Lesion-wise HD95, BraTS 2023",
    "panoptic_quality": "Panoptic quality",
    "rand_f": "Rand F",
    "rand_split": "Rand, split",
    "rand_merge": "Rand, merge",
    "information_f": "Information F",
    "information_split": "Information, split",
    "information_merge": "Information, merge",
    "ece": "Calibration error (ECE)",
    "brier": "Brier score",
    "weighted_dice": "Weighted Dice",
    "cost": "Cost",
    "dice_below_0.7": "cases below Dice 0.7",
    "missed": "missed cases",
}
MINUS = "\u2212"
SIGNS = {"cm2": "cm²", "pixel": "pixels"}
NOTHING = "\u2013"  # an en dash


def metric_name(metric: str, unit: str = "mm") -> str:
    """The name of a metric for readers: `NSD 2 mm` for nsd_2mm; the tolerance is in the unit of length."""
    if metric.startswith("nsd_"):
        return f"NSD {metric.removeprefix('nsd_').removesuffix('mm')} {unit_sign(unit)}"
    return NAMES.get(metric, metric.replace("_", " "))


def unit_sign(unit: str) -> str:
    """A unit for readers: cm² for cm2, and in the plural."""
    return SIGNS.get(unit, unit)


def explain_nsd(unit: str) -> str:
    """What the NSD at a tolerance of 2 of this unit measures."""
    return (
        f"NSD 2 {unit_sign(unit)} is the share of the boundaries that lie within 2 {unit_sign(unit)} of each other."
        " Where voxels are larger than half of that, it measures the grid rather than the outlines."
    )


def size_word(unit: str) -> str:
    """`volume`, or `area` where the masks are 2D."""
    return "area" if unit in ("cm2", "pixel") else "volume"


def format_share(value: Any, places: int = 2) -> str:
    """A number between 0 and 1, never rounded up to a perfect 1 or down to a plain 0."""
    value = _number(value)
    if value is None:
        return NOTHING
    least = 10.0**-places
    if 0 < value < least / 2:
        return f"<{least:.{places}f}"
    if 1 - least / 2 <= value < 1:
        return f">{1 - least:.{places}f}"
    return f"{value:.{places}f}"


def format_share3(value: Any) -> str:
    """The same with three places, for tables."""
    return format_share(value, 3)


def format_amount(value: Any, signed: bool = False) -> str:
    """A length, area or volume: about three digits, ∞ for inf."""
    value = _number(value)
    if value is None:
        return NOTHING
    plus = "+" if signed and value > 0 else MINUS if value < 0 else ""
    size = abs(value)
    if math.isinf(size):
        return f"{plus}∞"
    places = 0 if size >= 100 or size == 0 else 1 if size >= 1 else 2 if size >= 0.1 else 3
    return f"{plus}{size:,.{places}f}".replace(",", "\u202f")


def format_signed(value: Any) -> str:
    """The same with a plus where it is above 0."""
    return format_amount(value, signed=True)


def format_change(value: Any) -> str:
    """A difference of two numbers between 0 and 1, with its sign."""
    value = _number(value)
    if value is None:
        return NOTHING
    written = f"{value:+.3f}"
    return written[1:] if float(written) == 0 else written.replace("-", MINUS)


def format_range(pair: Sequence[Any] | None, write: Any = format_share) -> str:
    """An interval or the quartiles as "0.71 to 0.82"."""
    return NOTHING if pair is None else f"{write(pair[0])} to {write(pair[1])}"


def format_p(value: float) -> str:
    """A p value with two or three decimals, at least `<0.001`."""
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def plural(number: int, noun: str, plural: str = "") -> str:
    """`1 case`, `3 cases`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def join_words(items: Sequence[str], most: int | None = 8) -> str:
    """`A, B and C`; the rest as a number where there are more than `most`."""
    items = list(items)
    if most and len(items) > most:
        items = [*items[: most - 1], f"{len(items) - most + 1} more"]
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def format_whole(value: Any) -> str:
    """A count from a table of floats."""
    value = _number(value)
    return NOTHING if value is None else f"{value:.0f}"


def _number(value: Any) -> float | None:
    value = None if value is None else float(value)
    return None if value is None or math.isnan(value) else value
