"""Intensity statistics of the training cases, for normalisation by data set."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.transforms import Compose, NormalizeIntensityd

from scripts.data.normalization import NONZERO_METHODS, PERCENTILES, Normalized
from scripts.errors import InputError
from scripts.progress import progress_bar

LEVELS = 65  # quantiles that describe the histogram of a data set
MAX_VOXELS = 4_000_000  # per channel, of all cases together, for computing statistics: 16 MB
MAX_VOXELS_PER_CASE = 200_000


class SampledVoxels(NamedTuple):
    """Randomly drawn voxels of an image: values [C, N], and the minimum and maximum [C] over all of its voxels."""

    values: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray


def measure_statistics(
    preprocessing: Compose,
    cases: Sequence[Mapping[str, Any]],
    once: Callable[[str, Callable[[], Any]], Any],
    show: bool = True,
) -> None:
    """Measure the statistics for scope `dataset`, once per run: on the training cases only, before they are prepared.

    A resumed run uses those in its settings.yaml. Does nothing for other scopes, or if the setting is given.

    Args:
        preprocessing: has a `Normalized` step, which gets the statistics.
        cases: the training cases, with absolute paths.
        once: the run's `RunFolder.measure_once`, which writes the statistics to settings.yaml.
        show: a progress bar.

    Raises:
        InputError: a case cannot be read, or a channel is constant.
    """
    steps = preprocessing.flatten().transforms
    waiting = [s for s in steps if isinstance(s, Normalized) and s.scope == "dataset" and s.statistics is None]
    if not waiting:
        return

    def measure() -> list[dict[str, Any]]:
        before = steps_before_normalization(preprocessing)
        return compute_statistics(sample_cases(before, cases, show=show), waiting[0].method, waiting[0].percentiles)

    statistics = once("intensity_statistics", measure)
    for step in waiting:
        step.statistics = statistics


def steps_before_normalization(preprocessing: Compose) -> Compose:
    """The steps of `preprocessing` before the normalisation."""
    steps = list(preprocessing.flatten().transforms)
    end = next((i for i, s in enumerate(steps) if isinstance(s, Normalized | NormalizeIntensityd)), len(steps))
    return Compose(steps[:end])


def sample_cases(before: Compose, cases: Sequence[Mapping[str, Any]], show: bool = True) -> Iterable[SampledVoxels]:
    """Draw the same number of voxels from each case, at most `MAX_VOXELS` in total.

    Args:
        before: the steps before the normalisation.
        cases: with absolute paths.
        show: a progress bar.
    """
    most = min(MAX_VOXELS // len(cases), MAX_VOXELS_PER_CASE)

    def one(number: int) -> SampledVoxels:
        return sample_voxels(before(dict(cases[number]), threading=True)["image"], most, seed=number)

    with ThreadPoolExecutor(max_workers=2) as pool:
        work = pool.map(one, range(len(cases)))
        yield from progress_bar(work, show, total=len(cases), desc="measuring intensities", unit="case")


def sample_voxels(image: torch.Tensor, most: int, seed: int) -> SampledVoxels:
    """Draw at most `most` voxels of an image [C, ...], at the same places in all channels."""
    flat = image.numpy(force=True).reshape(len(image), -1)
    size = flat.shape[1]
    chosen = slice(None) if size <= most else np.random.default_rng(seed).integers(size, size=most)
    return SampledVoxels(flat[:, chosen].astype(np.float32), flat.min(1), flat.max(1))


def compute_statistics(
    voxels: Iterable[SampledVoxels], method: str, percentiles: Sequence[float] = PERCENTILES
) -> list[dict[str, Any]]:
    """The statistics of several images for scope `dataset`, one dict per channel, of plain numbers with six digits.

    Each has the `method` and its numbers: `mean` and `std` (z-scores), `median` and `iqr`, `low` and `high` (minmax: of
    all voxels; percentile: of those drawn), or the `levels`, quantiles at equal steps (histogram).

    Raises:
        InputError: a channel is constant.
    """
    several = list(voxels)
    statistics = []
    for number in range(len(several[0].values)):
        values = np.concatenate([one.values[number] for one in several]).astype(np.float64)
        values = values[values != 0] if method in NONZERO_METHODS else values
        ends = {"percentile": percentiles, "median_iqr": (25, 75)}.get(method, (0, 100))
        low, high = np.percentile(values, ends) if values.size else (0.0, 0.0)
        if low == high:
            raise InputError(
                f"channel {number + 1} of the training cases is constant, so normalize_scope cannot be dataset: check"
                " the files, or leave the channel out of the task."
            )
        if method == "histogram":
            found = {"levels": np.quantile(values, np.linspace(0, 1, LEVELS))}
        elif method == "percentile":
            found = {"low": low, "high": high}
        elif method == "median_iqr":
            found = {"median": np.median(values), "iqr": high - low}
        elif method == "minmax":
            found = {
                "low": min(one.minimum[number] for one in several),
                "high": max(one.maximum[number] for one in several),
            }
        else:
            found = {"mean": values.mean(), "std": values.std()}
        statistics.append({"method": method, **{name: _six_digits(value) for name, value in found.items()}})
    return statistics


def _six_digits(value: Any) -> Any:
    return [_six_digits(item) for item in value] if np.ndim(value) else float(f"{value:.6g}")
