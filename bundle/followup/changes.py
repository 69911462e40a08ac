"""Changes of a region over time: operations, the baseline, the smallest so far, and the size thresholds that are met.

A response category is never given: it needs steroids, the clinical status, new lesions and confirmation as well.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scripts.errors import InputError

SOURCE = "RANO 2.0: Wen et al., J Clin Oncol 41:5187, 2023, doi 10.1200/JCO.23.01059"
MEASURABLE_MM = 10.0  # both diameters of a lesion, at least
CAVITIES = {"rc", "cavity", "resection cavity", "resection_cavity"}  # names of labels, in lower case
PRE, POST, NOT_STATED = "pre-operative", "post-operative", "not stated"


class Threshold(NamedTuple):
    """A size threshold: a change of a measure in percent, since the baseline or since the smallest so far (nadir)."""

    name: str
    measure: str
    since: str
    percent: float

    def is_met(self, change: float) -> bool:
        """Whether a change in percent reaches it."""
        return change <= self.percent if self.percent < 0 else change >= self.percent

    def describe(self) -> str:
        """The threshold in words."""
        way, since = ("decrease", "the baseline") if self.percent < 0 else ("increase", "the smallest so far")
        return f"{self.name}: at least {abs(self.percent):.0f} % {way} from {since}"


THRESHOLDS = (
    Threshold("PR by volume", "volume_ml", "baseline", -65.0),
    Threshold("PD by volume", "volume_ml", "nadir", 40.0),
    Threshold("PR by sum of products", "product_mm2", "baseline", -50.0),
    Threshold("PD by sum of products", "product_mm2", "nadir", 25.0),
)


class Course(NamedTuple):
    """What is stated of a patient's course, in days since the first time point.

    Attributes:
        operations: None where nothing is stated; empty where there was none.
        baseline: the day of the time point that others are compared with; None: the first after each operation.
    """

    operations: tuple[int, ...] | None = None
    baseline: int | None = None

    def state(self, day: int) -> str:
        """Whether a time point is before or after an operation."""
        if self.operations is None:
            return NOT_STATED
        return POST if self.interval(day) else PRE

    def interval(self, day: int) -> int:
        """How many operations were before a day; only time points of one interval are compared."""
        return sum(operation < day for operation in self.operations or ())

    def require(self, days: Sequence[int]) -> None:
        """Raise `InputError` unless operations are between time points and the baseline is one of them."""
        if both := sorted({*(self.operations or ())} & {*days}):
            raise InputError(
                f"--operation and a time point are both on day {both[0]}: was the scan before it, or after? Give the"
                " operation the next day, or the day before."
            )
        if self.baseline is not None and self.baseline not in days:
            known = ", ".join(map(str, days))
            raise InputError(f"--baseline is day {self.baseline}, which is no time point: expected one of {known}.")


def is_cavity(labels: Sequence[int], names: Mapping[str, int]) -> bool:
    """Whether a region is a resection cavity, by the names of its labels."""
    cavities = {value for name, value in names.items() if name.lower() in CAVITIES}
    return bool(labels) and {*labels} <= cavities


def measure_changes(course: Course, days: Sequence[int], sizes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The changes of one region at each time point, in the order of `days`.

    Args:
        course: operations and baseline.
        days: of the time points that are compared.
        sizes: of the region, with `volume_ml`, `product_mm2` and `measurable` (a lesion with both diameters of at least
            10 mm).

    Returns:
        by time point: `baseline_day`, `nadir_day` by measure, the changes in percent since both by measure, and the
        `thresholds` that they meet. A baseline has no changes, and there are none across an operation. A change from
        nothing has no percentage (None), and meets every threshold of an increase.
    """
    made = []
    for place, day in enumerate(days):
        earlier = [k for k in range(place) if _comparable(course, days[k], day)]
        if not earlier:
            made.append({"baseline_day": None, "changes": {}, "thresholds": []})
            continue
        first, changes, met = earlier[0], dict[str, Any](), list[dict[str, Any]]()
        for measure in ("volume_ml", "product_mm2"):
            smallest = min(earlier, key=lambda k, name=measure: sizes[k][name])
            since = {"baseline": first, "nadir": smallest}
            exact = {name: _percent(sizes[k][measure], sizes[place][measure]) for name, k in since.items()}
            rounded = {
                name: None if change is None or math.isinf(change) else round(change, 1)
                for name, change in exact.items()
            }
            changes[measure] = {**rounded, "nadir_day": days[smallest]}
            for threshold in (one for one in THRESHOLDS if one.measure == measure):
                change = exact[threshold.since]
                counted = place if threshold.percent > 0 else first
                if change is not None and sizes[counted]["measurable"] and threshold.is_met(change):
                    since_day = days[since[threshold.since]]
                    stated = rounded[threshold.since]
                    met.append({"name": threshold.describe(), "change_percent": stated, "since_day": since_day})
        made.append({"baseline_day": days[first], "changes": changes, "thresholds": met})
    return made


def _comparable(course: Course, earlier: int, day: int) -> bool:
    """Whether a time point may be compared with an earlier one: not across an operation, nor before the baseline."""
    same = course.interval(earlier) == course.interval(day)
    chosen = course.baseline is not None and course.interval(course.baseline) == course.interval(day)
    return same and not (chosen and earlier < course.baseline)


def _percent(before: float, after: float) -> float | None:
    """The change in percent: infinite from nothing to something, None from nothing to nothing."""
    if before > 0:
        return round(100 * (after / before - 1), 6)  # 10 to 14 ml are 40 %, and not a rounding error less
    return math.inf if after > 0 else None
