"""What does this machine compute fastest with? Half precision, memory layout, recomputing, cuDNN's kernels."""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.inferers import SimpleInferer
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetResBlock
from torch.utils.checkpoint import checkpoint

BLOCKS = (UnetBasicBlock, UnetResBlock)  # what DynUNet is made of, and what it remembers for the way back


def half_pays(device: str | torch.device) -> bool:
    """Whether the device has units for half precision: a GPU, or a CPU with AMX; any other CPU is many times slower."""
    if torch.device(device).type == "cpu":
        return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    return True


def half_kind(device: str | torch.device) -> str:
    """bfloat16, whose range is that of float32, so that no loss has to be scaled; float16 for a GPU without it."""
    old = torch.device(device).type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return "float16" if old else "bfloat16"


def autocast(device: torch.device, kind: str | None) -> AbstractContextManager:
    """Compute in half precision inside; None: as the tensors come."""
    return torch.autocast(device.type, dtype=getattr(torch, kind or "bfloat16"), enabled=kind is not None)


def full(logits: Any) -> Any:
    """Logits in float32: a tensor, or the heads of deep supervision in a list."""
    return logits.float() if torch.is_tensor(logits) else type(logits)(full(head) for head in logits)


class PrecisionInferer(SimpleInferer):
    """One pass of the network over a batch, in half precision if asked; what comes out is float32.

    MONAI's engines know half precision on CUDA alone, so that a CPU with units for it would not use them.

    Args:
        half: `bfloat16` or `float16`; None: single precision.
    """

    def __init__(self, half: str | None = None) -> None:
        super().__init__()
        self.half = half

    def __call__(self, inputs: torch.Tensor, network: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Logits of inputs [B, C, ...]."""
        with autocast(inputs.device, self.half):
            logits = super().__call__(inputs, network, *args, **kwargs)
        return full(logits)


def arranged(network: torch.nn.Module, channels_last: bool = False, recompute: bool = False) -> torch.nn.Module:
    """The same network with its weights laid out for the hardware, and with less to remember; returned for chaining.

    Args:
        network: any; only DynUNet's blocks can be recomputed.
        channels_last: keep the features of a voxel side by side in memory.
        recompute: forget what happens inside a block and compute it again on the way back (Chen 2016,
            arXiv:1604.06174): less memory for more time.
    """
    if channels_last:
        for parameter in network.parameters():
            layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(parameter.dim())
            if layout is not None:
                parameter.data = parameter.data.contiguous(memory_format=layout)
    if recompute:
        for block in network.modules():
            if isinstance(block, BLOCKS):
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return network


class CudnnAutotuning:
    """Lets cuDNN try its kernels and keep the fastest; attach it after what seeds each epoch, which forbids that.

    Args:
        allowed: off leaves cuDNN deterministic.
    """

    def __init__(self, allowed: bool) -> None:
        self.allowed = allowed

    def attach(self, engine: Engine) -> None:
        """Allow it in each epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._allow)

    def _allow(self) -> None:
        if self.allowed:
            torch.backends.cudnn.deterministic = False
            torch.backends.cudnn.benchmark = True
