"""The state of an interrupted training: written after each epoch and when it is stopped, loaded when it resumes."""

import os
import sys
from collections.abc import Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from scripts import stopping
from scripts.errors import InputError
from scripts.network.checkpoint_file import read_state, save_state
from scripts.network.weights import require_finite, unwrap_ddp


class RunState:
    """Writes the state of a run after each epoch, and loads it when a resumed run starts.

    Args:
        path: the checkpoint file.
        objects: name to object with `state_dict` and `load_state_dict`: network, EMA, optimiser, schedule, ...
        resume: load the file if it exists.
        writes: whether this process writes (rank 0 does).

    Each epoch and each patch has its own seed, so that random states are saved only within an epoch. The file is
    written during the next epoch, from a copy on the host; the next checkpoint and the end of the run wait for it.
    """

    def __init__(self, path: str | os.PathLike, objects: Mapping[str, Any], resume: bool, writes: bool = True) -> None:
        self.path, self.objects, self.resume, self.writes = Path(path), dict(objects), resume, writes
        self.memory = 0.0  # GiB, the peak of the run so far
        self.writer = ThreadPoolExecutor(max_workers=1)
        self.writing: Future[None] | None = None

    def attach(self, engine: Engine) -> None:
        """Load at the start, save after each epoch; attach it after everything that acts on an epoch's end."""
        engine.add_event_handler(Events.STARTED, self._load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self.wait_until_written)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._finish_and_raise)

    def save(self, engine: Engine, within_epoch: bool = False) -> None:
        """Start to write the state after an epoch, or after a step `within_epoch`: before the epoch is validated.

        All processes call it, since an object may gather its state from them.
        """
        state = {name: unwrap_ddp(item).state_dict() for name, item in self.objects.items()}
        if not self.writes:
            return
        state["engine"] = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        if within_epoch:
            state["engine"]["epoch"] -= 1  # the epochs that are over
            if engine.state.iteration % engine.state.epoch_length:
                state["random"] = random_state()
        if (scaler := getattr(engine, "scaler", None)) is not None:
            state["scaler"] = scaler.state_dict()
        state["peak_memory_gib"] = self.memory = max(self.memory, peak_memory_gib())
        self.wait_until_written()
        self.writing = self.writer.submit(save_state, self.path, copy_to_host(state))

    def wait_until_written(self) -> None:
        """Wait for the file; raises the error of writing it, if any."""
        if self.writing is not None:
            writing, self.writing = self.writing, None
            writing.result()

    def _finish_and_raise(self, engine: Engine, error: BaseException) -> None:
        with suppress(InputError):  # report the first error
            self.wait_until_written()
        raise error

    def _load(self, engine: Engine) -> None:
        stopping.set_how_to_continue(f"resume with --resume {self.path.parent}")
        if not (self.resume and self.path.is_file()):
            return
        state = read_state(self.path)
        require_finite(state.get("network", {}), self.path)
        for name, item in self.objects.items():
            try:
                unwrap_ddp(item).load_state_dict(state[name])
            except (KeyError, RuntimeError, ValueError) as error:
                raise InputError(
                    f"{self.path} does not fit this run's {name}: resume with the config that it was started with"
                    f" ({self.path.parent / 'config.yaml'})."
                ) from error
        engine.state.epoch, engine.state.iteration = state["engine"]["epoch"], state["engine"]["iteration"]
        if "random" in state:  # set after the epoch's seed
            following = Events.ITERATION_STARTED(once=engine.state.iteration + 1)
            engine.add_event_handler(following, set_random_state, state["random"])
        self.memory = state.get("peak_memory_gib", 0.0)
        if "scaler" in state and (scaler := getattr(engine, "scaler", None)) is not None:
            scaler.load_state_dict(state["scaler"])


def random_state() -> dict[str, torch.Tensor]:
    """The state of torch's generators, used by dropout: of the CPU, and of the current GPU if there is one."""
    return {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def set_random_state(state: Mapping[str, torch.Tensor]) -> None:
    """Set torch's generators to a `random_state`; that of a GPU only if there is one."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def copy_to_host(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a nested state with all tensors on the host.

    Several names of one tensor share one copy. Copies from a GPU go to pinned memory, with a single wait.
    """
    copies: dict[tuple, torch.Tensor] = {}

    def copied(item: Any) -> Any:
        if torch.is_tensor(item):
            same = (item.device, item.data_ptr(), item.dtype, item.shape, item.stride())
            if same not in copies:
                copies[same] = item.to("cpu", non_blocking=item.is_cuda, copy=True)
            return copies[same].detach()
        if isinstance(item, MutableMapping):
            twin = copy(item)  # the same type, with the versions that torch attaches to a state dict
            twin.update({name: copied(part) for name, part in item.items()})
            return twin
        return type(item)(map(copied, item)) if isinstance(item, list | tuple) else item

    whole = copied(state)
    for device in {same[0] for same in copies if same[0].type == "cuda"}:
        torch.cuda.current_stream(device).synchronize()
    return whole


def peak_memory_gib() -> float:
    """Peak memory of this process in GiB, on the GPU if there is one; 0 if unknown (Windows)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 2**30
    if sys.platform == "win32":
        return 0.0
    import resource

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**30 if sys.platform == "darwin" else 2**20)
