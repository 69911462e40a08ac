"""Communication between the processes that torchrun starts; a process alone is its own group."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from scripts.errors import InputError

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")


def is_first_process() -> bool:
    """Whether this is the first process: the one that prints and does what is done once."""
    group = _group()
    return (group.get_rank() if group else int(os.environ.get("RANK", 0))) == 0


def process_count() -> int:
    """How many processes there are, on all machines."""
    group = _group()
    return group.get_world_size() if group else 1


def local_world_size() -> int:
    """How many processes share this machine's cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if _group() else 1


def local_rank() -> int:
    """The number of this process among those of this machine."""
    return int(os.environ.get("LOCAL_RANK", 0)) if _group() else 0


def worker_start_method() -> str | None:
    """For `multiprocessing.get_context`: a forked worker would hold the connections of a process that has ended."""
    return "spawn" if _group() else None


def wait_for_all() -> None:
    """Wait until every process has reached this point.

    Raises:
        InputError: another process has ended.
    """
    if group := _group():
        with _peers():
            group.barrier()


def find_own_part(find: Callable[[], list[Item]], kind: Callable[[Item], Hashable]) -> list[Item]:
    """This process's part of the items that the first process finds; items of one group stay together.

    If there are fewer groups than processes, some processes get no item.

    Args:
        find: returns the items. Only the first process calls it, before any process has written something.
        kind: returns the group of an item.

    Raises:
        InputError: another process has ended.
    """
    if not (group := _group()):
        return find()
    found = [find() if is_first_process() else []]
    with _peers():
        group.broadcast_object_list(found, src=0)
    own = {*own_part(list(dict.fromkeys(map(kind, found[0]))))}
    return [item for item in found[0] if kind(item) in own]


def own_part(items: Sequence[Item]) -> Sequence[Item]:
    """This process's part of items that every process has in the same order."""
    group = _group()
    return items[group.get_rank() :: group.get_world_size()] if group else items


def synchronized(value: float) -> float:
    """The first process's value, in every process: clocks differ, and processes that end at different steps hang."""
    if not (group := _group()):
        return value
    import torch

    device = "cuda" if group.get_backend() == "nccl" else "cpu"
    shared = torch.tensor([value], dtype=torch.float64, device=device)
    group.broadcast(shared, src=0)
    return float(shared)


def gather_items(items: list[Item]) -> list[Item]:
    """The items of all processes, in the order of the processes, in every process; processes may differ in number.

    Raises:
        InputError: another process has ended.
    """
    if not (group := _group()):
        return items
    parts: list = [None] * group.get_world_size()
    with _peers():
        group.all_gather_object(parts, items)
    return [item for items in parts for item in items]


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, in each of them, with gradients as if one process had computed it all.

    Every process must compute the same from the sum, and gradients must be averaged over processes, as
    `DistributedDataParallel` does.
    """
    if not (group := _group()):
        return values
    total = values.detach().clone()
    group.all_reduce(total)
    return total + group.get_world_size() * (values - values.detach())


@contextmanager
def _peers() -> Iterator[None]:
    """Report a process that has ended while others wait for it; gloo notices at once."""
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            "another process has ended: see its own message. Finished work is kept; run the same command again, for a"
            " workflow with --resume."
        ) from error


def _group() -> ModuleType | None:
    """torch.distributed if a process group exists. Not imported here, since scoring does not need torch."""
    distributed = sys.modules.get("torch.distributed")
    return distributed if distributed and distributed.is_available() and distributed.is_initialized() else None
