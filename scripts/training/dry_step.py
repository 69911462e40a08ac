"""A training step and a window on shapes only: network, loss and patch size have to fit each other."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.nn import functional

from scripts.errors import InputError
from scripts.network.outputs import read_logits
from scripts.network.shapes import first_line, network_device, shapes_only

CERTAIN = 6.0  # a logit whose sigmoid is nearly 1


def run_dry_step(
    network: torch.nn.Module,
    loss: Callable[[Any, torch.Tensor], torch.Tensor],
    channels: int,
    outputs: int,
    patch_size: Sequence[int],
    batch_size: int,
) -> None:
    """Run shapes through network, loss and gradient, and as a window of inference through the network.

    Takes milliseconds, and no memory for any patch size.

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
            # of a branch on voxels, or a choice of some: shapes are not enough
            with suppress(DataDependentOutputException, DynamicOutputShapeException):
                loss(network(image), label).backward()
            with suppress(DataDependentOutputException):
                network.eval()
                with torch.no_grad():
                    window = read_logits(network(image), len(patch_size))
                if list(window.shape) != [batch_size, outputs, *patch_size]:
                    raise ValueError(f"a window gives logits of {list(window.shape)}")
        except Exception as error:
            raise InputError(
                f"a training step on a batch of {shape} fails: {first_line(error)}. {type(network).__name__}, the loss"
                f" and patch_size must fit each other: {channels} channels go in, {outputs} come out."
            ) from error
        finally:
            network.train()
            network.zero_grad(set_to_none=True)


def check_decision(loss: Callable[[Any, torch.Tensor], torch.Tensor], decision: str, outputs: int, axes: int) -> None:
    """Check that a loss and the decision take the same for probabilities: sigmoids of regions, or a softmax of classes.

    A softmax, and with it its loss, does not change when a number is added to all channels; a sigmoid does. A loss
    without either takes logits for probabilities, so that a perfect output costs more than zeros.

    Args:
        loss: of logits and labels [B, K, ...].
        decision: `regions` or `classes`.
        outputs: K.
        axes: of the image, 2 or 3.

    Raises:
        InputError: they differ, so that training and inference would use other probabilities; or the loss has neither.
    """
    loss = getattr(loss, "loss", loss)  # of one head, without the terms of other outputs of a network
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        logits = torch.rand(1, outputs, *[8] * axes)
        some = (torch.rand_like(logits) < 0.2).float()
        label = functional.one_hot(logits.argmax(1), outputs).movedim(-1, 1).float()
        device = next((tensor.device for tensor in getattr(loss, "buffers", list)()), "cpu")
        before, after = (float(loss((logits + shift).to(device), label.to(device))) for shift in (0.0, 1.0))
        right, untrained = (
            float(loss((scale * (2 * some - 1)).to(device), some.to(device))) for scale in (CERTAIN, 0.0)
        )
    softmax = abs(after - before) <= 1e-4 * abs(before)
    if before and outputs > 1 and softmax != (decision == "classes"):
        kinds = ("a softmax over classes", "a sigmoid per region")
        found, other = kinds if softmax else kinds[::-1]
        raise InputError(
            f"decision is {decision}, which reads the network's output as {other}, but the loss is of {found}: take a"
            " loss of the same kind, such as recipe softmax_dice_ce for classes, or the other decision."
        )
    if decision == "regions" and not right <= untrained:
        raise InputError(
            f"the loss of a perfect output ({right:.3g}) is larger than that of an untrained one ({untrained:.3g}): it"
            " takes logits for probabilities; give it a sigmoid (`sigmoid: true` of MONAI's losses)."
        )
