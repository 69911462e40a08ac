"""Metrics of your own: a function in a file of yours, found by its name `module.function`, scored like the others.

# my_metrics.py
from scripts.scoring.added_metrics import define_metric

@define_metric("1 - |FN - FP| / (2 TP + FP + FN), in voxels", absent=1, one_empty=0)
def volumetric_similarity(truth, prediction, spacing):
    return 1 - abs(int(truth.sum()) - int(prediction.sum())) / (truth.sum() + prediction.sum())
"""

import hashlib
import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scripts.errors import InputError
from scripts.scoring import metrics

MetricFunction = Callable[[np.ndarray, np.ndarray, Sequence[float]], float]
ATTRIBUTE = "metric_definition"


class AddedMetric(NamedTuple):
    """A metric from a user's file: its name in `cases.csv`, its definition, and the function that computes it."""

    name: str
    definition: metrics.Metric
    compute: MetricFunction

    def measure(self, truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float]) -> float:
        """The value for two masks; the definition decides where one or both are empty.

        Raises:
            InputError: the function returned something else than a number.
        """
        if empty := metrics.empty_note(truth, prediction):
            definition = self.definition
            return float("nan" if (value := definition[2 if empty == "absent" else 3]) is None else value)
        value = self.compute(truth, prediction, spacing)
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"metric {self.name} returned {value!r}: expected a number.") from error


def define_metric(
    meaning: str, *, absent: float, one_empty: float, unit: str = ""
) -> Callable[[MetricFunction], MetricFunction]:
    """Mark a function (truth, prediction, spacing) as a metric of one region of one case.

    It gets boolean masks [H, W, D] or [H, W], neither of them empty, and the size of a voxel along each axis in mm (1
    where the unit is pixel), and returns a number.

    Args:
        meaning: the formula in words, for the report.
        absent: the value where both masks are empty.
        one_empty: the value where one is. A case that could not be scored has no value, and n is smaller by it.
        unit: printed with the value, such as mm.
    """

    def mark(function: MetricFunction) -> MetricFunction:
        setattr(function, ATTRIBUTE, metrics.Metric(unit, meaning, absent, one_empty))
        return function

    return mark


def find_metrics(names: Sequence[str]) -> list[AddedMetric]:
    """The metrics of these names, `module.function`, imported from the working directory or Python's path.

    Raises:
        InputError: a name cannot be imported, is not marked by `define_metric`, or is that of another metric.
    """
    found: dict[str, AddedMetric] = {}
    for name in names:
        module, _, function = str(name).rpartition(".")
        try:
            call = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(
                f"metric {name} cannot be imported ({error}): expected module.function, of a file in the folder that"
                " the command is started in."
            ) from error
        definition = getattr(call, ATTRIBUTE, None)
        if definition is None:
            raise InputError(
                f"metric {name} is not marked: put @define_metric(meaning, absent=..., one_empty=...) of"
                " scripts.scoring.added_metrics above it."
            )
        if function in metrics.METRICS or function in found:
            raise InputError(f"metric {name}: there is a metric '{function}' already; give it another name.")
        found[function] = AddedMetric(function, definition, call)
    return list(found.values())


def hash_metrics(names: Sequence[str]) -> str:
    """A hash of the files that define these metrics, so that scores of an earlier definition are not used again."""
    files = {inspect.getsourcefile(metric.compute) or "" for metric in find_metrics(names)}
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in sorted(files))).hexdigest()
