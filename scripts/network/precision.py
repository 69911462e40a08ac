"""Half precision, memory layout, fused norms and cuDNN's kernels, as they suit the hardware."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.inferers import SimpleInferer
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetResBlock
from torch.utils.checkpoint import checkpoint

from scripts.network.coarse_heads import with_coarse_heads
from scripts.network.dense_trans import DenseNode
from scripts.network.fused_norm import fuse_norms, has_fusible_norms, kernels_available

BLOCKS = (UnetBasicBlock, UnetResBlock, DenseNode)  # whose activations can be recomputed in the backward pass
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the dimensions of a tensor


def half_is_faster(device: str | torch.device) -> bool:
    """Whether the device has units for half precision: a GPU, or a CPU with AMX; any other CPU is many times slower."""
    if torch.device(device).type == "cpu":
        return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    return True


def half_dtype(device: str | torch.device) -> str:
    """bfloat16, which needs no loss scaling, since its range is that of float32; float16 for a GPU without bfloat16."""
    old = torch.device(device).type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return "float16" if old else "bfloat16"


def autocast(device: torch.device, kind: str | None) -> AbstractContextManager:
    """A context that computes in half precision; None: in the precision of the tensors."""
    return torch.autocast(device.type, dtype=getattr(torch, kind or "bfloat16"), enabled=kind is not None)


def channels_last_is_faster(device: str | torch.device, network: torch.nn.Module) -> bool:
    """Whether channels_last is faster: on a GPU with Triton, for a network with norms that have a kernel there.

    Others are slower, since torch's norms copy such features twice.
    """
    return torch.device(device).type == "cuda" and has_fusible_norms(network) and kernels_available()


def to_float32(output: Any) -> Any:
    """What a network returned, its floating-point tensors in float32 and contiguous, as losses expect them."""
    if torch.is_tensor(output) and output.is_floating_point():
        return output.to(torch.float32, memory_format=torch.contiguous_format)
    if isinstance(output, Mapping):
        return {name: to_float32(item) for name, item in output.items()}
    if isinstance(output, list | tuple):
        return [to_float32(item) for item in output]
    return output


def match_memory_format(inputs: torch.Tensor, network: Any) -> torch.Tensor:
    """Inputs [B, C, ...] in channels_last if the network's weights are (see `prepare_network`)."""
    layout = CHANNELS_LAST.get(inputs.dim())
    if layout is None or not isinstance(network, torch.nn.Module):
        return inputs
    weights = [weight for weight in network.parameters() if weight.dim() == inputs.dim()]
    last = any(weight.is_contiguous(memory_format=layout) and not weight.is_contiguous() for weight in weights)
    return inputs.contiguous(memory_format=layout) if last else inputs


class PrecisionInferer(SimpleInferer):
    """One pass of the network over a batch, optionally in half precision; the output is float32.

    MONAI's engines support half precision on CUDA only, not on a CPU that has units for it.

    Args:
        half: `bfloat16` or `float16`; None: single precision.
    """

    def __init__(self, half: str | None = None) -> None:
        super().__init__()
        self.half = half

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Logits of inputs [B, C, ...]."""
        with autocast(inputs.device, self.half):
            logits = super().__call__(match_memory_format(inputs, network), network, *args, **kwargs)
        return to_float32(logits)


def prepare_network(network: torch.nn.Module, channels_last: bool = False, recompute: bool = False) -> torch.nn.Module:
    """Set up a network for the hardware, in place: memory layout, fused norms, recomputation; returns the network.

    A DynUNet with deep supervision returns its coarse heads at their own resolution.

    Args:
        network: any; only `BLOCKS` can be recomputed, and only the norms of DynUNet's fused.
        channels_last: keep the features of a voxel next to each other in memory, and fuse norms and activations.
        recompute: compute the activations inside a block again in the backward pass (Chen 2016, arXiv:1604.06174):
            less memory for more time.
    """
    for module in network.modules():
        if getattr(module, "deep_supervision", False):
            with_coarse_heads(module)
    if channels_last:
        for parameter in network.parameters():
            layout = CHANNELS_LAST.get(parameter.dim())
            if layout is not None:
                parameter.data = parameter.data.contiguous(memory_format=layout)
        fuse_norms(network)
    if recompute:
        for block in network.modules():
            if isinstance(block, BLOCKS):
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    return network


class CudnnAutotuning:
    """Lets cuDNN try its kernels and keep the fastest; attach it after `EpochSeed`, which switches that off.

    Args:
        allowed: if false, cuDNN stays deterministic.
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
