"""What is kept so that a killed run goes on, and how do weights come back into a network?

`checkpoint.pt` is the whole state after the last full epoch; `model.pt` is what a run leaves: the averaged weights of
its best epoch without the heads of deep supervision, tensors only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

import torch
import yaml
from ignite.engine import Engine, Events
from monai.networks.utils import copy_model_state
from torch import nn

from scripts.errors import InputError
from scripts.files import written_whole

HEADS = ("deep_supervision_heads", "super_head")  # DynUNet names each head of deep supervision twice


class RunState:
    """Writes the state of a run after each epoch, and takes it up again when the trainer starts.

    Args:
        path: the checkpoint file.
        objects: name to whatever has `state_dict` and `load_state_dict`: network, EMA, optimiser, schedule, ...
        resume: take the file up if it is there.
        writes: whether this process writes (rank 0 does).

    Random states need no keeping: each epoch and each patch starts from its own seed. The file is written during
    the next epoch, from a copy on the host; the next checkpoint and the end of the run wait for it.
    """

    def __init__(self, path: str | os.PathLike, objects: Mapping[str, Any], resume: bool, writes: bool = True) -> None:
        self.path, self.objects, self.resume, self.writes = Path(path), dict(objects), resume, writes
        self.memory = 0.0  # GiB, the most that the run has held so far
        self.writer = ThreadPoolExecutor(max_workers=1)
        self.writing: Future[None] | None = None

    def attach(self, engine: Engine) -> None:
        """Load at the start, save after each epoch; attach it after everything that acts on an epoch's end."""
        engine.add_event_handler(Events.STARTED, self._load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._finish_and_raise)

    def _save(self, engine: Engine) -> None:
        if not self.writes:
            return
        state = {name: unwrapped(item).state_dict() for name, item in self.objects.items()}
        state["engine"] = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        if (scaler := getattr(engine, "scaler", None)) is not None:
            state["scaler"] = scaler.state_dict()
        state["peak_memory_gib"] = self.memory = max(self.memory, peak_memory_gib())
        self._finish()
        self.writing = self.writer.submit(save, self.path, on_host(state))

    def _finish(self) -> None:
        """Wait for the file; raises what went wrong in writing it."""
        if self.writing is not None:
            writing, self.writing = self.writing, None
            writing.result()

    def _finish_and_raise(self, engine: Engine, error: BaseException) -> None:
        with suppress(InputError):  # the first error is the one to tell
            self._finish()
        raise error

    def _load(self, engine: Engine) -> None:
        if not (self.resume and self.path.is_file()):
            return
        state = read_state(self.path)
        for name, item in self.objects.items():
            try:
                unwrapped(item).load_state_dict(state[name])
            except (KeyError, RuntimeError, ValueError) as error:
                raise InputError(
                    f"{self.path} does not fit this run's {name}: resume with the config that it was started with"
                    f" ({self.path.parent / 'config.yaml'})."
                ) from error
        engine.state.epoch, engine.state.iteration = state["engine"]["epoch"], state["engine"]["iteration"]
        self.memory = state.get("peak_memory_gib", 0.0)
        if "scaler" in state and getattr(engine, "scaler", None) is not None:
            engine.scaler.load_state_dict(state["scaler"])


def on_host(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a nested state whose tensors are all on the host and change no more.

    Several names of one tensor stay names of one. Copies from a GPU go to pinned memory, one wait for all of them.
    """
    copies: dict[tuple, torch.Tensor] = {}

    def copied(item: Any) -> Any:
        if torch.is_tensor(item):
            same = (item.device, item.data_ptr(), item.dtype, item.shape, item.stride())
            if same not in copies:
                copies[same] = item.to("cpu", non_blocking=item.is_cuda, copy=True)
            return copies[same].detach()
        if isinstance(item, Mapping):
            twin = copy(item)  # of the same kind, with the versions that torch hangs on a state dict
            twin.update({name: copied(part) for name, part in item.items()})
            return twin
        return type(item)(map(copied, item)) if isinstance(item, list | tuple) else item

    whole = copied(state)
    for device in {same[0] for same in copies if same[0].type == "cuda"}:
        torch.cuda.current_stream(device).synchronize()
    return whole


def peak_memory_gib() -> float:
    """The most memory that this process has held, of the GPU if there is one; 0 where it is not told (Windows)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 2**30
    if sys.platform == "win32":
        return 0.0
    import resource

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**30 if sys.platform == "darwin" else 2**20)


def save(path: str | os.PathLike, state: Mapping[str, Any]) -> None:
    """Write a state whole or not at all.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    with written_whole(path) as temporary:
        try:
            with temporary.open("wb") as stream:  # torch writes a path's name into the file, and this one is random
                torch.save(dict(state), stream)
        except RuntimeError as error:  # torch's own word for a full disk
            raise OSError(str(error.__context__ or error).strip().splitlines()[0]) from error


def read_state(path: str | os.PathLike) -> dict[str, Any]:
    """What a checkpoint file holds, on the CPU, tensors and plain values only.

    Raises:
        InputError: there is no file, or it is no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}: train first, or give the path with --checkpoint.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have their own errors for a damaged file
        raise InputError(
            f"{path} is not a readable checkpoint: it may be damaged or cut short; copy it again."
        ) from error
    if not isinstance(state, dict):
        raise InputError(f"{path} holds a {type(state).__name__}: expected a dictionary of weights.")
    return state


def read_weights(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The weights in a file: a plain state dict, or one under `model`, as the Model Zoo allows."""
    state = read_state(path)
    return state.get("model", state)


def load(network: nn.Module, path: str | os.PathLike) -> nn.Module:
    """Put a checkpoint into a network of exactly its shape, and return the network.

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
            f"{path} is a checkpoint of another network ({different}: {shapes} in the config): lay the run's"
            " knobs.yaml over the workflow, --config_file \"['configs/inference.yaml','runs/X/knobs.yaml']\"."
        ) from error
    return network


def smallest_components(path: str | os.PathLike) -> dict[str, float]:
    """What the run of a checkpoint chose on its validation cases: region to ml, from the knobs.yaml beside it."""
    knobs = Path(path).parent / "knobs.yaml"
    return yaml.safe_load(knobs.read_text(encoding="utf-8")).get("min_component_ml", {}) if knobs.is_file() else {}


def start_from(network: nn.Module, path: str | os.PathLike | None) -> nn.Module:
    """Start a training from another run's weights: every weight of the same name and shape is taken.

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
    """The weights that the network needs at inference: those of deep supervision's heads left out."""
    return {name: tensor.detach().cpu() for name, tensor in weights.items() if not any(head in name for head in HEADS)}


def unwrapped(item: Any) -> Any:
    """The network inside DistributedDataParallel; anything else as it is."""
    return item.module if isinstance(item, nn.parallel.DistributedDataParallel) else item
