"""What dropping components by a rule does to the scores of one case."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from scripts.data import datalist as lists
from scripts.data.decision import RegionDecision, output_channels
from scripts.data.images import bounding_box, clear_ignored, grid_difference, read_labels, voxel_size
from scripts.errors import InputError
from scripts.inference.small_components import find_components, label_around
from scripts.network.weights import read_settings
from scripts.scoring.case import read_probability, region_mask
from scripts.scoring.metrics import measure_region
from scripts.scoring.prediction_files import images_in, match_predictions

DICE, LESIONWISE = "dice", "lesionwise_dice_brats2023"
MARGIN = 4  # voxels around the tumour, for the dilations of the lesion-wise rule

Minima = tuple[float, float]  # ml and mean probability; 0 does not count


class Scheme(NamedTuple):
    """What the labels of masks mean."""

    regions: Mapping[str, Sequence[int]]
    labels: Mapping[str, int]
    labels_out: Mapping[str, int]
    fill: int
    unit: str  # mm or pixels
    decision: str
    known: Sequence[int]  # every value of a label map but 0
    ignore: int | None  # of voxels that do not count

    def inner_first(self) -> list[str]:
        """The regions, those within others first."""
        return sorted(self.regions, key=lambda name: len(self.regions[name]))

    def within(self, region: str) -> list[str]:
        """The region and those inside it, which are all that dropping from it changes."""
        return [name for name, values in self.regions.items() if {*values} <= {*self.regions[region]}]


def read_scheme(run: Path, content: Mapping[str, Any]) -> Scheme:
    """The scheme of a run's masks and of the labels in the content of a data list."""
    own = read_settings(run)
    painted, fill, decision = own.get("labels_out") or {}, own.get("labels_fill", 0), own.get("decision", "regions")
    return Scheme(
        content["regions"],
        content["labels"],
        painted,
        fill,
        content.get("unit", "mm"),
        decision,
        lists.known_labels(content),
        content.get("ignore"),
    )


class MaskFiles(NamedTuple):
    """The files of a case."""

    case: str
    patient: str
    label: str
    mask: str
    probability: str | None


class Trial(NamedTuple):
    """A rule in a case: by region the gain in Dice and in lesion-wise Dice, components dropped, regions lost."""

    gains: dict[str, tuple[float, float]]
    dropped: int
    lost: list[str]


def find_masks(folder: Path, content: Mapping[str, Any], dataset_dir: Path) -> list[MaskFiles]:
    """The cases of the list that have a mask in a folder, without test patients.

    Raises:
        InputError: the folder holds no masks, or two for one case.
    """
    entries = {
        entry["case"]: entry for entry in lists.select_cases(content, dataset_dir, "labelled") if "fold" in entry
    }
    masks = match_predictions(images_in(folder), entries)
    soft = {case: folder / "probabilities" / f"{case}.nii.gz" for case in masks}
    return [
        MaskFiles(
            case,
            entries[case]["patient"],
            entries[case]["label"],
            str(mask),
            str(soft[case]) if soft[case].is_file() else None,
        )
        for case, mask in sorted(masks.items())
    ]


class _Case:
    """A case in the box around its tumour."""

    def __init__(self, files: MaskFiles, scheme: Scheme) -> None:
        self.scheme = scheme
        truth, mask = (read_labels(path, scheme.known) for path in (files.label, files.mask))
        if difference := grid_difference(truth, mask):
            raise InputError(f"{files.mask} has {difference}: give masks on the grid of the labels.")
        truth, mask = clear_ignored(truth, mask, scheme.ignore, scheme.fill)
        axes = mask.voxels.ndim
        self.spacing = (1.0,) * axes if scheme.unit != "mm" else truth.spacing(axes)
        self.ml = voxel_size(self.spacing) / 1000
        here = bounding_box((truth.voxels != scheme.fill) | (mask.voxels != scheme.fill), margin=[MARGIN] * axes)
        self.truth, self.mask = truth.voxels[here], mask.voxels[here]
        self.probabilities: dict[str, np.ndarray] = {}
        if files.probability:
            outputs = output_channels(scheme.decision, scheme.regions, scheme.labels)
            maps = torch.tensor(read_probability(files.probability, (len(outputs), *mask.voxels.shape)))
            decide = RegionDecision(scheme.decision, scheme.regions, scheme.labels)
            several = decide.region_probabilities(maps[(slice(None), *here)]).numpy()
            self.probabilities = dict(zip(scheme.regions, several, strict=True))
        self.before: dict[str, tuple[float, float]] = {}

    def drop(self, mask: np.ndarray, region: str) -> tuple[Callable[[Minima], np.ndarray], Callable]:
        """For minima which components go, and for these the mask without them."""
        scheme = self.scheme
        found = find_components(mask, region, scheme.regions, self.ml, self.probabilities.get(region))
        around = label_around(region, scheme.regions, scheme.labels_out, scheme.fill)
        return (lambda minima: found.find_dropped(*minima), lambda gone: np.where(found.voxels_of(gone), around, mask))

    def compare(self, mask: np.ndarray, regions: Sequence[str], dropped: int) -> Trial:
        """What another mask changes."""
        gains, lost = {}, []
        for region in regions:
            if region not in self.before:
                self.before[region] = self._score(self.mask, region)
            after, values = self._score(mask, region), self.scheme.regions[region]
            gains[region] = after[0] - self.before[region][0], after[1] - self.before[region][1]
            lost += [region] if region_mask(self.mask, values).any() > region_mask(mask, values).any() else []
        return Trial(gains, dropped, lost)

    def _score(self, mask: np.ndarray, region: str) -> tuple[float, float]:
        true, predicted = (region_mask(labels, self.scheme.regions[region]) for labels in (self.truth, mask))
        wanted = (DICE, LESIONWISE) if mask.ndim == 3 else (DICE,)  # the rule is one for volumes
        found = measure_region(true, predicted, self.spacing, wanted=wanted)
        return found[DICE], found.get(LESIONWISE, 0.0)


def try_rules(files: MaskFiles, scheme: Scheme, candidates: Sequence[Minima]) -> dict[tuple[str, Minima], Trial]:
    """The trial of each candidate in each region alone, where it drops something.

    Raises:
        InputError: a file is damaged, or the mask is on another grid than the label.
    """
    case, found = _Case(files, scheme), {}
    for region in scheme.regions:
        choose, without = case.drop(case.mask, region)
        known: dict[bytes, Trial] = {}  # many candidates drop the same
        for minima in candidates:
            gone = choose(minima)
            if not gone.any():
                continue
            if (key := gone.tobytes()) not in known:
                known[key] = case.compare(without(gone), scheme.within(region), int(gone.sum()))
            found[region, minima] = known[key]
    return found


def apply_rules(files: MaskFiles, scheme: Scheme, rules: Mapping[str, Minima]) -> Trial:
    """The trial of the rules of several regions together, inner ones first."""
    case = _Case(files, scheme)
    mask, dropped = case.mask, 0
    for region in scheme.inner_first():
        if region in rules:
            choose, without = case.drop(mask, region)
            gone = choose(rules[region])
            mask, dropped = without(gone), dropped + int(gone.sum())
    return case.compare(mask, list(scheme.regions), dropped) if dropped else Trial({}, 0, [])
