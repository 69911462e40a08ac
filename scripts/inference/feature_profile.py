"""Deep features of scans, and their distance to those of the training cases.

The features are the channel means of the network's coarsest convolution, for one window in the middle of the scan.
Their distribution over the training cases is a Gaussian of a few principal directions with one variance for all others
(probabilistic principal components, Tipping and Bishop 1999). They may note a scan, and never refuse one.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCrop, Compose, SpatialPad, Transform
from monai.utils import convert_to_tensor

from scripts.data.check_results import SKIPPED, ScanCheck
from scripts.data.profile import NOTED_FROM, read_profile
from scripts.data.profile_checks import compare_kind
from scripts.data.scan_checks import add_check
from scripts.network import precision
from scripts.network.ensemble import Ensemble

FEATURES = "features"  # of a tensor's metadata
DIRECTIONS = 8  # principal ones
LEAST_VARIANCE = 1e-8  # of a feature
SAME_WEIGHTS = 1e-3  # relative, of the fingerprint of a layer


class _Reached(Exception):
    """The layer of the features has run, the rest of the network is not needed."""


@torch.no_grad()
def name_coarsest_layer(network: torch.nn.Module, window: torch.Tensor) -> str | None:
    """The last convolution at the lowest resolution above a single voxel; None if there is none.

    Args:
        network: any.
        window: [1, C, ...], which the network accepts.
    """
    sizes: dict[str, int] = {}
    convolutions = [(name, module) for name, module in network.named_modules() if isinstance(module, torch.nn.Conv3d)]

    def note(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: sizes.update({name: math.prod(output.shape[2:])})

    handles = [module.register_forward_hook(note(name)) for name, module in convolutions]
    try:
        network(window)
    finally:
        for handle in handles:
            handle.remove()
    coarse = {name: size for name, size in sizes.items() if size > 1}
    return max((name for name in coarse if coarse[name] == min(coarse.values())), key=[*sizes].index, default=None)


@torch.no_grad()
def compute_features(network: torch.nn.Module, layer: str, window: torch.Tensor) -> torch.Tensor:
    """The means [C] of a layer's channels over a window [1, C, ...]; the layers after it do not run."""
    found: list[torch.Tensor] = []

    def stop(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        found.append(output.float().flatten(2).mean(2)[0])
        raise _Reached

    handle = network.get_submodule(layer).register_forward_hook(stop)
    try:
        network(precision.match_memory_format(window, network))
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[0].cpu()


def cut_middle(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The window [1, C, *size] in the middle of an image [C, ...], with 0 where the image is smaller."""
    plain = convert_to_tensor(image, track_meta=False).float()
    cut: Transform = Compose([CenterSpatialCrop(size), SpatialPad(size)])
    return convert_to_tensor(cut(plain), track_meta=False)[None]


def describe_features(layer: str, network: torch.nn.Module, features: np.ndarray) -> tuple[dict[str, Any], list[float]]:
    """What a profile keeps of the features [N, C] of training cases, and the distance of each case to the others."""
    distances = [
        measure_distance(_fit(np.delete(features, place, 0)), own)
        for place, own in enumerate(features)
        if len(features) > 2
    ]
    fitted = {name: np.round(value, 6).tolist() for name, value in _fit(features).items()}
    return {"layer": layer, "weights": _fingerprint(network, layer), **fitted}, sorted(distances)


def measure_distance(fitted: Mapping[str, Any], features: np.ndarray) -> float:
    """Distance of features [C] to a fitted distribution, root mean square in standard deviations."""
    away = (features - np.asarray(fitted["mean"])) / np.asarray(fitted["scale"])
    along = np.asarray(fitted["directions"]).reshape(-1, len(away)) @ away
    rest = max(float(away @ away - along @ along), 0.0) / float(fitted["rest"])
    squared = float(np.sum(along**2 / np.asarray(fitted["variances"]))) + rest
    return float(f"{math.sqrt(squared / len(away)):.5g}")


def _fit(features: np.ndarray) -> dict[str, Any]:
    mean, scale = features.mean(0), np.sqrt(features.var(0) + LEAST_VARIANCE)
    _, lengths, directions = np.linalg.svd((features - mean) / scale, full_matrices=False)
    count = min(DIRECTIONS, max(1, len(features) // 4))
    variances = lengths**2 / max(1, len(features) - 1)
    rest = variances[count:].sum() / max(1, features.shape[1] - count)
    kept = np.maximum(variances[:count], max(rest, LEAST_VARIANCE))
    return {
        "mean": mean,
        "scale": scale,
        "directions": directions[:count],
        "variances": kept,
        "rest": max(rest, LEAST_VARIANCE),
    }


def _fingerprint(network: torch.nn.Module, layer: str) -> float:
    """A number that other weights of the layer do not share."""
    weight = network.get_submodule(layer).weight
    assert torch.is_tensor(weight)
    return float(weight.detach().double().abs().sum())


class FeatureObserver:
    """Adds the features of a scan to the metadata of the network's output, for an inferer.

    Args:
        profile: the file of the profile of the training cases; None: no features.
        size: of the window in voxels, the patches of training.
    """

    def __init__(self, profile: str | None, size: Sequence[int]) -> None:
        self.known = (read_profile(profile).features if profile is not None else None) or {}
        self.size = size

    def __call__(self, logits: torch.Tensor, inputs: torch.Tensor, network: Any) -> None:
        """Add features [B, F] of scans [B, C, ...], if the profile has those of this network's weights."""
        if not self.known or not isinstance(logits, MetaTensor) or isinstance(network, torch.jit.ScriptModule):
            return
        member, layer = network.members[0] if isinstance(network, Ensemble) else network, self.known["layer"]
        if layer not in dict(member.named_modules()):
            return
        if math.isclose(_fingerprint(member, layer), self.known["weights"], rel_tol=SAME_WEIGHTS):
            windows = [cut_middle(scan, self.size).to(inputs.device) for scan in inputs]
            logits.meta[FEATURES] = torch.stack([compute_features(member, layer, window) for window in windows])


class CheckFeaturesd(Transform):
    """Adds the check of deep features to the checks of a scan; `pred`, the network's output, has them in its metadata.

    `profile` is the file of the profile of the training cases; None: nothing is added.
    """

    def __init__(self, profile: str | None) -> None:
        self.profile = read_profile(profile) if profile is not None else None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The data with one more check, where checks are made."""
        if self.profile is None or "checks" not in data or self.profile.cases < NOTED_FROM:
            return dict(data)
        return add_check(data, self._check(data["pred"]))

    def _check(self, output: Any) -> ScanCheck:
        assert self.profile is not None
        found = getattr(output, "meta", {}).get(FEATURES)
        if found is None or self.profile.features is None:
            reason = "the profile has none of this network's weights"
            return ScanCheck("deep features", SKIPPED, f"Not compared with the training cases: {reason}.")
        distance = measure_distance(self.profile.features, np.asarray(found, float).reshape(-1))
        check = compare_kind("features", {"features": distance}, self.profile, {})
        assert check is not None
        return check
