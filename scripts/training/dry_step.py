"""A training step on shapes only, which checks that network, loss and patch size fit each other."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from scripts.errors import InputError
from scripts.network.shapes import first_line, network_device, shapes_only


def run_dry_step(
    network: torch.nn.Module,
    loss: Callable[[Any, torch.Tensor], torch.Tensor],
    channels: int,
    outputs: int,
    patch_size: Sequence[int],
    batch_size: int,
) -> None:
    """Run shapes through network, loss and gradient, in milliseconds and without memory for any patch size.

    Args:
        network: maps [B, C, *patch_size] to the loss's input.
        loss: of the network's output and labels [B, K, *patch_size].
        channels: C.
        outputs: K.
        patch_size: voxels per axis.
        batch_size: B.

    Raises:
        InputError: the step fails; the message includes PyTorch's.
    """
    shape, device = [batch_size, channels, *patch_size], network_device(network)
    network.train()
    with shapes_only():
        image, label = torch.empty(shape, device=device), torch.empty(batch_size, outputs, *patch_size, device=device)
        try:
            loss(network(image), label).backward()
        except DataDependentOutputException:
            return  # a branch that depends on voxels: shapes are not enough
        except Exception as error:
            raise InputError(
                f"a training step on a batch of {shape} fails: {first_line(error)}. {type(network).__name__}, the loss"
                f" and patch_size must fit each other: {channels} channels go in, {outputs} come out."
            ) from error
        finally:
            network.zero_grad(set_to_none=True)
