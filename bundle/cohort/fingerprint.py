"""The fingerprint of a cohort: intensities, spacing, size, class frequencies, and slices by each normalisation."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, CropForegroundd, Spacingd

from scripts.data.artefact_removal import CorrectBiasFieldd, SmoothKeepingEdgesd
from scripts.data.datalist import entry_files
from scripts.data.intensity_statistics import compute_statistics, sample_cases, sample_voxels
from scripts.data.nifti import read_once
from scripts.data.normalization import Normalized
from scripts.progress import progress_bar

PERCENTILES = (1, 25, 50, 75, 99)
VOXELS = 50_000  # of a case, for percentiles and histograms
Choice = tuple[str, str]  # method and scope
Entry = dict[str, Any]  # of a data list
REMOVALS: dict[type, Choice] = {CorrectBiasFieldd: ("n4", ""), SmoothKeepingEdgesd: ("denoise", "")}
Statistics = Mapping[str, list[dict[str, Any]]]  # by method, for scope `dataset`


@dataclass
class CaseFingerprint:
    """The numbers of a case on the cohort's page."""

    case: str
    shape: tuple[int, ...]  # voxels by axis, in RAS
    spacing: tuple[float, ...]  # mm (or pixels) by axis
    percentiles: np.ndarray  # [C, 5], `PERCENTILES` of the voxels that are not 0; NaN for an empty channel
    commonest: np.ndarray  # [C, 2], the most frequent intensity that is not 0, and its share
    counts: dict[int, int]  # voxels of each label value
    voxels: int  # that are not 0 in some channel, or in some region
    has_label: bool  # some voxel is in a region


@dataclass
class ClassFrequency:
    """The frequency of a label or a region among the voxels that are not 0."""

    name: str
    share: float  # of these voxels
    to_one: float  # other voxels per voxel of the class
    cases: int  # with the class

    @property
    def imbalance(self) -> str:
        """As "1 : 213"."""
        if not self.share:
            return "never"
        return f"1 : {self.to_one:,.0f}" if self.to_one >= 10 else f"1 : {self.to_one:.1f}"


@dataclass
class NormalizedCase:
    """A case as the normalisation pages show it: by choice, then by channel.

    The first choice is None, as stored; then follow those of `REMOVALS` that the preprocessing has, in turn.
    """

    case: str
    spacing: tuple[float, ...]  # mm (or pixels) by axis
    pictures: dict[Choice | None, list[list[np.ndarray]]]  # the slices to show: axial, and coronal in 3D
    background: list[list[np.ndarray]]  # where these slices are 0 as stored
    voxels: dict[Choice | None, list[np.ndarray]]  # [N], of those that are not 0 as stored
    slices: list[tuple[int, int]]  # the number of each slice from below or behind, from 1, and of how many; none in 2D


def make_fingerprint(
    case: str, image: torch.Tensor, label: torch.Tensor, fill: int = 0, ignore: int | None = None
) -> CaseFingerprint:
    """The fingerprint of an image [C, ...] with metadata and its label [1, ...], `fill` outside all regions.

    Of several raters, [R, ...], the first one's label counts, and voxels to `ignore` count as outside.
    """
    seen = [channel[channel != 0] for channel in sample_voxels(image, VOXELS, seed=0).values]
    marked = label[0].numpy(force=True).round().astype(int)
    marked = marked if ignore is None else np.where(marked == ignore, fill, marked)
    values, counts = np.unique(marked, return_counts=True)
    nothing = np.full(len(PERCENTILES), np.nan)
    return CaseFingerprint(
        case=case,
        shape=tuple(image.shape[1:]),
        spacing=_spacing(image),
        percentiles=np.stack([np.percentile(channel, PERCENTILES) if channel.size else nothing for channel in seen]),
        commonest=np.stack([_commonest(channel) for channel in seen]),
        counts=dict(zip(values.tolist(), counts.tolist(), strict=True)),
        voxels=int(((image != 0).any(0).numpy(force=True) | (marked != fill)).sum()),
        has_label=bool((marked != fill).any()),
    )


def class_frequencies(records: Sequence[CaseFingerprint], classes: Mapping[str, Sequence[int]]) -> list[ClassFrequency]:
    """The frequency of each class, which is a set of label values, in the voxels of all records."""
    every = sum(record.voxels for record in records)
    frequencies = []
    for name, values in classes.items():
        counts = [sum(record.counts.get(value, 0) for value in values) for record in records]
        total = sum(counts)
        to_one = (every - total) / total if total else float("inf")
        frequencies.append(ClassFrequency(name, total / max(every, 1), to_one, sum(count > 0 for count in counts)))
    return frequencies


def normalize_case(
    case: str,
    images: Mapping[Choice | None, torch.Tensor],
    label: torch.Tensor,
    choices: Sequence[Choice],
    statistics: Statistics,
    fill: int = 0,
    limits: Mapping[str, Any] | None = None,
) -> NormalizedCase:
    """An image by each choice, in the slices with most of its label [1, ...].

    `images` are [C, ...]: as stored (None), and after each of `REMOVALS`; the last one is normalised. `fill` is the
    background, `limits` are the `percentiles` and the `hu_window` of `Normalized`.
    """
    *_, last = images.values()
    stored = images[None].as_tensor()
    marked = label[0].round() != fill
    places = [_fullest(marked, axis) for axis in ((2, 1) if marked.dim() == 3 else ())]
    chosen = [_some(channel) for channel in stored.flatten(1)]
    pictures, voxels = {}, {}
    for choice in [*images, *choices]:
        if choice in images:
            done = images[choice].as_tensor()
        else:
            normalized = Normalized("image", *choice, statistics=statistics.get(choice[0]), **(limits or {}))
            done = normalized({"image": last.as_tensor().clone()})["image"]
        pictures[choice] = [_slices(channel, places) for channel in done]
        voxels[choice] = [channel[index].numpy() for channel, index in zip(done.flatten(1), chosen, strict=True)]
    background = [_slices(channel == 0, places) for channel in stored]
    slices = [(place + 1, marked.shape[axis]) for place, axis in zip(places, (2, 1), strict=False)]
    return NormalizedCase(case, _spacing(last), pictures, background, voxels, slices)


def read_for_uses(*uses: tuple[Sequence[Entry], Callable[[Entry], Any]]) -> list[dict[str, Any]]:
    """Read each case once, two at a time, for several uses; the results of each use by case.

    Args:
        uses: entries of a data list, and what is to be made of each.
    """
    entries = {entry["case"]: entry for some, _ in uses for entry in some}
    wanted = [{entry["case"] for entry in some} for some, _ in uses]

    def read(case: str) -> list[Any]:
        with read_once(map(Path, entry_files(entries[case]))):
            return [use(entries[case]) if case in cases else None for cases, (_, use) in zip(wanted, uses, strict=True)]

    with ThreadPoolExecutor(max_workers=2) as pool:
        work = progress_bar(pool.map(read, entries), total=len(entries), desc="reading the cohort", unit="case")
        made = dict(zip(entries, work, strict=True))
    return [{case: made[case][number] for case in entries if case in cases} for number, cases in enumerate(wanted)]


def fingerprint_reader(before: Compose, fill: int = 0, ignore: int | None = None) -> Callable[[Entry], CaseFingerprint]:
    """What reads a case and makes its fingerprint as stored, before resampling and cropping.

    `before` is the preprocessing up to normalisation, `fill` the labels' background, `ignore` their value to ignore.
    """
    load = steps_as_stored(before)

    def read(entry: Entry) -> CaseFingerprint:
        loaded = load(dict(entry), threading=True)
        return make_fingerprint(entry["case"], loaded["image"], loaded["label"], fill, ignore)

    return read


def steps_as_stored(before: Compose) -> Compose:
    """The steps of preprocessing before resampling and cropping."""
    return Compose(list(takewhile(lambda step: not isinstance(step, Spacingd | CropForegroundd), before.transforms)))


def read_statistics(
    before: Compose, entries: Sequence[dict[str, Any]], choices: Sequence[Choice], percentiles: Sequence[float]
) -> Statistics:
    """The statistics of training cases, for each method with scope `dataset`."""
    methods = [method for method, scope in choices if scope == "dataset"]
    voxels = list(sample_cases(before, entries)) if methods else []
    return {method: compute_statistics(voxels, method, percentiles) for method in methods}


def example_reader(
    before: Compose,
    choices: Sequence[Choice],
    statistics: Statistics,
    fill: int = 0,
    limits: Mapping[str, Any] | None = None,
) -> Callable[[Entry], NormalizedCase]:
    """What reads a case and normalises it; the arguments are those of `fingerprint_reader` and `normalize_case`."""
    removals = [step for step in before.transforms if type(step) in REMOVALS]
    stages = {
        REMOVALS[type(removals[count - 1])] if count else None: Compose(
            [step for step in before.transforms if not any(step is later for later in removals[count:])]
        )
        for count in range(len(removals) + 1)
    }

    def read(entry: Entry) -> NormalizedCase:
        loaded = {name: stage(dict(entry), threading=True) for name, stage in stages.items()}
        images = {name: one["image"] for name, one in loaded.items()}
        return normalize_case(entry["case"], images, loaded[None]["label"], choices, statistics, fill, limits)

    return read


def _spacing(image: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(float(size), 4) for size in image.pixdim[: image.dim() - 1])


def _commonest(values: np.ndarray) -> tuple[float, float]:
    found, counts = np.unique(values, return_counts=True)
    return (found[counts.argmax()], counts.max() / counts.sum()) if values.size else (0.0, 0.0)


def _fullest(mask: torch.Tensor, axis: int) -> int:
    """The index along an axis with most of a mask [H, W, D]; the middle if it is empty."""
    others = [other for other in range(mask.dim()) if other != axis]
    return int(mask.sum(others).argmax()) if mask.any() else mask.shape[axis] // 2


def _some(channel: torch.Tensor) -> torch.Tensor:
    """Indices of voxels that are not 0, at most `VOXELS`, the same at each call."""
    seen = channel.nonzero()[:, 0]
    if len(seen) <= VOXELS:
        return seen
    return seen[torch.from_numpy(np.random.default_rng(0).integers(len(seen), size=VOXELS))]


def _slices(channel: torch.Tensor, places: Sequence[int]) -> list[np.ndarray]:
    """The axial slice and the coronal one at their places; in 2D the whole channel."""
    if not places:
        return [channel.numpy().copy()]
    axial, coronal = places
    return [channel[:, :, axial].numpy().copy(), channel[:, coronal].numpy().copy()]
