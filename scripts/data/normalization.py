"""Intensity normalisation: six methods, each per slice, per image or per data set.

MRI has no unit: the same tissue is 300 on one scanner and 3000 on another. What a method computes from (mean, range,
histogram) comes from one slice, from one image, or from all training cases, and always from one channel alone.

zscore_nonzero  mean 0 and standard deviation 1 over what is not 0 (MONAI's NormalizeIntensity); air stays 0
zscore          the same over all voxels, air included
minmax          least to 0, greatest to 1 (MONAI's ScaleIntensity)
percentile      the 0.5th percentile of what is not 0 to 0, the 99.5th to 1, clipped (as ScaleIntensityRangePercentiles)
histogram       every grey value equally often in what is not 0, from 0 to 1 (HistogramNormalize); air stays 0
clahe           `percentile`, then contrast-limited equalisation of neighbourhoods (Zuiderveld 1994, by scikit-image)
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

METHODS = ("zscore_nonzero", "zscore", "minmax", "percentile", "histogram", "clahe")
SCOPES = ("slice", "volume", "dataset")
NONZERO_METHODS = ("zscore_nonzero", "percentile", "histogram", "clahe")  # look at what is not 0, and leave 0 as it is
LOW, HIGH = 0.5, 99.5  # percentiles: what is beyond is a vessel or an artefact
PLAIN_TRANSFORMS = {
    "zscore_nonzero": NormalizeIntensity(),
    "zscore": NormalizeIntensity(),
    "minmax": ScaleIntensity(0.0, 1.0),
    "histogram": HistogramNormalize(num_bins=256, min=0, max=1),
}


class Normalized(MapTransform):
    """Intensities of an image [C, ...] by one of six methods, each channel by itself.

    Args:
        keys: of images; the result is float32.
        method: one of `METHODS`.
        scope: what the method looks at: each `slice` along the last axis (a 2D image is one slice), the whole `volume`,
            or, by `statistics`, the `dataset`.
        statistics: for scope `dataset`, one dict per channel (`compute_statistics`); set later by `measure_statistics`.

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
        require_valid_normalization(method, scope)
        self.method, self.scope = method, scope
        self.statistics = statistics if scope == "dataset" else None
        if self.statistics is not None and {s.get("method") for s in self.statistics} != {method}:
            raise InputError(
                f"intensity_statistics are of {self.statistics[0].get('method')}, but normalize is {method}: lay the"
                " settings.yaml of the run over the workflow, or set intensity_statistics to null to measure anew."
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
                "normalize_scope is dataset, but intensity_statistics are not given: lay the settings.yaml of the run"
                " over the workflow, which has those of its training cases."
            )
        if len(self.statistics) != channels:
            raise InputError(
                f"intensity_statistics are of {len(self.statistics)} channels, but the image has {channels}: lay the"
                " settings.yaml of the run over the workflow that it belongs to."
            )
        return self.statistics

    def _channel(self, channel: torch.Tensor, statistics: Mapping[str, Any] | None) -> torch.Tensor:
        if self.scope == "slice" and channel.dim() > 2:
            return torch.stack([_on_its_voxels(piece, self.method) for piece in channel.unbind(-1)], dim=-1)
        return _on_its_voxels(channel, self.method, statistics)


def require_valid_normalization(method: str, scope: str) -> None:
    """There are such a method and such a scope, and they go together.

    Raises:
        InputError: says what there is.
    """
    for setting, value, known in (("normalize", method, METHODS), ("normalize_scope", scope, SCOPES)):
        if value not in known:
            near = difflib.get_close_matches(str(value), known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"{setting} is '{value}'{hint}: expected {', '.join(known)}.")
    if (method, scope) == ("clahe", "dataset"):
        raise InputError(
            "normalize clahe looks at neighbourhoods within an image, so normalize_scope cannot be dataset: take slice"
            " or volume, or normalize histogram."
        )


def _on_its_voxels(piece: torch.Tensor, method: str, statistics: Mapping[str, Any] | None = None) -> torch.Tensor:
    """One channel, or one slice of it; what is 0 stays 0 if the method looks at the brain."""
    seen = piece != 0 if method in NONZERO_METHODS else torch.ones_like(piece, dtype=torch.bool)
    done = torch.zeros_like(piece)
    values = piece[seen]
    if statistics is not None:
        done[seen] = _by_statistics(values, statistics)
    elif values.numel() and values.min() < values.max():  # what is flat holds nothing, and becomes 0
        done[seen] = PLAIN_TRANSFORMS[method](values) if method in PLAIN_TRANSFORMS else _by_percentiles(values)
        if method == "clahe" and done.any():
            done = torch.where(seen, _clahe(done), 0.0)
    return done


def _by_percentiles(values: torch.Tensor) -> torch.Tensor:
    """As MONAI's ScaleIntensityRangePercentiles, but 0 where nearly all values are one and the same."""
    low, high = torch.as_tensor(percentile(values, [LOW, HIGH])).tolist()
    if low == high:
        return torch.zeros_like(values)
    return _by_statistics(values, {"low": low, "high": high})


def _by_statistics(values: torch.Tensor, statistics: Mapping[str, Any]) -> torch.Tensor:
    if "mean" in statistics:
        return torch.as_tensor(NormalizeIntensity(statistics["mean"], statistics["std"])(values))
    if "low" in statistics:
        scaled = ScaleIntensityRange(statistics["low"], statistics["high"], 0.0, 1.0, clip=True)(values)
        return torch.as_tensor(scaled)
    levels = statistics["levels"]
    equal = np.interp(values.numpy(force=True), levels, np.linspace(0.0, 1.0, len(levels)))
    return convert_to_dst_type(equal, values, dtype=torch.float32)[0]


def _clahe(piece: torch.Tensor) -> torch.Tensor:
    from skimage.exposure import equalize_adapthist  # here, because only this method needs it

    return torch.from_numpy(equalize_adapthist(piece.numpy(force=True))).to(piece)
