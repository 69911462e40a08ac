"""How are numbers and findings said? One way of writing a number, wherever it stands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

NAMES = {  # what a reader calls the metrics
    "dice": "Dice",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "hd95": "HD95",
    "hd100": "Hausdorff",
    "assd": "ASSD",
    "lesion_f1": "Lesion F1",
    "panoptic_quality": "Panoptic quality",
    "ece": "Calibration error (ECE)",
    "brier": "Brier score",
}
SIGNS = {"cm2": "cm²"}
NOTHING = "–"


def name(metric: str, unit: str = "mm") -> str:
    """What a reader calls a metric: `NSD 2 mm` for nsd_2mm; the tolerance is in the unit of length."""
    if metric.startswith("nsd_"):
        return f"NSD {metric.removeprefix('nsd_').removesuffix('mm')} {unit}"
    return NAMES.get(metric, metric.replace("_", " "))


def sign(unit: str) -> str:
    """A unit as it is written: cm² for cm2."""
    return SIGNS.get(unit, unit)


def share(value: Any, places: int = 2) -> str:
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


def amount(value: Any, signed: bool = False) -> str:
    """A length, area or volume: about three digits, ∞ for inf."""
    value = _number(value)
    if value is None:
        return NOTHING
    plus = "+" if signed and value > 0 else "−" if value < 0 else ""
    size = abs(value)
    if math.isinf(size):
        return f"{plus}∞"
    places = 0 if size >= 100 or size == 0 else 1 if size >= 1 else 2 if size >= 0.1 else 3
    return f"{plus}{size:,.{places}f}".replace(",", "\u202f")


def change(value: Any) -> str:
    """A difference of two numbers between 0 and 1, with its sign."""
    value = _number(value)
    return NOTHING if value is None else f"{value:+.3f}".replace("-", "−")


def between(pair: Sequence[Any] | None, write: Any = share) -> str:
    """An interval or the quartiles as "0.71 to 0.82"."""
    return NOTHING if pair is None else f"{write(pair[0])} to {write(pair[1])}"


def p_value(value: float) -> str:
    """A p value with as many digits as it deserves."""
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 case`, `3 cases`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(items: Sequence[str], most: int = 8) -> str:
    """`A, B and C`; the rest as a number where there are many."""
    items = list(items)
    if len(items) > most:
        items = [*items[: most - 1], f"{len(items) - most + 1} more"]
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _number(value: Any) -> float | None:
    value = None if value is None else float(value)
    return None if value is None or math.isnan(value) else value
