"""Half precision is used where the hardware supports it, and layouts change no result."""

import copy

import pytest
import torch
from ignite.engine import Engine, Events
from monai.networks.nets import DynUNet

from scripts.network.fused_norm import InstanceNormLeakyReLU
from scripts.network.outputs import read_logits, read_output
from scripts.network.precision import (
    CudnnAutotuning,
    PrecisionInferer,
    channels_last_is_faster,
    half_dtype,
    half_is_faster,
    match_memory_format,
    prepare_network,
)


def network(dims: int = 3) -> DynUNet:
    torch.manual_seed(0)
    return DynUNet(dims, 2, 3, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 8, 8], deep_supervision=True, deep_supr_num=1)


def gradients(one: torch.nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    torch.cat([head.flatten() for head in read_output(one(image), image.dim() - 2).heads]).square().mean().backward()
    return [p.grad for p in one.parameters() if p.grad is not None]


@pytest.mark.parametrize(("units", "faster"), [({"amx_bf16": True}, True), ({"amx_bf16": False}, False), ({}, False)])
def test_half_precision_on_cpu_requires_hardware_support(units, faster, monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: units)
    assert half_is_faster("cpu") is faster


def test_half_precision_is_faster_on_a_gpu():
    assert half_is_faster("cuda")
    assert half_dtype("cpu") == "bfloat16"


@pytest.mark.parametrize("half", [None, "bfloat16"])
def test_logits_are_float32_whatever_the_network_computed_in(half):
    kinds = []
    one = network()
    one.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    logits = PrecisionInferer(half)(torch.randn(1, 2, 8, 8, 8), one)
    assert kinds == [torch.bfloat16 if half else torch.float32]
    assert logits.dtype == torch.float32


def test_heads_in_a_list_are_float32_too():
    heads = PrecisionInferer("bfloat16")(torch.randn(1, 2, 4, 4), lambda image: [image.bfloat16(), image.bfloat16()])
    assert [head.dtype for head in heads] == [torch.float32] * 2


def test_recomputed_blocks_keep_gradients_and_survive_a_copy():
    image = torch.randn(2, 2, 8, 8, 8)
    plain, again = prepare_network(network()), prepare_network(network(), recompute=True)
    average = copy.deepcopy(again)  # as the averaged weights are made
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.zero_()
    for expected, found in zip(gradients(plain, image), gradients(again, image), strict=True):
        assert torch.allclose(expected, found, atol=1e-6)
    assert again.state_dict().keys() == plain.state_dict().keys()
    assert float(read_logits(average(image), 3).abs().max()) == 0  # the copy computes with its own weights


def test_recomputed_blocks_save_memory():
    def remembered(one: torch.nn.Module) -> int:
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.setdefault(tensor.untyped_storage().data_ptr(), tensor) is None or tensor, lambda t: t
        ):
            one(torch.randn(1, 2, 16, 16, 16))
        return sum(tensor.untyped_storage().nbytes() for tensor in sizes.values())

    assert remembered(prepare_network(network(), recompute=True)) < 0.6 * remembered(network())


@pytest.mark.parametrize("dims", [2, 3])
def test_the_layout_in_memory_changes_no_logit(dims):
    image = torch.randn(1, 2, *[8] * dims)
    plain, last = network(dims).eval(), prepare_network(network(dims), channels_last=True).eval()
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    assert last.input_block.conv1.conv.weight.is_contiguous(memory_format=layout)
    assert match_memory_format(image, last).is_contiguous(memory_format=layout)
    assert match_memory_format(image, plain) is image
    assert torch.allclose(PrecisionInferer()(image, plain), PrecisionInferer()(image, last), atol=1e-5)


def test_logits_are_contiguous_whatever_the_layout_of_the_network():
    output = PrecisionInferer()(torch.randn(1, 2, 8, 8, 8), prepare_network(network(), channels_last=True))
    heads = read_output(output, 3).heads
    assert [head.shape[2] for head in heads] == [8, 4]
    assert all(head.is_contiguous() for head in heads)


def test_the_norms_are_fused_where_features_lie_side_by_side():
    found = [
        any(isinstance(module, InstanceNormLeakyReLU) for module in prepare_network(network(), last).modules())
        for last in (False, True)
    ]
    assert found == [False, True]


def test_channels_last_is_faster_on_a_gpu_where_norms_fuse(monkeypatch):
    monkeypatch.setattr("scripts.network.precision.kernels_available", lambda: True)
    assert channels_last_is_faster("cuda:0", network())
    assert not channels_last_is_faster("cuda", network(2))
    assert not channels_last_is_faster(
        "cuda", torch.nn.Sequential(torch.nn.Conv3d(1, 1, 3), torch.nn.InstanceNorm3d(1))
    )
    assert not channels_last_is_faster("cpu", network())


@pytest.mark.parametrize("allowed", [True, False])
def test_cudnn_autotunes_only_if_allowed(allowed, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    engine = Engine(lambda *_: None)
    CudnnAutotuning(allowed).attach(engine)
    engine.fire_event(Events.EPOCH_STARTED)
    assert torch.backends.cudnn.benchmark == allowed
    assert torch.backends.cudnn.deterministic != allowed
