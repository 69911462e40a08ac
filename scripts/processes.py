"""What do the processes of one training tell each other? Alone, a process tells itself."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import distributed

Item = TypeVar("Item")


def agreed(value: float) -> float:
    """The first process's value in every process: clocks differ, and processes that end at different steps hang."""
    if not _several():
        return value
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    shared = torch.tensor([value], dtype=torch.float64, device=device)
    distributed.broadcast(shared, src=0)
    return float(shared)


def gathered(items: list[Item]) -> list[Item]:
    """The items of all processes, in the order of the processes, in every process; as many as each of them has."""
    if not _several():
        return items
    parts: list = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
