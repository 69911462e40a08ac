"""The follow-up of one patient: time points are added in order and registered to the first; what follow.json holds."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from bundle.dicom.channels import channel_kind
from bundle.drawing.slices import intensity_window
from bundle.followup.alignment import SAME_BRAIN, Alignment, Anatomy, align, find_anatomy
from bundle.followup.changes import MEASURABLE_MM, PRE, SOURCE, THRESHOLDS, Course, is_cavity, measure_changes
from bundle.followup.lesions import (
    REACH_MM,
    UNCERTAIN_ML,
    RegionLesions,
    find_region_lesions,
    sum_products,
    track_lesions,
)
from bundle.followup.repeats import summarise_repeats
from bundle.raw.volumes import resample, to_itk, to_voxels
from bundle.reporting.words import plural
from scripts.data.check_results import OK
from scripts.data.images import GridImage, voxel_size
from scripts.data.scan_checks import SKULL
from scripts.errors import InputError
from scripts.scoring.case import region_mask
from scripts.scoring.measures import DEFINITIONS, RightFrontTop, turn_to_patient

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


class TimeView(NamedTuple):
    """A time point that is compared.

    Attributes:
        day: since the first.
        answer: the content of its answer.json.
        alignment: None for the first.
        lesions: by region.
        labels: on the grid of the first compared time point, [H, W, D], turned to the patient.
        shown: channels there, 0 to 255.
    """

    day: int
    answer: Mapping[str, Any]
    alignment: Alignment | None
    lesions: dict[str, RegionLesions]
    labels: np.ndarray
    shown: dict[str, np.ndarray]


class FollowUp:
    """The time points of a patient, compared.

    Args:
        settings: of the network: `channels`, `labels`, `regions`.
        course: operations and baseline.
        identify: show scans that have more than the brain.
        same_patient: note a time point that does not seem to show the same brain, in place of refusing it.
    """

    def __init__(
        self, settings: Mapping[str, Any], course: Course, identify: bool = False, same_patient: bool = False
    ) -> None:
        self.settings, self.course, self.drawn = settings, course, True
        self.identify, self.least = identify, 0.0 if same_patient else SAME_BRAIN
        self.views: list[TimeView] = []
        self.refused: dict[int, tuple[str, Mapping[str, Any]]] = {}
        kinds = {channel_kind(name): name for name in reversed(settings["channels"])}
        self.reference = kinds.get("T1c") or kinds.get("T1") or settings["channels"][0]
        self.channels = list(dict.fromkeys([kinds.get("FLAIR", self.reference), self.reference]))
        self.regions = settings["regions"]
        self.cavities = [name for name, values in self.regions.items() if is_cavity(values, settings["labels"])]
        self.repeats: list[dict[str, tuple[float, float]]] = []
        self.first: Anatomy | None = None
        self.grid: RightFrontTop | None = None  # of the first compared time point

    def add(self, day: int, answer: Mapping[str, Any], channels: Mapping[str, np.ndarray], mask: GridImage) -> None:
        """Add a time point that was segmented; one that does not fit on the first is refused.

        Args:
            day: since the first.
            answer: the content of its answer.json.
            channels: name to voxels [H, W, D].
            mask: the label map on the same grid.
        """
        affine = np.eye(4) if mask.affine is None else mask.affine
        anatomy = find_anatomy(channels, affine, self.reference)
        alignment, to_first = None, np.eye(4)
        if self.first is not None:
            try:
                alignment = align(self.first, anatomy, (f"day {self.views[0].day}", f"day {day}"), self.least)
            except InputError as error:
                self.refuse(day, str(error), answer)
                return
            to_first = alignment.to_first
        turned, regions = turn_to_patient(mask.voxels, affine), {}
        for name, values in self.regions.items():
            measures = [lesion for lesion in answer["lesions"] if lesion["region"] == name]
            own = region_mask(turned.voxels, values)
            regions[name] = find_region_lesions(own, turned.affine, measures, to_first)
        self.first = self.first or anatomy
        stripped = any(check["name"] == SKULL and check["status"] == OK for check in answer["checks"])
        self.drawn = self.drawn and (stripped or self.identify)
        if self.grid is None:
            self.grid = turned
        labels = self._on_first(GridImage(mask.voxels.astype(np.uint8), affine), alignment)
        shown = {
            name: _as_grey(self._on_first(GridImage(channels[name].astype(np.float32), affine), alignment))
            for name in self.channels
        }
        self.views.append(TimeView(day, answer, alignment, regions, labels, shown))

    def refuse(self, day: int, reason: str, answer: Mapping[str, Any]) -> None:
        """Leave a time point out, with the reason."""
        self.refused[day] = (reason, answer)

    def repeat(self, mask: GridImage) -> None:
        """Add the mask of a repetition of the time point that was added last (`bundle.followup.repeats`)."""
        again = {name: np.count_nonzero(region_mask(mask.voxels, own)) for name, own in self.regions.items()}
        ml, volumes = voxel_size(mask.spacing(3)) / 1000, self.views[-1].answer["regions"]
        self.repeats.append({name: (volumes[name]["volume_ml"], count * ml) for name, count in again.items()})

    def _on_first(self, image: GridImage, alignment: Alignment | None) -> np.ndarray:
        """A scan or mask on the grid of the first time point."""
        assert self.grid is not None
        grid = to_itk(GridImage(self.grid.voxels.astype(np.uint8), self.grid.affine))
        return to_voxels(resample(to_itk(image), grid, alignment.registration.transform if alignment else None))

    def describe(self, network: Mapping[str, Any]) -> dict[str, Any]:
        """The content of follow.json.

        Raises:
            InputError: fewer than two time points can be compared, or the baseline is not one of them.
        """
        days = [view.day for view in self.views]
        if len(days) < 2:
            day, (reason, _) = min(self.refused.items())
            count = len(days) + len(self.refused)
            raise InputError(
                f"{len(days)} of {count} time points can be compared, and two are needed; day {day}: {reason}"
            )
        if self.course.baseline is not None and self.course.baseline not in days:
            raise InputError(
                f"--baseline day {self.course.baseline} is not compared: {self.refused[self.course.baseline][0]}"
            )
        lesions = [
            lesion
            for name in self.regions
            for lesion in track_lesions(name, [view.lesions[name] for view in self.views], days)
        ]
        points = self._describe_points(days)
        return {
            "follow_version": FOLLOW_VERSION,
            "statement": NO_DIAGNOSIS,
            "network": dict(network),
            "registered_by": self.reference,
            "regions": {
                name: {"labels": [*values], "cavity": name in self.cavities} for name, values in self.regions.items()
            },
            "operations": None if self.course.operations is None else [*self.course.operations],
            "time_points": points,
            "lesions": lesions,
            "repeats": summarise_repeats(self.repeats) or None,
            "notes": self._notes(days),
            "thresholds": {"source": SOURCE, "listed": [threshold.describe() for threshold in THRESHOLDS]},
            "definitions": {name: DEFINITIONS[name] for name in ("volume_ml", "lesion", "diameter_mm")} | FURTHER,
        }

    def _describe_points(self, days: list[int]) -> list[dict[str, Any]]:
        sizes = {name: [_measure_region(view, name) for view in self.views] for name in self.regions}
        changes = {
            name: measure_changes(self.course, days, own) if name not in self.cavities else [{}] * len(days)
            for name, own in sizes.items()
        }
        points = []
        for day in sorted([*days, *self.refused]):
            place = days.index(day) if day in days else None
            reason, answer = (None, self.views[place].answer) if place is not None else self.refused[day]
            point = {
                "day": day,
                "state": self.course.state(day),
                "compared": place is not None,
                "reason": reason,
                "verdict": answer["verdict"],
                "warnings": answer["warnings"],
                "answer": f"{answer['case']}/answer.html",
                "registration": _describe_alignment(self.views[place].alignment) if place is not None else None,
                "regions": {},
            }
            if place is not None:
                point["regions"] = {name: {**sizes[name][place], **changes[name][place]} for name in self.regions}
            points.append(point)
        return points

    def _notes(self, days: list[int]) -> list[str]:
        """What the reader must know, in sentences."""
        notes = []
        if self.course.operations is None:
            notes.append(
                "Whether there was an operation is not stated (--operation): if there was one between two time points,"
                " their difference is its effect."
            )
        for one, other in pairwise(days):
            if self.course.interval(one) != self.course.interval(other):
                notes.append(
                    f"There was an operation between day {one} and day {other}: no change and no threshold is given"
                    f" across it, and day {other} is the first that later ones are compared with."
                )
        for view in self.views:
            cavity = sum(view.answer["regions"][name]["volume_ml"] for name in self.cavities)
            if view.alignment and view.alignment.peak < SAME_BRAIN:
                notes.append(
                    f"Day {view.day} does not seem to show the same brain (peak of the phase correlation"
                    f" {view.alignment.peak:.2f}, below {SAME_BRAIN:.2f}); --same_patient says that it does."
                )
            if cavity and self.course.state(view.day) == PRE:
                notes.append(
                    f"Day {view.day} is stated as pre-operative, but its mask has a cavity of {cavity:.1f} ml."
                )
            elif cavity and self.course.operations is None:
                notes.append(f"The mask of day {view.day} has a resection cavity of {cavity:.1f} ml.")
        for day, (reason, _) in sorted(self.refused.items()):
            notes.append(f"Day {day} is not compared: {reason}")
        return [*notes, _describe_repeats(summarise_repeats(self.repeats))]


def _describe_repeats(found: Mapping[str, Any]) -> str:
    parts = [
        f"{name} {own['smallest_change_percent']:.0f} % ({plural(own['pairs'], 'pair')})"
        for name, own in found.items()
        if own["pairs"]
    ]
    if not parts:
        return NOT_MEASURED
    return (
        "Each time point was segmented again, turned and shifted. A change of volume must be larger than this not to be"
        f" explained by it (95 %): {', '.join(parts)}. Another scanner or day adds to it."
    )


def _as_grey(voxels: np.ndarray) -> np.ndarray:
    low, high = intensity_window(voxels)
    return np.rint(np.clip((voxels - low) / (high - low), 0, 1) * 255).astype(np.uint8)


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
