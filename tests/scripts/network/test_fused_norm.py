"""The fused norm equals instance norm and leaky ReLU, with errors no larger than torch's own."""

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.networks.nets import DynUNet
from torch import nn
from torch.nn import functional

from scripts.network import fused_norm
from scripts.network.fused_norm import FusedNorm, InstanceNormLeakyReLU, fuse_norms
from tests.made.gpu import needs_gpu, needs_triton

LAST = torch.channels_last_3d

# samples, channels, voxels: many chunks and one, channels that fill no tile, voxels that fill none, a mean far off
SHAPES = [(2, 32, 16, 16, 16), (1, 320, 4, 4, 4), (2, 4, 5, 7, 9), (3, 8, 5, 7, 33), (1, 1, 3, 3, 3), (2, 66, 9, 9, 9)]


def network(dims: int = 3, **settings) -> DynUNet:
    torch.manual_seed(0)
    one = DynUNet(dims, 2, 3, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 8, 8], **settings)
    for name, parameter in one.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, mean=0.5)
    return one


def plain(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(functional.instance_norm(x, weight=weight, bias=bias), 0.01)


def fused(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return FusedNorm.apply(x, weight, bias, 1e-5, 0.01)


def with_gradients(call: Callable, dy: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    inputs = [values.clone().requires_grad_() for values in inputs]
    y = call(*inputs)
    y.backward(dy)
    return [y.detach(), *(values.grad for values in inputs)]


def errors(shape: tuple[int, ...], kind: torch.dtype, device: str = "cpu") -> list[tuple[float, float]]:
    """Of output and gradients of x, weight and bias: the fused one's relative error, and that of torch's own two."""
    torch.manual_seed(0)
    far = 30 * torch.randn(1, shape[1], 1, 1, 1)
    x = (torch.randn(shape) + far).to(device, kind).contiguous(memory_format=LAST)
    weight, bias = (0.5 + torch.rand(2, shape[1])).to(device)
    dy = torch.randn(shape).to(device, kind)
    exact = with_gradients(plain, dy.double(), x.double(), weight.double(), bias.double())
    found = with_gradients(fused, dy, x, weight, bias)
    theirs = with_gradients(plain, dy, x.contiguous(), weight, bias)
    again = with_gradients(fused, dy, x, weight, bias)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
    assert [one.dtype for one in found] == [one.dtype for one in theirs]
    assert found[0].is_contiguous(memory_format=LAST)

    def away(values: torch.Tensor, right: torch.Tensor) -> float:
        return float((values.double() - right).norm() / right.norm())

    return [(away(one, right), away(their, right)) for one, their, right in zip(found, theirs, exact, strict=True)]


def compare(kinds: list[torch.dtype], device: str) -> None:
    for shape in SHAPES:
        for kind in kinds:
            for own, theirs in errors(shape, kind, device):
                # few values: one rounded otherwise than torch's weighs much; 1e-6 is eight roundings of float32
                assert own <= 1.1 * theirs + 1e-6, (shape, kind, own, theirs)


@needs_triton
def test_the_kernels_are_as_exact_as_torch():
    # a process of its own: Triton decides when a kernel is defined. Its interpreter cuts bfloat16 rather than round it
    subprocess.run(
        [sys.executable, "-c", "import test_fused_norm as t, torch; t.compare([torch.float32, torch.float16], 'cpu')"],
        env={
            **os.environ,
            "TRITON_INTERPRET": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[3])]),
        },
        check=True,
    )


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_for_gpus_that_are_not_here(capability):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from scripts.network import norm_kernels

    kinds = {**dict.fromkeys(("x", "y", "dx", "dy"), "*bf16"), **dict.fromkeys(("slope", "eps"), "fp32")}
    kinds |= dict.fromkeys(("voxels", "channels", "rows", "samples", "chunks"), "i32")
    tile = {"HIGH": 32, "WIDE": 32}
    parts = [one for one in vars(norm_kernels).values() if "HIGH" in getattr(one, "arg_names", ())]
    kernels = [one for one in parts if one.arg_names[0] != "chunk"]  # which a kernel calls
    assert len(kernels) == 6
    for kernel in kernels:
        signature = {name: "constexpr" if name in tile else kinds.get(name, "*fp32") for name in kernel.arg_names}
        assert "cubin" in compile(ASTSource(kernel, signature, tile), GPUTarget("cuda", capability, 32)).asm


@needs_triton
@needs_gpu
def test_the_kernels_on_a_gpu_are_as_exact_as_torch():
    compare([torch.float32, torch.float16, torch.bfloat16], "cuda")


@needs_triton
@needs_gpu
def test_network_on_a_gpu_uses_the_kernels(monkeypatch):
    seen = []
    apply = FusedNorm.apply
    monkeypatch.setattr(fused_norm.FusedNorm, "apply", lambda *inputs: seen.append(1) or apply(*inputs))
    image = torch.randn(1, 2, 16, 16, 16, device="cuda").contiguous(memory_format=LAST)
    one = network().cuda().to(memory_format=LAST)
    expected = one(image)
    assert torch.allclose(fuse_norms(one)(image), expected, atol=1e-2)  # convolutions are in TF32
    assert len(seen) == 10


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_without_a_gpu_nothing_changes(layout):
    image = torch.randn(2, 2, 16, 16, 16).contiguous(memory_format=layout)
    one, other = network(), fuse_norms(network())
    assert torch.equal(one(image), other(image))
    for net in (one, other):
        net(image).square().mean().backward()
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(left.grad, right.grad) for left, right in pairs)


def test_parameters_and_their_names_stay():
    one = network()
    names, before = list(one.state_dict()), list(one.parameters())
    fuse_norms(one)
    assert list(one.state_dict()) == names
    assert all(left is right for left, right in zip(before, one.parameters(), strict=True))
    assert sum(isinstance(module, InstanceNormLeakyReLU) for module in one.modules()) == 10


@pytest.mark.parametrize("how", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"])
def test_a_copy_has_its_own_weights(how):
    image, one = torch.randn(1, 2, 8, 8, 8), fuse_norms(network())
    other = how(one)
    expected = one(image)
    assert torch.equal(other(image), expected)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(one(image), expected)
    assert float(other(image).detach().abs().max()) == 0


@pytest.mark.parametrize(
    ("dims", "settings"),
    [
        (2, {}),
        (3, {"norm_name": "batch"}),
        (3, {"norm_name": "instance"}),  # without parameters
        (3, {"res_block": True}),
        (3, {"act_name": "relu"}),
    ],
    ids=["two dimensions", "batch norm", "no parameters", "residual", "another activation"],
)
def test_unsupported_norms_are_not_fused(dims, settings):
    one = fuse_norms(network(dims, **settings))
    kinds = {type(module) for block in one.modules() if hasattr(block, "norm1") for module in block.modules()}
    if settings.get("res_block"):  # the way up is of plain blocks in any DynUNet
        kinds = {type(module) for name, module in one.named_modules() if "norm" in name and "downsamples" in name}
    assert InstanceNormLeakyReLU not in kinds
    one(torch.randn(1, 2, *[16] * dims))


def test_a_single_voxel_is_refused_as_by_torch():
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        InstanceNormLeakyReLU(4, affine=True)(torch.randn(1, 4, 1, 1, 1))
