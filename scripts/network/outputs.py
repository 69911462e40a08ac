"""What networks return, in one form: logits at one or several resolutions, and other outputs by name."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from scripts.errors import InputError


class NetworkOutput(NamedTuple):
    """The output of a network.

    Attributes:
        heads: logits [B, K, ...], the most accurate one first, coarser ones after it.
        others: further outputs by name, such as an embedding or a reconstruction.
    """

    heads: list[torch.Tensor]
    others: dict[str, Any]

    @property
    def logits(self) -> torch.Tensor:
        """The most accurate logits [B, K, ...]."""
        return self.heads[0]


def read_output(output: Any, axes: int) -> NetworkOutput:
    """Read what a network returned, in any of the usual forms.

    - A tensor [B, K, ...]: logits.
    - A tensor [B, heads, K, ...]: MONAI's stacked heads of deep supervision, finest first, all upsampled.
    - A list or tuple of [B, K, ...]: heads of any resolution; the finest are the logits, and of several equally fine
      ones the last, which is built upon the others (U-Net++). Items of other dimensions are further outputs, named
      `auxiliary`, or `auxiliary1`, `auxiliary2`, ...
    - A dictionary: `logits`, `heads` (a list of coarser ones, finest first; may be absent) and others by name.

    Args:
        output: of the network.
        axes: of the image, 2 or 3.

    Raises:
        InputError: it is in none of these forms.
    """
    if torch.is_tensor(output):
        if output.dim() == axes + 2:
            return NetworkOutput([output], {})
        if output.dim() == axes + 3:
            return NetworkOutput([*output.unbind(1)], {})
    elif isinstance(output, Mapping) and torch.is_tensor(output.get("logits")):
        others = {name: value for name, value in output.items() if name not in ("logits", "heads")}
        return NetworkOutput([output["logits"], *output.get("heads", ())], others)
    elif isinstance(output, Sequence) and not isinstance(output, str):
        heads = [item for item in output if torch.is_tensor(item) and item.dim() == axes + 2]
        rest = [item for item in output if not any(item is head for head in heads)]
        names = ["auxiliary"] if len(rest) == 1 else [f"auxiliary{place + 1}" for place in range(len(rest))]
        if heads:
            last_first = heads[::-1]
            finest_first = sorted(last_first, key=lambda head: -head[0, 0].numel())
            return NetworkOutput(finest_first, dict(zip(names, rest, strict=True)))
    found = list(output) if isinstance(output, Mapping) else getattr(output, "shape", type(output).__name__)
    raise InputError(
        f"the network returned {found}: expected logits [batch, channel, ...] of {axes} axes, a list of them, or a"
        " dictionary with `logits`."
    )


def read_logits(output: Any, axes: int) -> torch.Tensor:
    """The most accurate logits [B, K, ...] of what a network returned (`read_output`)."""
    return read_output(output, axes).logits


class LogitsNetwork(nn.Module):
    """A network that returns all its outputs in training and the logits alone in evaluation.

    For a network that returns several outputs in evaluation too, which neither TorchScript nor MONAI Label expect.

    Args:
        network: returns any form that `read_output` reads.
        axes: of the image, 2 or 3.
    """

    def __init__(self, network: nn.Module, axes: int = 3) -> None:
        super().__init__()
        self.network, self.axes = network, axes

    def forward(self, image: torch.Tensor) -> Any:
        """Logits [B, K, ...] of [B, C, ...]; in training, what the network returns."""
        output = self.network(image)
        return output if self.training else read_logits(output, self.axes)
