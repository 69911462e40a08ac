"""The sizes that a network accepts and the memory that it needs, found by running shapes through it, not voxels."""

import copy
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from scripts.errors import InputError

ROUND_TO = (2, 4, 8, 16, 32, 64, 128, 6, 12, 24, 48, 96)  # tried where a size does not fit


@contextmanager
def shapes_only() -> Iterator[None]:
    """Within it tensors have a shape and no values, so that a network takes milliseconds and no memory."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, log.disabled = log.disabled, True  # it would print a traceback
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        log.disabled = disabled


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def network_device(network: nn.Module) -> torch.device:
    """The device of a network's weights; the CPU if it has none."""
    return next((weight.device for weight in network.parameters()), torch.device("cpu"))


def why_refused(network: nn.Module, channels: int, size: Sequence[int]) -> str:
    """Why a network does not accept images of this size in voxels, in PyTorch's words; empty if it does."""
    device = network_device(network)
    try:
        with shapes_only(), torch.no_grad():
            network(torch.empty(1, channels, *size, device=device))
    except Exception as error:  # of any layer
        return first_line(error)
    return ""


def size_divisor(network: nn.Module, channels: int, size: Sequence[int]) -> list[int] | None:
    """By axis, the number of which the size of an image has to be a multiple, such as 32 for six levels.

    Args:
        network: any.
        channels: of the image.
        size: in voxels; one that the network accepts.

    Returns:
        None if the network accepts no size but this one.
    """
    divisors = []
    for axis, length in enumerate(size):
        for divisor in (d for d in range(1, length + 1) if length % d == 0):
            larger = [*size]
            larger[axis] += divisor
            if not why_refused(network, channels, larger):
                divisors.append(divisor)
                break
        else:
            return None
    return divisors


def check_patch_size(network: nn.Module, channels: int, patch_size: Sequence[int]) -> None:
    """Check that a network accepts patches of this size.

    Raises:
        InputError: it does not; names the number of which each axis has to be a multiple, if there is one.
    """
    network = copy.deepcopy(network)  # whose layers may keep what they have seen
    reason = why_refused(network, channels, patch_size)
    if not reason:
        return
    rounded = ([max(2, -(-length // step)) * step for length in patch_size] for step in ROUND_TO)
    fitting = next((size for size in rounded if not why_refused(network, channels, size)), None)
    divisor = fitting and size_divisor(network, channels, fitting)
    advice = "give a size that the network accepts"
    if divisor:
        larger = [max(2, -(-length // step)) * step for length, step in zip(patch_size, divisor, strict=True)]
        smaller = [max(2, length // step) * step for length, step in zip(patch_size, divisor, strict=True)]
        sizes = " or ".join(map(str, dict.fromkeys(map(tuple, (smaller, larger)))))
        advice = f"each axis has to be a multiple of {', '.join(map(str, divisor))}, such as {sizes}, or take a network"
        advice += " of fewer levels"
    raise InputError(
        f"patch_size is {list(patch_size)}, which {type(network).__name__} does not accept ({reason}): {advice}."
    )


def count_voxel_bytes(network: nn.Module, channels: int, size: Sequence[int]) -> float | None:
    """The most memory for features at inference, in bytes per voxel of the image, in the precision of the weights.

    None for a network that looks at values of voxels, which a count of shapes does not have.

    Args:
        network: any.
        channels: of the image.
        size: in voxels; one that the network accepts.
    """
    from torch.distributed._tools.mem_tracker import MemTracker  # an eighth of a training's imports, which needs none

    tracker, device = MemTracker(), network_device(network)
    with shapes_only(), torch.no_grad():
        tracker.track_external(network)
        try:
            with tracker:
                network(torch.empty(1, channels, *size, device=device))
        except (DataDependentOutputException, DynamicOutputShapeException):
            return None
    total = max(tracker.get_tracker_snapshot("peak")[device].values())
    weights = sum(weight.nbytes for weight in (*network.parameters(), *network.buffers()))
    return (total - weights) / math.prod(size)
