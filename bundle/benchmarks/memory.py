"""How much memory do the tensors of a training step take at most? Counted without computing anything, for a GPU."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scripts import hardware


class PeakOfTensors(TorchDispatchMode):
    """Within it, `most` is the largest sum of bytes that tensors made there took at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.alive: set[int] = set()

    def __torch_dispatch__(self, operator: Callable, types: Sequence, args: tuple = (), kwargs: Any = None) -> Any:
        made = operator(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.alive:  # views share what they look at
            self.alive.add(storage._cdata)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, storage: int, size: int) -> None:
        self.alive.discard(storage)
        self.now -= size


def of_a_step(recipe: str | None = None, **knobs: Any) -> float:
    """GiB of all tensors of two optimiser steps in half precision: weights, their average, gradients, AdamW's moments,
    activations, losses. Not in it: what CUDA and its kernels need for themselves, and gaps between tensors.

    Args:
        recipe: a name of configs/recipes/.
        knobs: of configs/train.yaml.
    """
    config = ConfigParser()
    config.read_config(["configs/train.yaml", *([f"configs/recipes/{recipe}.yaml"] if recipe else [])])
    config.update({**knobs, "device": "cpu"})  # there alone nothing is asked of a driver
    config.parse()
    patch, channels, regions, batch_size, recompute = (
        config.get_parsed_content(name) for name in ("patch_size", "channels", "regions", "batch_size", "recompute")
    )
    with FakeTensorMode(), PeakOfTensors() as peak:
        network = hardware.arranged(config.get_parsed_content("network_def"), recompute=recompute)
        average = [torch.empty_like(weight) for weight in network.parameters()]
        config.update({"network": network})
        config.parse()
        optimizer, loss = torch.optim.AdamW(network.parameters()), config.get_parsed_content("loss")
        for _ in range(2):  # the moments come with the first one
            image, label = (torch.empty(batch_size, len(several), *patch) for several in (channels, regions))
            with torch.autocast("cpu", torch.bfloat16):
                heads = network(image)
            loss(heads, label).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        del average  # alive until here
    return peak.most / 2**30
