"""What follow.json holds: time points with sizes and changes, lesions over time, and what the reader must know."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from bundle.followup.alignment import SAME_BRAIN, Alignment
from bundle.followup.changes import MEASURABLE_MM, PRE, SOURCE, THRESHOLDS, measure_changes
from bundle.followup.lesions import REACH_MM, UNCERTAIN_ML, sum_products, track_lesions
from bundle.followup.repeats import summarise_repeats
from bundle.followup.views import FollowUp, TimeView
from bundle.reporting.words import plural
from scripts.errors import InputError
from scripts.scoring.measures import DEFINITIONS

FOLLOW_VERSION = 1  # raised when a reader of earlier files would misread one
NO_DIAGNOSIS = (
    "This is not a diagnosis and no response category: a category also needs steroids, clinical status, new lesions and"
    " confirmation by a later scan, which masks do not show. For research."
)
NOT_MEASURED = (
    "How far repeated measurements of one tumour differ was not measured (--repeat): small changes may be no more than"
    " that."
)
FURTHER = {
    "volumes and diameters": "measured at each time point on its own grid; registration serves to find the same lesion",
    "lesion over time": f"lesions of two time points are one where, after registration, voxels of both are at most"
    f" {REACH_MM:g} mm apart (or the longest side of a voxel, if that is more), directly or through others",
    "new, gone": f"of at least {UNCERTAIN_ML} ml, and inside the field of view of the other scans; else uncertain",
    "product_mm2": "longest diameter times the perpendicular one; of a region the sum over all its lesions, where the"
    " criteria take some of them as targets. Diameters in axial slices depend on how the head lies, volumes do not",
    "measurable": f"a lesion with both diameters of at least {MEASURABLE_MM:g} mm; without one no threshold is given",
    "same brain": "the highest peak of the phase correlation of a channel with the first time point, after"
    f" registration, 1 for equal scans; a time point below {SAME_BRAIN} is not compared",
}


def describe_follow_up(follow: FollowUp, network: Mapping[str, Any]) -> dict[str, Any]:
    """The content of follow.json.

    Args:
        follow: the time points.
        network: that made the masks (`bundle.packaging.provenance`).

    Raises:
        InputError: fewer than two time points can be compared, or the baseline is not one of them.
    """
    days = [view.day for view in follow.views]
    if len(days) < 2:
        day, (reason, _) = min(follow.refused.items())
        count = len(days) + len(follow.refused)
        raise InputError(f"{len(days)} of {count} time points can be compared, and two are needed; day {day}: {reason}")
    if follow.course.baseline is not None and follow.course.baseline not in days:
        raise InputError(
            f"--baseline day {follow.course.baseline} is not compared: {follow.refused[follow.course.baseline][0]}"
        )
    lesions = [
        lesion
        for name in follow.regions
        for lesion in track_lesions(name, [view.lesions[name] for view in follow.views], days)
    ]
    points = _describe_points(follow, days)
    return {
        "follow_version": FOLLOW_VERSION,
        "statement": NO_DIAGNOSIS,
        "network": dict(network),
        "registered_by": follow.reference,
        "regions": {
            name: {"labels": [*values], "cavity": name in follow.cavities} for name, values in follow.regions.items()
        },
        "operations": None if follow.course.operations is None else [*follow.course.operations],
        "time_points": points,
        "lesions": lesions,
        "repeats": summarise_repeats(follow.repeats) or None,
        "notes": _list_notes(follow, days),
        "thresholds": {"source": SOURCE, "listed": [threshold.describe() for threshold in THRESHOLDS]},
        "definitions": {name: DEFINITIONS[name] for name in ("volume_ml", "lesion", "diameter_mm")} | FURTHER,
    }


def _describe_points(follow: FollowUp, days: list[int]) -> list[dict[str, Any]]:
    sizes = {name: [_measure_region(view, name) for view in follow.views] for name in follow.regions}
    changes = {
        name: measure_changes(follow.course, days, own) if name not in follow.cavities else [{}] * len(days)
        for name, own in sizes.items()
    }
    points = []
    for day in sorted([*days, *follow.refused]):
        place = days.index(day) if day in days else None
        reason, answer = (None, follow.views[place].answer) if place is not None else follow.refused[day]
        point = {
            "day": day,
            "state": follow.course.state(day),
            "compared": place is not None,
            "reason": reason,
            "verdict": answer["verdict"],
            "warnings": answer["warnings"],
            "answer": f"{answer['case']}/answer.html",
            "registration": _describe_alignment(follow.views[place].alignment) if place is not None else None,
            "regions": {},
        }
        if place is not None:
            point["regions"] = {name: {**sizes[name][place], **changes[name][place]} for name in follow.regions}
        points.append(point)
    return points


def _list_notes(follow: FollowUp, days: list[int]) -> list[str]:
    """What the reader must know, in sentences."""
    notes = []
    if follow.course.operations is None:
        notes.append(
            "Whether there was an operation is not stated (--operation): if there was one between two time points,"
            " their difference is its effect."
        )
    for operation in follow.course.operations or ():
        if days and not days[0] < operation < days[-1]:
            where = "before the first" if operation < days[0] else "after the last"
            notes.append(f"The operation on day {operation} was {where} time point that is compared.")
    for one, other in pairwise(days):
        if follow.course.interval(one) != follow.course.interval(other):
            notes.append(
                f"There was an operation between day {one} and day {other}: no change and no threshold is given"
                f" across it, and day {other} is the first that later ones are compared with."
            )
    for view in follow.views:
        cavity = sum(view.answer["regions"][name]["volume_ml"] for name in follow.cavities)
        if view.alignment and view.alignment.peak < SAME_BRAIN:
            notes.append(
                f"Day {view.day} does not seem to show the same brain (peak of the phase correlation"
                f" {view.alignment.peak:.2f}, below {SAME_BRAIN:.2f}); --same_patient says that it does."
            )
        if cavity and follow.course.state(view.day) == PRE:
            notes.append(f"Day {view.day} is stated as pre-operative, but its mask has a cavity of {cavity:.1f} ml.")
        elif cavity and follow.course.operations is None:
            notes.append(f"The mask of day {view.day} has a resection cavity of {cavity:.1f} ml.")
    for day, (reason, _) in sorted(follow.refused.items()):
        notes.append(f"Day {day} is not compared: {reason}")
    return [*notes, _describe_repeats(summarise_repeats(follow.repeats))]


def _describe_repeats(found: Mapping[str, Any]) -> str:
    parts = [
        f"{name} not stated, since it appeared or vanished in {own['lost']} of {own['pairs'] + own['lost']}"
        if own["lost"]
        else f"{name} {own['smallest_increase_percent']:+.0f} or {own['smallest_decrease_percent']:+.0f} %"
        f" ({plural(own['pairs'], 'pair')})"
        for name, own in found.items()
        if own["pairs"] or own["lost"]
    ]
    if not parts:
        return NOT_MEASURED
    return (
        "Each time point was segmented again, turned and shifted. A change of volume must be larger than this not to be"
        f" explained by it (95 %): {', '.join(parts).replace('-', chr(0x2212))}. Another scanner or day adds to it."
    )


def _measure_region(view: TimeView, region: str) -> dict[str, Any]:
    own = view.lesions[region].measures
    longest = max(own, key=lambda lesion: lesion["diameter_mm"], default=None)
    return {
        "volume_ml": view.answer["regions"][region]["volume_ml"],
        "lesions": len(own),
        "diameter_mm": longest["diameter_mm"] if longest else 0.0,
        "perpendicular_mm": longest["perpendicular_mm"] if longest else 0.0,
        "product_mm2": sum_products(own),
        "measurable": any(min(one["diameter_mm"], one["perpendicular_mm"]) >= MEASURABLE_MM for one in own),
    }


def _describe_alignment(alignment: Alignment | None) -> dict[str, float] | None:
    if alignment is None:
        return None
    place = alignment.registration
    return {
        "moved_mm": round(place.moved_mm, 2),
        "turned_degrees": round(place.turned_degrees, 2),
        "head_overlap": round(place.overlap, 4),
        "same_brain": round(alignment.peak, 4),
    }
