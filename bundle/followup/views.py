"""The time points of one patient: added in order, each registered to the first that can be compared."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bundle.dicom.channels import channel_kind
from bundle.drawing.slices import intensity_window
from bundle.followup.alignment import SAME_BRAIN, Alignment, Anatomy, align, find_anatomy
from bundle.followup.changes import Course, is_cavity
from bundle.followup.lesions import RegionLesions, find_region_lesions
from bundle.raw.volumes import resample, to_itk, to_voxels
from scripts.data.check_results import OK
from scripts.data.images import GridImage, voxel_size
from scripts.data.scan_checks import SKULL
from scripts.errors import InputError
from scripts.scoring.case import region_mask
from scripts.scoring.measures import RightFrontTop, turn_to_patient


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


def _as_grey(voxels: np.ndarray) -> np.ndarray:
    low, high = intensity_window(voxels)
    return np.rint(np.clip((voxels - low) / (high - low), 0, 1) * 255).astype(np.uint8)
