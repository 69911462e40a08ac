"""Instance norm and leaky ReLU as one kernel over channels-last features."""

import warnings
from functools import cache
from typing import Any

import torch
from monai.networks.blocks.dynunet_block import UnetBasicBlock
from torch import nn
from torch._subclasses.fake_tensor import is_fake
from torch.autograd.function import once_differentiable
from torch.nn import functional

try:
    from scripts.network import norm_kernels
except ImportError:  # Triton is installed with torch for CUDA on Linux only
    norm_kernels = None  # type: ignore[assignment]

KINDS = (torch.bfloat16, torch.float16, torch.float32)  # not float64, since statistics are float32
LAST = torch.channels_last_3d


class FusedNorm(torch.autograd.Function):
    """leaky_relu(instance_norm(x) * weight + bias) by Triton kernels; saves x and [N, C] statistics for backward.

    Statistics and sums are float32; the output and the gradient of x have the type of x.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, slope: float
    ) -> torch.Tensor:
        """Features of the shape of x, [N, C, D, H, W], dense in channels_last_3d; weight and bias are [C]."""
        y, mean, rstd = norm_kernels.forward(x, weight, bias, eps, slope)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.slope = slope
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, weight and bias."""
        x, weight, bias, mean, rstd = ctx.saved_tensors
        dx, dweight, dbias = norm_kernels.backward(
            dy.contiguous(memory_format=LAST), x, mean, rstd, weight, bias, ctx.slope
        )
        return dx, dweight.to(weight.dtype), dbias.to(bias.dtype), None, None


class InstanceNormLeakyReLU(nn.InstanceNorm3d):
    """An instance norm followed by a leaky ReLU; its state is that of the norm.

    One kernel computes both on a GPU with Triton, for features that are dense in channels_last_3d. In all other cases,
    and under torch.compile, which fuses by itself, torch's two operations do.

    Args:
        num_features: channels.
        negative_slope: of the leaky ReLU.
        **norm: of `torch.nn.InstanceNorm3d`.

    Shapes: [N, C, D, H, W] to the same.
    """

    def __init__(self, num_features: int, negative_slope: float = 0.01, **norm: Any) -> None:
        super().__init__(num_features, **norm)
        self.negative_slope = negative_slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised and rectified features."""
        if self._fits(x):
            return FusedNorm.apply(x, self.weight, self.bias, self.eps, self.negative_slope)
        return functional.leaky_relu(super().forward(x), self.negative_slope, inplace=True)

    def _fits(self, x: torch.Tensor) -> bool:
        return (
            not torch.compiler.is_compiling()
            and x.is_cuda
            and not is_fake(x)  # a shape without values
            and kernels_available()
            and self.affine
            and not self.track_running_stats
            and x.dtype in KINDS
            and x.dim() == 5
            and x[0, 0].numel() > 1  # otherwise torch raises an error
            and x.is_contiguous(memory_format=LAST)
        )


@cache
def kernels_available() -> bool:
    """Whether the kernels run here: Triton needs a C compiler, Python's headers and a supported GPU."""
    if norm_kernels is None or not torch.cuda.is_available():
        return False
    features = torch.rand(1, 8, 2, 2, 2, device="cuda").contiguous(memory_format=LAST)
    try:
        norm_kernels.forward(features, features.new_ones(8), features.new_zeros(8), 1e-5, 0.01)
    except Exception as error:  # from Triton, its compiler or the driver
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        warnings.warn(
            f"norms are computed by torch, which is slower: Triton does not run here ({reason})", stacklevel=2
        )
        return False
    return True


def fuse_norms(network: nn.Module) -> nn.Module:
    """Fuse norm and leaky ReLU in the plain blocks of a DynUNet, in place; returns the network.

    Parameters keep their names. Not fused: residual blocks, which add between norm and activation, norms other than an
    instance norm with parameters, other activations, and two dimensions.
    """
    for block in network.modules():
        if isinstance(block, UnetBasicBlock) and _fusible(block):
            slope = block.lrelu.negative_slope
            block.norm1, block.norm2 = (_fused(norm, slope) for norm in (block.norm1, block.norm2))
            block.lrelu = nn.Identity()
    return network


def has_fusible_norms(network: nn.Module) -> bool:
    """Whether `fuse_norms` finds anything in a network."""
    return any(isinstance(block, UnetBasicBlock) and _fusible(block) for block in network.modules())


def _fusible(block: UnetBasicBlock) -> bool:
    norms = (block.norm1, block.norm2)
    plain = all(type(norm) is nn.InstanceNorm3d and norm.affine and not norm.track_running_stats for norm in norms)
    return plain and type(block.lrelu) is nn.LeakyReLU


def _fused(norm: nn.InstanceNorm3d, slope: float) -> InstanceNormLeakyReLU:
    fused = InstanceNormLeakyReLU(norm.num_features, slope, eps=norm.eps, affine=True, device="meta")
    fused.weight, fused.bias = norm.weight, norm.bias  # the same objects, which an optimiser may hold already
    return fused.train(norm.training)
