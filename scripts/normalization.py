"""How do intensities become numbers that a network can compare? Six methods, each by slice, by image or by data set.

MRI has no unit: the same tissue is 300 on one scanner and 3000 on another. What a method computes from (mean, range,
histogram) comes from one slice, from one image, or from all cases that teach, and always from one channel alone.

zscore_nonzero  mean 0 and standard deviation 1 over what is not 0 (MONAI's NormalizeIntensity); air stays 0
zscore          the same over all voxels, air included
minmax          least to 0, greatest to 1 (MONAI's ScaleIntensity)
percentile      the 0.5th percentile of what is not 0 to 0, the 99.5th to 1, clipped (as ScaleIntensityRangePercentiles)
histogram       every grey value equally often in what is not 0, from 0 to 1 (HistogramNormalize); air stays 0
clahe           `percentile`, then contrast-limited equalisation of neighbourhoods (Zuiderveld 1994, by scikit-image)
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import (
    Compose,
    HistogramNormalize,
    MapTransform,
    NormalizeIntensity,
    NormalizeIntensityd,
    ScaleIntensity,
    ScaleIntensityRange,
)
from monai.transforms.utils_pytorch_numpy_unification import percentile
from monai.utils import convert_to_dst_type, convert_to_tensor
from tqdm import tqdm

from scripts.errors import InputError

METHODS = ("zscore_nonzero", "zscore", "minmax", "percentile", "histogram", "clahe")
SCOPES = ("slice", "volume", "dataset")
BRAIN = ("zscore_nonzero", "percentile", "histogram", "clahe")  # look at what is not 0, and leave 0 as it is
LOW, HIGH = 0.5, 99.5  # percentiles: what is beyond is a vessel or an artefact
LEVELS = 65  # quantiles that tell a data set's histogram
ROUNDING = 1e-5  # of an image's range: values that differ by less are one value
VOXELS = 4_000_000  # of all cases together, by channel, that statistics are computed from: 16 MB
VOXELS_OF_A_CASE = 200_000

BY_ITSELF = {
    "zscore_nonzero": NormalizeIntensity(),
    "zscore": NormalizeIntensity(),
    "minmax": ScaleIntensity(0.0, 1.0),
    "histogram": HistogramNormalize(num_bins=256, min=0, max=1),
}


class Voxels(NamedTuple):
    """Voxels of an image, drawn at random: values [C, N], and the least and the greatest [C] of all of its voxels."""

    values: np.ndarray
    least: np.ndarray
    greatest: np.ndarray


class AirIsZerod(MapTransform):
    """Subtract from each channel of an image [C, ...] the value of its air, where that is one value and not 0.

    Scans that were normalised before they were published hold a negative constant around the brain; what crops to the
    brain, and what normalises by it, looks for 0. Air is the value that all corners of the image have; where they
    differ by more than rounding (heads whose air is noise, pictures without a border) nothing is changed.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each image by the one, in float32, whose air is 0."""
        shifted = dict(data)
        for key in self.key_iterator(shifted):
            image = convert_to_tensor(shifted[key], dtype=torch.float32, track_meta=False)
            ends = (slice(None, None, max(1, size - 1)) for size in image.shape[1:])
            corners = image[(slice(None), *ends)].flatten(1)
            if bool(corners.any()):
                rounding = ROUNDING * (image.flatten(1).amax(1) - image.flatten(1).amin(1))
                air = torch.where(corners.amax(1) - corners.amin(1) <= rounding, corners[:, 0], 0)
                image = image.clone()
                for channel in air.nonzero().flatten():
                    moved = image[channel] - air[channel]
                    image[channel] = torch.where(moved.abs() <= rounding[channel], 0, moved)
                shifted[key] = convert_to_dst_type(image, shifted[key], dtype=torch.float32)[0]
        return shifted


class Normalized(MapTransform):
    """Intensities of an image [C, ...] by one of six methods, each channel by itself.

    Args:
        keys: of images; the result is float32.
        method: one of `METHODS`.
        scope: what the method looks at: each `slice` along the last axis (a 2D image is one slice), the whole `volume`,
            or, by `statistics`, the `dataset`.
        statistics: for the scope `dataset`, one dict a channel (`statistics_of`); `learn_statistics` may set it later.

    Raises:
        InputError: there is no such method or scope, the two do not go together, or statistics are missing, of another
            method, or of another number of channels.
    """

    def __init__(
        self,
        keys: KeysCollection,
        method: str = "zscore_nonzero",
        scope: str = "volume",
        statistics: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(keys)
        require_possible(method, scope)
        self.method, self.scope = method, scope
        self.statistics = statistics if scope == "dataset" else None
        if self.statistics is not None and {s.get("method") for s in self.statistics} != {method}:
            raise InputError(
                f"intensity_statistics are of {self.statistics[0].get('method')}, but normalize is {method}: lay the"
                " knobs.yaml of the run over the workflow, or set intensity_statistics to null to measure anew."
            )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each image by the normalised one."""
        normalized = dict(data)
        for key in self.key_iterator(normalized):
            image = normalized[key]
            channels = convert_to_tensor(image, dtype=torch.float32, track_meta=False)
            self._require_statistics(len(channels))
            done = torch.stack([self._channel(channel, number) for number, channel in enumerate(channels)])
            normalized[key] = convert_to_dst_type(done, image, dtype=torch.float32)[0]
        return normalized

    def _require_statistics(self, channels: int) -> None:
        if self.scope != "dataset":
            return
        if self.statistics is None:
            raise InputError(
                "normalize_scope is dataset, but intensity_statistics are not given: lay the knobs.yaml of the run over"
                " the workflow, which has those of its training cases."
            )
        if len(self.statistics) != channels:
            raise InputError(
                f"intensity_statistics are of {len(self.statistics)} channels, but the image has {channels}: lay the"
                " knobs.yaml of the run over the workflow that it belongs to."
            )

    def _channel(self, channel: torch.Tensor, number: int) -> torch.Tensor:
        if self.scope == "dataset":
            return _on_its_voxels(channel, self.method, self.statistics[number])
        if self.scope == "slice" and channel.dim() > 2:
            return torch.stack([_on_its_voxels(piece, self.method) for piece in channel.unbind(-1)], dim=-1)
        return _on_its_voxels(channel, self.method)


def require_possible(method: str, scope: str) -> None:
    """There are such a method and such a scope, and they go together.

    Raises:
        InputError: says what there is.
    """
    for knob, value, known in (("normalize", method, METHODS), ("normalize_scope", scope, SCOPES)):
        if value not in known:
            near = difflib.get_close_matches(str(value), known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"{knob} is '{value}'{hint}: expected {', '.join(known)}.")
    if (method, scope) == ("clahe", "dataset"):
        raise InputError(
            "normalize clahe looks at neighbourhoods within an image, so normalize_scope cannot be dataset: take slice"
            " or volume, or normalize histogram."
        )


def _on_its_voxels(piece: torch.Tensor, method: str, statistics: Mapping[str, Any] | None = None) -> torch.Tensor:
    """One channel, or one slice of it; what is 0 stays 0 if the method looks at the brain."""
    seen = piece != 0 if method in BRAIN else torch.ones_like(piece, dtype=torch.bool)
    done = torch.zeros_like(piece)
    values = piece[seen]
    if statistics is not None:
        done[seen] = _by_statistics(values, statistics)
    elif values.numel() and values.min() < values.max():  # what is flat holds nothing, and becomes 0
        done[seen] = BY_ITSELF[method](values) if method in BY_ITSELF else _by_percentiles(values)
        if method == "clahe" and done.any():
            done = torch.where(seen, _clahe(done), 0.0)
    return done


def _by_percentiles(values: torch.Tensor) -> torch.Tensor:
    """As MONAI's ScaleIntensityRangePercentiles, but 0 where nearly all values are one and the same."""
    low, high = percentile(values, [LOW, HIGH]).tolist()
    if low == high:
        return torch.zeros_like(values)
    return _by_statistics(values, {"low": low, "high": high})


def _by_statistics(values: torch.Tensor, statistics: Mapping[str, Any]) -> torch.Tensor:
    if "mean" in statistics:
        return NormalizeIntensity(statistics["mean"], statistics["std"])(values)
    if "low" in statistics:
        return ScaleIntensityRange(statistics["low"], statistics["high"], 0.0, 1.0, clip=True)(values)
    levels = statistics["levels"]
    equal = np.interp(values.numpy(force=True), levels, np.linspace(0.0, 1.0, len(levels)))
    return convert_to_dst_type(equal, values, dtype=torch.float32)[0]


def _clahe(piece: torch.Tensor) -> torch.Tensor:
    from skimage.exposure import equalize_adapthist  # here, because only this method needs it

    return torch.from_numpy(equalize_adapthist(piece.numpy(force=True))).to(piece)


# ---- statistics of a data set --------------------------------------------------------------------------------------


def learn_statistics(
    preprocessing: Compose,
    cases: Sequence[Mapping[str, Any]],
    once: Callable[[str, Callable[[], Any]], Any],
    show: bool = True,
) -> None:
    """Measure what scope `dataset` needs, once a run: from the cases that teach alone, before they are prepared.

    A run that goes on takes what its knobs.yaml has. Nothing happens for other scopes, or if the knob is given.

    Args:
        preprocessing: of which `Normalized` is a step; it gets the statistics.
        cases: the cases that teach, with absolute paths.
        once: of the run, `RunFolder.measured_once`, whose knobs.yaml gets the statistics.
        show: a progress bar.

    Raises:
        InputError: a case cannot be read, or a channel is the same everywhere.
    """
    steps = preprocessing.flatten().transforms
    waiting = [s for s in steps if isinstance(s, Normalized) and s.scope == "dataset" and s.statistics is None]
    if not waiting:
        return

    def measure() -> list[dict[str, Any]]:
        before = before_normalization(preprocessing)
        return statistics_of(voxels_of_cases(before, cases, show=show), waiting[0].method)

    statistics = once("intensity_statistics", measure)
    for step in waiting:
        step.statistics = statistics


def before_normalization(preprocessing: Compose) -> Compose:
    """The steps of `preprocessing` up to the normalisation."""
    steps = list(preprocessing.flatten().transforms)
    end = next((i for i, s in enumerate(steps) if isinstance(s, Normalized | NormalizeIntensityd)), len(steps))
    return Compose(steps[:end])


def voxels_of_cases(
    before: Compose, cases: Sequence[Mapping[str, Any]], workers: int = 2, show: bool = True
) -> Iterable[Voxels]:
    """Voxels of each case, the same number of each, at most `VOXELS` of all.

    Args:
        before: the steps up to the normalisation.
        cases: with absolute paths.
        workers: threads that read.
        show: a progress bar.
    """
    most = min(VOXELS // len(cases), VOXELS_OF_A_CASE)

    def one(number: int) -> Voxels:
        return draw(before(dict(cases[number]), threading=True)["image"], most, seed=number)

    with ThreadPoolExecutor(max_workers=workers) as pool:
        work = pool.map(one, range(len(cases)))
        bar = {"total": len(cases), "desc": "measuring intensities", "unit": "case", "leave": False}
        yield from tqdm(work, disable=not show, **bar)


def draw(image: torch.Tensor, most: int, seed: int) -> Voxels:
    """At most `most` voxels of an image [C, ...], at the same places in all channels."""
    flat = image.numpy(force=True).reshape(len(image), -1)
    size = flat.shape[1]
    chosen = slice(None) if size <= most else np.random.default_rng(seed).integers(size, size=most)
    return Voxels(flat[:, chosen].astype(np.float32), flat.min(1), flat.max(1))


def statistics_of(voxels: Iterable[Voxels], method: str) -> list[dict[str, Any]]:
    """What scope `dataset` needs of several images, one dict a channel, of plain numbers with six digits.

    Each has the `method` and its numbers: `mean` and `std` (z-scores), `low` and `high` (minmax: of all voxels;
    percentile: of those drawn), or the `levels`, quantiles at equal steps (histogram).

    Raises:
        InputError: a channel is the same everywhere.
    """
    several = list(voxels)
    statistics = []
    for number in range(len(several[0].values)):
        values = np.concatenate([one.values[number] for one in several]).astype(np.float64)
        values = values[values != 0] if method in BRAIN else values
        ends = (LOW, HIGH) if method == "percentile" else (0, 100)
        low, high = np.percentile(values, ends) if values.size else (0.0, 0.0)
        if low == high:
            raise InputError(
                f"channel {number + 1} of the training cases is the same everywhere, so normalize_scope cannot be"
                " dataset: check the files, or leave the channel out of the task."
            )
        if method == "histogram":
            found = {"levels": np.quantile(values, np.linspace(0, 1, LEVELS))}
        elif method == "percentile":
            found = {"low": low, "high": high}
        elif method == "minmax":
            found = {
                "low": min(one.least[number] for one in several),
                "high": max(one.greatest[number] for one in several),
            }
        else:
            found = {"mean": values.mean(), "std": values.std()}
        statistics.append({"method": method, **{name: _six_digits(value) for name, value in found.items()}})
    return statistics


def _six_digits(value: Any) -> Any:
    return [_six_digits(item) for item in value] if np.ndim(value) else float(f"{value:.6g}")
