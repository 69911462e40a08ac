"""Writing and reading of weights, and loading them into a network.

`checkpoint.pt` is the whole state after the last full epoch; `model.pt` is the result of a run: the averaged weights of
its best epoch without the heads of deep supervision, tensors only.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.networks.utils import copy_model_state
from torch import nn

from scripts.errors import InputError
from scripts.network.checkpoint_file import read_state

NESTED = ("average", "model", "state_dict", "model_state_dict", "network", "weights")  # the first is `checkpoint.pt`'s
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and AveragedModel, and of torch.compile
HEADS = ("deep_supervision_heads", "super_head")  # DynUNet names each head of deep supervision twice


def read_weights(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The weights in a file, under the names that the network gives them.

    They may be under one of the usual keys (`NESTED`) and bear the prefix of a wrapper (`PREFIXES`). Of the state of a
    training, `checkpoint.pt`, they are the averaged ones without coarse heads, as in model.pt.

    Raises:
        InputError: the file cannot be read, or does not say which of several parts are the weights.
    """
    weights: Any = read_state(path)
    if not _are_weights(weights):
        found = [key for key in NESTED if _are_weights(weights.get(key))]
        if not found or (len(found) > 1 and "average" not in found):
            raise InputError(
                f"{path} holds {', '.join(found or map(str, list(weights)[:5])) or 'nothing'}: expected weights by"
                f" name, or under one key of {', '.join(NESTED)}; save the weights alone."
            )
        weights = without_heads(weights[found[0]]) if found[0] == "average" else weights[found[0]]
    weights = {name: tensor for name, tensor in weights.items() if name != "n_averaged"}  # of torch's AveragedModel
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _are_weights(item: Any) -> bool:
    return isinstance(item, Mapping) and bool(item) and all(map(torch.is_tensor, item.values()))


def load_weights(network: nn.Module, path: str | os.PathLike) -> nn.Module:
    """Load a checkpoint into a network of exactly its architecture; returns the network.

    Raises:
        InputError: the checkpoint is of another network; names the first weight that differs.
    """
    weights = read_weights(path)
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        own = network.state_dict()
        different = next(
            (k for k in [*own, *weights] if k not in own or k not in weights or own[k].shape != weights[k].shape), "?"
        )
        shapes = " against ".join(
            str(tuple(part[different].shape)) if different in part else "absent" for part in (weights, own)
        )
        raise InputError(
            f"{path} is a checkpoint of another network ({different}: {shapes} in the config): add the run's"
            " settings.yaml, --config_file \"['configs/inference.yaml','runs/X/settings.yaml']\"."
        ) from error
    return network


def read_min_component_ml(path: str | os.PathLike) -> dict[str, float]:
    """The component sizes selected by a checkpoint's run, region to ml, from the settings.yaml in its folder."""
    file = settings_file(Path(path).parent)
    return yaml.safe_load(file.read_text(encoding="utf-8")).get("min_component_ml", {}) if file.is_file() else {}


def settings_file(folder: Path) -> Path:
    """The settings.yaml in a run's folder, or knobs.yaml, its former name, if only that exists."""
    new, old = folder / "settings.yaml", folder / "knobs.yaml"
    return old if old.is_file() and not new.is_file() else new


def init_from_weights(network: nn.Module, path: str | os.PathLike | None) -> nn.Module:
    """Initialise a network from another run's weights: every weight of the same name and shape is copied.

    Raises:
        InputError: less than half of the network's weights fit.
    """
    if path is not None:
        own = len(network.state_dict())
        _, taken, left = copy_model_state(network, read_weights(path), inplace=True)
        if len(taken) < own / 2:
            raise InputError(
                f"{path} fits only {len(taken)} of the network's {own} weights: expected the same network."
            )
        print(f"init_from {path}: took {len(taken)} of {own} weights, {len(left)} start at random")
    return network


def without_heads(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights for inference, on the CPU: without those of deep supervision's heads."""
    return {name: tensor.detach().cpu() for name, tensor in weights.items() if not any(head in name for head in HEADS)}


def unwrap_ddp(item: Any) -> Any:
    """The network inside DistributedDataParallel; anything else unchanged."""
    return item.module if isinstance(item, nn.parallel.DistributedDataParallel) else item
