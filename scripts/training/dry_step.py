"""A training step on shapes only, which checks that network, loss and patch size fit each other."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException

from scripts.errors import InputError


def run_dry_step(
    network: torch.nn.Module,
    loss: Callable[[Any, torch.Tensor], torch.Tensor],
    channels: int,
    regions: int,
    patch_size: Sequence[int],
    batch_size: int,
) -> None:
    """Run shapes through network, loss and gradient, in milliseconds and without memory for any patch size.

    Args:
        network: maps [B, C, *patch_size] to the loss's input.
        loss: of the network's output and labels [B, R, *patch_size].
        channels: C.
        regions: R.
        patch_size: voxels per axis.
        batch_size: B.

    Raises:
        InputError: the step fails; the message includes PyTorch's.
    """
    shape, log = [batch_size, channels, *patch_size], logging.getLogger("torch._subclasses.fake_tensor")
    network.train()
    log.disabled = True  # it would print a traceback
    with FakeTensorMode(allow_non_fake_inputs=True):
        image, label = torch.empty(shape), torch.empty(batch_size, regions, *patch_size)
        try:
            loss(network(image), label).backward()
        except DataDependentOutputException:
            return  # a branch that depends on voxels: shapes are not enough
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(
                f"a training step on a batch of {shape} fails: {reason}. {type(network).__name__}, the loss and"
                f" patch_size must fit each other: {channels} channels go in, {regions} regions come out."
            ) from error
        finally:
            network.zero_grad(set_to_none=True)
            log.disabled = False
