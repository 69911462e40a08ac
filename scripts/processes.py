"""What do the processes that torchrun starts tell each other? Alone, a process tells itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import distributed

from scripts import pages
from scripts.errors import InputError

Item = TypeVar("Item")
Case = TypeVar("Case", bound=Mapping[str, Any])


def first() -> bool:
    """Whether this is the first of all processes: the one that prints, and does what is done once."""
    rank = distributed.get_rank() if _several() else int(os.environ.get("RANK", 0))
    return rank == 0


def wait() -> None:
    """Wait until every process has come this far.

    Raises:
        InputError: another process has ended.
    """
    if _several():
        with _peers():
            distributed.barrier()


def shared_out(find: Callable[[], list[Case]]) -> list[Case]:
    """This process's part of the cases that the first one finds; those in one file, its pages, stay together.

    Where there are fewer files than processes, some have nothing to do.

    Args:
        find: gives the cases, entries with `image`. Only the first process looks, before any has begun to change what
            is there.

    Raises:
        InputError: another process has ended.
    """
    if not _several():
        return find()
    found = [find() if first() else []]
    with _peers():
        distributed.broadcast_object_list(found, src=0)
    files = list(dict.fromkeys(map(_file, found[0])))
    own = {*files[distributed.get_rank() :: distributed.get_world_size()]}
    return [case for case in found[0] if _file(case) in own]


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


def summed(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, in each of them, and gradients as if one process had computed it all.

    Every process must go on alike from the sum, and gradients be averaged over processes, as
    `DistributedDataParallel` does.
    """
    if not _several():
        return values
    total = values.detach().clone()
    distributed.all_reduce(total)
    return total + distributed.get_world_size() * (values - values.detach())


@contextmanager
def _peers() -> Iterator[None]:
    """Gloo notices at once when a process that it waits for has ended."""
    try:
        yield
    except RuntimeError as error:
        raise InputError("another process has ended: see its own message; --resume keeps what is done.") from error


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _file(case: Mapping[str, Any]) -> os.PathLike:
    image = case["image"]
    return pages.file_of(image if isinstance(image, str) else image[0])
