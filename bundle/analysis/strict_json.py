"""Values that strict JSON can hold: an infinite number is the text "inf" or "-inf", an unknown one null."""

import math
from collections.abc import Sequence
from typing import Any


def to_strict_json(value: Any) -> Any:
    """The same with what JSON has no number for written as text (inf) or null (NaN)."""
    if isinstance(value, dict):
        return {str(key): to_strict_json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_strict_json(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else str(value) if math.isinf(value) else value
    return value
