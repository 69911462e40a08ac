"""Writing and reading of weights, and loading them into a network.

`checkpoint.pt` is the whole state after the last full epoch; `model.pt` is the result of a run: the averaged weights of
its best epoch without the heads of deep supervision, tensors only.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from monai.networks.utils import copy_model_state
from torch import nn

from scripts.data.datalist import file_hash
from scripts.distributed import is_first_process
from scripts.errors import InputError
from scripts.files import read_mapping
from scripts.network.checkpoint_file import read_state

MODEL, NEW_MODEL = "model.pt", ".model.new.pt"  # of a run; the second until settings.yaml names it
NESTED = ("average", "model", "state_dict", "model_state_dict", "network", "weights")  # the first is `checkpoint.pt`'s
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and AveragedModel, and of torch.compile
HEADS = ("deep_supervision_heads", "super_head")  # DynUNet names each head of deep supervision twice


def read_weights(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The weights in a file, under the names that the network gives them.

    They may be under one of the usual keys (`NESTED`) and have the prefix of a wrapper (`PREFIXES`). From the state of
    a training, `checkpoint.pt`, they are the averaged ones without coarse heads, as in model.pt.

    Raises:
        InputError: the file cannot be read, does not say which of several parts are the weights, or holds one that is
            not finite.
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
    require_finite(weights, path)
    return weights


def _are_weights(item: Any) -> bool:
    return isinstance(item, Mapping) and bool(item) and all(map(torch.is_tensor, item.values()))


def require_finite(weights: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Refuse weights that are NaN or infinite, which give empty masks.

    Raises:
        InputError: names the first such weight and the file.
    """
    for name, tensor in weights.items():
        if torch.is_tensor(tensor) and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(
                f"{path} holds NaN or infinite weights ({name}): expected finite numbers; the file is damaged or its"
                " training diverged, so copy it again or give another checkpoint."
            )


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


def find_weights(
    checkpoint: str | os.PathLike,
    sha256: Mapping[str, str | None] | None = None,
    run_dir: str | os.PathLike | None = None,
) -> str:
    """The file of the weights to use, verified to be the one that the run wrote.

    Args:
        checkpoint: the file, from a run's settings.yaml or the user.
        sha256: from settings.yaml: the run's own file and its hash (None before the first validation); None without a
            run, or for one of an earlier version.
        run_dir: the run's folder, for a run that was moved or copied; its model.pt is used instead of `checkpoint`.

    Raises:
        InputError: the file is missing or has another hash, or belongs to another run than the settings.
    """
    path = Path(run_dir, MODEL) if run_dir else Path(checkpoint)
    own = read_settings(path.parent).get("checkpoint_sha256") or {}
    (named, expected) = next(iter((sha256 or own).items()), (None, None))
    if named is None:
        return path.as_posix()
    if own and sha256 and {*own.values()} != {*sha256.values()}:
        remedy = f"use {settings_file(path.parent)}, or give the folder of the settings' run with --run_dir"
        raise InputError(f"{path} is of another run than the given settings: {remedy}.")
    if not run_dir and path.resolve() not in (Path(named).resolve(), path.with_name(MODEL).resolve() if own else None):
        return path.as_posix()  # the user's own choice
    if expected is None:
        raise InputError(f"{path.parent} has no weights yet: train until the first validation, which writes {MODEL}.")
    complete_replacement(path.parent, expected)
    if not path.is_file() or file_hash(path) != expected:
        found = "does not exist" if not path.is_file() else "is not the file that the run wrote (its sha256 differs)"
        remedy = "copy it again" if run_dir else "if the run was moved or copied, give its folder by --run_dir"
        raise InputError(f"{path} {found}: {remedy}; if it is still training, start again.")
    return path.as_posix()


def complete_replacement(folder: Path, sha256: str) -> None:
    """Put new weights in place if their run was killed between writing settings.yaml and renaming them."""
    new = folder / NEW_MODEL
    if new.is_file() and file_hash(new) == sha256:
        with suppress(FileNotFoundError):  # done meanwhile by the run itself or another reader
            new.replace(folder / MODEL)


def read_min_component(paths: Sequence[str | os.PathLike], kind: str) -> dict[str, float]:
    """What a component needs at least, by region, as selected by the run of each checkpoint: `ml` or `probability`.

    It is in the settings.yaml next to each. Where several runs differ, none, which is printed: a size was selected for
    the masks of its run alone.
    """
    found = [read_settings(Path(path).parent).get(f"min_component_{kind}", {}) for path in paths]
    if all(own == found[0] for own in found):
        return found[0]
    if is_first_process():
        print(f"note: the runs of the ensemble differ in min_component_{kind}, so none is applied.")
    return {}


def read_settings(folder: Path) -> dict[str, Any]:
    """The content of settings.yaml in a run's folder; empty if there is none."""
    file = settings_file(folder)
    return read_mapping(file) if file.is_file() else {}


def settings_file(folder: Path) -> Path:
    """The settings.yaml in a run's folder, or knobs.yaml, its former name, if only that exists."""
    new, old = folder / "settings.yaml", folder / "knobs.yaml"
    return old if old.is_file() and not new.is_file() else new


def init_from_weights(network: nn.Module, path: str | os.PathLike | None) -> nn.Module:
    """Initialise a network from another run's weights: every weight of the same name and shape is copied.

    A network with further input channels after those of the run, such as clicks, starts as one that does not see them.

    Raises:
        InputError: less than half of the network's weights fit.
    """
    if path is not None:
        path = find_weights(path)
        own = len(network.state_dict())
        given = _pad_channels(read_weights(path), network.state_dict())
        _, taken, left = copy_model_state(network, given, inplace=True)
        if len(taken) < own / 2:
            raise InputError(
                f"{path} fits only {len(taken)} of the network's {own} weights: expected the same network."
            )
        print(f"init_from {path}: took {len(taken)} of {own} weights, {len(left)} start at random")
    return network


def _pad_channels(weights: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights, with zeros for the further input channels of a convolution of the network's own."""
    padded = dict(weights)
    for name, tensor in weights.items():
        if name in own and tensor.dim() > 2 and (more := own[name].shape[1] - tensor.shape[1]) > 0:
            wider = torch.cat([tensor, tensor.new_zeros(len(tensor), more, *tensor.shape[2:])], 1)
            padded[name] = wider if wider.shape == own[name].shape else tensor
    return padded


def without_heads(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights for inference, on the CPU: without those of deep supervision's heads."""
    return {name: tensor.detach().cpu() for name, tensor in weights.items() if not any(head in name for head in HEADS)}


def unwrap_ddp(item: Any) -> Any:
    """The network inside DistributedDataParallel; anything else unchanged."""
    return item.module if isinstance(item, nn.parallel.DistributedDataParallel) else item
