"""The state of an interrupted training: written after each epoch, loaded when the run resumes."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from scripts.errors import InputError
from scripts.network.weights import read_state, save, unwrapped


class RunState:
    """Writes the state of a run after each epoch, and takes it up again when the trainer starts.

    Args:
        path: the checkpoint file.
        objects: name to whatever has `state_dict` and `load_state_dict`: network, EMA, optimiser, schedule, ...
        resume: take the file up if it is there.
        writes: whether this process writes (rank 0 does).

    Random states need no keeping: each epoch and each patch starts from its own seed.
    """

    def __init__(self, path: str | os.PathLike, objects: Mapping[str, Any], resume: bool, writes: bool = True) -> None:
        self.path, self.objects, self.resume, self.writes = Path(path), dict(objects), resume, writes
        self.memory = 0.0  # GiB, the most that the run has held so far

    def attach(self, engine: Engine) -> None:
        """Load at the start, save after each epoch; attach it after everything that acts on an epoch's end."""
        engine.add_event_handler(Events.STARTED, self._load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _save(self, engine: Engine) -> None:
        if not self.writes:
            return
        state = {name: unwrapped(item).state_dict() for name, item in self.objects.items()}
        state["engine"] = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        if (scaler := getattr(engine, "scaler", None)) is not None:
            state["scaler"] = scaler.state_dict()
        state["peak_memory_gib"] = self.memory = max(self.memory, peak_memory_gib())
        save(self.path, state)

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


def peak_memory_gib() -> float:
    """The most memory that this process has held, of the GPU if there is one; 0 where it is not told (Windows)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 2**30
    if sys.platform == "win32":
        return 0.0
    import resource

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**30 if sys.platform == "darwin" else 2**20)
