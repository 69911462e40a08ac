"""Intensity normalisation: eight methods, each per slice, per image or per data set.

MRI has no unit: the same tissue is 300 on one scanner and 3000 on another. The statistics that a method uses (mean,
range, histogram) come from one slice, from one image, or from all training cases, and always from a single channel.
CT has one, so its window is the same for all scans.

zscore_nonzero  mean 0 and standard deviation 1 over nonzero voxels (MONAI's NormalizeIntensity); background stays 0
zscore          the same over all voxels, background included
median_iqr      median 0 and quartiles 1.349 apart, as of a normal distribution, over nonzero voxels; 0 stays 0
minmax          minimum to 0, maximum to 1 (MONAI's ScaleIntensity)
percentile      two percentiles of nonzero voxels to 0 and 1, clipped (as ScaleIntensityRangePercentiles)
histogram       nonzero voxels equalised to a flat histogram from 0 to 1 (HistogramNormalize); background stays 0
clahe           `percentile`, then contrast-limited adaptive histogram equalisation (Zuiderveld 1994, by scikit-image)
hu_window       two values in HU to 0 and 1, clipped (ScaleIntensityRange): air, -1000 HU, becomes 0
"""

import difflib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import HistogramNormalize, MapTransform, NormalizeIntensity, ScaleIntensity, ScaleIntensityRange
from monai.transforms.utils_pytorch_numpy_unification import percentile
from monai.utils import convert_to_dst_type, convert_to_tensor

from scripts.errors import InputError

METHODS = ("zscore_nonzero", "zscore", "median_iqr", "minmax", "percentile", "histogram", "clahe", "hu_window")
SCOPES = ("slice", "volume", "dataset")
NONZERO_METHODS = ("zscore_nonzero", "median_iqr", "percentile", "histogram", "clahe")  # ignore 0, and keep it
NO_STATISTICS = {  # methods without scope `dataset`, and why
    "clahe": "uses neighbourhoods within an image",
    "hu_window": "is the same for every image",
}
PERCENTILES = (0.5, 99.5)  # values beyond are vessels or artefacts
HU_WINDOW = (0.0, 80.0)  # the radiologists' window for the brain: level 40, width 80
NORMAL_IQR = 1.349  # interquartile range of a normal distribution, in standard deviations
PLAIN_TRANSFORMS = {
    "zscore_nonzero": NormalizeIntensity(),
    "zscore": NormalizeIntensity(),
    "minmax": ScaleIntensity(0.0, 1.0),
    "histogram": HistogramNormalize(num_bins=256, min=0, max=1),
}


class Normalized(MapTransform):
    """Normalise the intensities of an image [C, ...] by one of the `METHODS`, each channel by itself.

    Args:
        keys: of images; the result is float32.
        method: one of `METHODS`.
        scope: where its statistics come from: each `slice` along the last axis (a 2D image is one slice), the whole
            `volume`, or, by `statistics`, the `dataset`.
        statistics: for scope `dataset`, one dict per channel (`compute_statistics`); set later by `measure_statistics`.
        percentiles: of `percentile` and `clahe` that become 0 and 1.
        hu_window: values of `hu_window` that become 0 and 1, in HU.

    Raises:
        InputError: the method or scope does not exist, the two cannot be combined, or statistics are missing, of
            another method, or of another number of channels; percentiles or window are not two ascending numbers.
    """

    def __init__(
        self,
        keys: KeysCollection,
        method: str = "zscore_nonzero",
        scope: str = "volume",
        statistics: Sequence[Mapping[str, Any]] | None = None,
        percentiles: Sequence[float] = PERCENTILES,
        hu_window: Sequence[float] = HU_WINDOW,
    ) -> None:
        super().__init__(keys)
        require_valid_normalization(method, scope)
        _require_ascending("percentiles", percentiles, 0, 100)
        _require_ascending("hu_window", hu_window)
        self.method, self.scope = method, scope
        self.percentiles, self.hu_window = tuple(percentiles), tuple(hu_window)
        self.statistics = statistics if scope == "dataset" else None
        if self.statistics is not None and {s.get("method") for s in self.statistics} != {method}:
            raise InputError(
                f"intensity_statistics are of {self.statistics[0].get('method')}, but normalize is {method}: add the"
                " run's settings.yaml to config_file, or set intensity_statistics to null to measure them again."
            )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each image by the normalised one."""
        normalized = dict(data)
        for key in self.key_iterator(normalized):
            image = normalized[key]
            channels = convert_to_tensor(image, dtype=torch.float32, track_meta=False)
            statistics = self._statistics_of(len(channels))
            done = torch.stack([self._channel(*pair) for pair in zip(channels, statistics, strict=True)])
            normalized[key] = convert_to_dst_type(done, image, dtype=torch.float32)[0]
        return normalized

    def _statistics_of(self, channels: int) -> Sequence[Mapping[str, Any] | None]:
        if self.scope != "dataset":
            return [None] * channels
        if self.statistics is None:
            raise InputError(
                "normalize_scope is dataset, but intensity_statistics are not given: add the run's settings.yaml, which"
                " has those of its training cases, to config_file."
            )
        if len(self.statistics) != channels:
            raise InputError(
                f"intensity_statistics are of {len(self.statistics)} channels, but the image has {channels}: use the"
                " settings.yaml with the task of its run."
            )
        return self.statistics

    def _channel(self, channel: torch.Tensor, statistics: Mapping[str, Any] | None) -> torch.Tensor:
        if self.scope == "slice" and channel.dim() > 2:
            return torch.stack([self._normalize(piece) for piece in channel.unbind(-1)], dim=-1)
        return self._normalize(channel, statistics)

    def _normalize(self, piece: torch.Tensor, statistics: Mapping[str, Any] | None = None) -> torch.Tensor:
        """One channel, or one slice of it; 0 stays 0 for `NONZERO_METHODS`, and constant values become 0."""
        if self.method == "hu_window":
            return _scale(piece, *self.hu_window)
        seen = piece != 0 if self.method in NONZERO_METHODS else torch.ones_like(piece, dtype=torch.bool)
        done = torch.zeros_like(piece)
        values = piece[seen]
        if statistics is not None:
            done[seen] = _by_statistics(values, statistics)
        elif values.numel() and values.min() < values.max():
            done[seen] = self._of_itself(values)
            if self.method == "clahe" and done.any():
                done = torch.where(seen, _clahe(done), 0.0)
        return done

    def _of_itself(self, values: torch.Tensor) -> torch.Tensor:
        if self.method in PLAIN_TRANSFORMS:
            return PLAIN_TRANSFORMS[self.method](values)
        ends = (25, 50, 75) if self.method == "median_iqr" else self.percentiles
        low, *middle, high = torch.as_tensor(percentile(values, list(ends))).tolist()
        if low == high:
            return torch.zeros_like(values)
        return _by_statistics(
            values, {"median": middle[0], "iqr": high - low} if middle else {"low": low, "high": high}
        )


def require_valid_normalization(method: str, scope: str) -> None:
    """Check that the method and the scope exist and can be combined.

    Raises:
        InputError: names the valid ones.
    """
    for setting, value, known in (("normalize", method, METHODS), ("normalize_scope", scope, SCOPES)):
        if value not in known:
            near = difflib.get_close_matches(str(value), known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"{setting} is '{value}'{hint}: expected {', '.join(known)}.")
    if scope == "dataset" and method in NO_STATISTICS:
        raise InputError(
            f"normalize {method} {NO_STATISTICS[method]}, so normalize_scope cannot be dataset: use volume, or another"
            " method."
        )


def _require_ascending(setting: str, ends: Sequence[float], least: float = -np.inf, most: float = np.inf) -> None:
    numbers = [end for end in ends if isinstance(end, int | float) and least <= end <= most]
    if len(ends) != 2 or len(numbers) != 2 or not numbers[0] < numbers[1]:
        limits = f" from {least:g} to {most:g}" if most < np.inf else ""
        raise InputError(f"{setting} is {list(ends)}: expected two ascending numbers{limits}, such as [0.5, 80].")


def _by_statistics(values: torch.Tensor, statistics: Mapping[str, Any]) -> torch.Tensor:
    if "mean" in statistics:
        return torch.as_tensor(NormalizeIntensity(statistics["mean"], statistics["std"])(values))
    if "median" in statistics:
        return (values - statistics["median"]) * (NORMAL_IQR / statistics["iqr"])
    if "low" in statistics:
        return _scale(values, statistics["low"], statistics["high"])
    levels = statistics["levels"]
    equal = np.interp(values.numpy(force=True), levels, np.linspace(0.0, 1.0, len(levels)))
    return convert_to_dst_type(equal, values, dtype=torch.float32)[0]


def _scale(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return convert_to_tensor(ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)(values), track_meta=False)


def _clahe(piece: torch.Tensor) -> torch.Tensor:
    from skimage.exposure import equalize_adapthist  # only this method needs it

    return torch.from_numpy(equalize_adapthist(piece.numpy(force=True))).to(piece)
