"""Does a recorded training step do what the step does, and is nothing else recorded?"""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from monai.networks.nets import DynUNet
from torch import nn

from scripts.network.graphs import RecordedPass, Recordings, recordable
from scripts.network.precision import PrecisionInferer, arranged

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class OnGpu(torch.Tensor):
    """Says so."""

    is_cuda = True


def network(**knobs) -> DynUNet:
    torch.manual_seed(0)
    strides = [1, 2, 2]
    knobs = {"deep_supervision": True, "deep_supr_num": 1, **knobs}
    return arranged(DynUNet(3, 2, 3, [3] * 3, strides, strides[1:], filters=[4, 8, 8], **knobs))


def record_on_a_cpu(own: RecordedPass, call) -> None:
    """Graphs whose replay computes again, with the same fixed places in memory."""
    live = call(own.inputs)
    own.in_list = True
    own.heads = [torch.empty_like(head).detach() for head in live]
    own.slopes, own.gradients = ([torch.empty_like(one) for one in places] for places in (own.heads, own.parameters))

    @torch.enable_grad()
    def there() -> None:
        live[:] = call(own.inputs)
        with torch.no_grad():
            torch._foreach_copy_(own.heads, live)

    def back() -> None:
        torch._foreach_copy_(own.gradients, torch.autograd.grad(live, own.parameters, own.slopes))

    own.there, own.back = SimpleNamespace(replay=there), SimpleNamespace(replay=back)


def trained(one: nn.Module, call, set_to_none: bool, accumulated: int = 1) -> list[torch.Tensor]:
    """Weights after three steps."""
    optimizer = torch.optim.AdamW(one.parameters(), lr=1e-2)
    image = torch.randn(6, 2, 1, 2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    image = image.to(next(one.parameters()).device)
    for step in range(3):
        optimizer.zero_grad(set_to_none=set_to_none)
        for part in range(accumulated):
            sum(head.square().mean() for head in call(image[step, part])).backward()
        nn.utils.clip_grad_norm_(one.parameters(), 0.1)
        optimizer.step()
    return [parameter.detach() for parameter in one.parameters()]


WAYS = pytest.mark.parametrize(
    ("set_to_none", "accumulated"),
    [(True, 1), (False, 1), (True, 2), (False, 2)],
    ids=["", "zeros", "two", "two zeros"],
)


@WAYS
def test_replayed_steps_leave_the_weights_of_plain_ones(monkeypatch, set_to_none, accumulated):
    monkeypatch.setattr(RecordedPass, "_record", record_on_a_cpu)
    one, other = network(), network()
    replayed = trained(one, RecordedPass(one, one, torch.zeros(1, 2, 8, 8, 8)), set_to_none, accumulated)
    assert all(
        torch.equal(*pair) for pair in zip(replayed, trained(other, other, set_to_none, accumulated), strict=True)
    )


@gpu
@WAYS
def test_on_a_gpu_weights_are_the_same_bit_for_bit(set_to_none, accumulated):
    torch.backends.cudnn.deterministic = True
    weights = []
    for graphs in (True, False):
        one, infer = arranged(network().cuda(), channels_last=True), PrecisionInferer("bfloat16", graphs)
        weights.append(trained(one, lambda image, one=one, infer=infer: infer(image, one), set_to_none, accumulated))
        assert not graphs or infer.recordings.recorded is not None
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))


def test_one_call_waits_for_its_way_back_at_a_time(monkeypatch):
    monkeypatch.setattr(RecordedPass, "_record", record_on_a_cpu)
    image, one = torch.zeros(1, 2, 8, 8, 8), network()
    recorded = RecordedPass(one, one, image)
    assert recorded.fits(image)
    assert not recorded.fits(image[:, :, :4])
    assert not recorded.fits(image.double())
    heads = recorded(image)
    assert not recorded.fits(image)
    heads[0].sum().backward()
    assert recorded.fits(image)


def test_to_record_changes_neither_buffers_nor_random_numbers(monkeypatch):
    one = network(norm_name="batch", dropout=0.5)
    before, state = copy.deepcopy(one.state_dict()), torch.get_rng_state()
    monkeypatch.setattr(RecordedPass, "_record", record_on_a_cpu)
    RecordedPass(one, one, torch.randn(1, 2, 8, 8, 8, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(values, before[name]) for name, values in one.state_dict().items())
    assert all(parameter.grad is None for parameter in one.parameters())


def test_only_training_on_a_gpu_is_recorded(monkeypatch):
    monkeypatch.setattr(RecordedPass, "_record", record_on_a_cpu)
    image, one = torch.zeros(1, 2, 8, 8, 8), network()
    there = image.as_subclass(OnGpu)
    recordings = Recordings()
    assert recordings.of(one, one, image) is None
    assert recordings.of(one.eval(), one, there) is None
    with torch.no_grad():
        assert recordings.of(one.train(), one, there) is None
    assert recordings.of(one, one, there) is recordings.of(one, one, there) is not None


def test_a_network_that_cannot_be_recorded_is_told_of_once(monkeypatch, caplog):
    def fail(*_) -> None:
        raise RuntimeError("it waits\nand more")

    monkeypatch.setattr(RecordedPass, "_record", fail)
    recordings, one = Recordings(), network()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert recordings.of(one, one, torch.zeros(1, 2, 8, 8, 8).as_subclass(OnGpu)) is None
    assert [record.getMessage() for record in caplog.records] == ["training goes on without CUDA graphs: it waits"]


def hooked() -> nn.Module:
    one = network()
    one.input_block.register_forward_hook(lambda *_: None)
    return one


@pytest.mark.parametrize(
    "one",
    [hooked(), arranged(network(), recompute=True), torch.compile(network())],
    ids=["hooked", "recomputed", "compiled"],
)
def test_a_network_with_more_than_modules_is_not_recorded(one):
    assert recordable(network())
    assert not recordable(one)


class Reading(nn.Conv3d):
    """Waits for the GPU."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = super().forward(image)
        return logits * float(logits.detach().abs().max())


@gpu
def test_on_a_gpu_a_network_that_waits_trains_unrecorded(caplog):
    one, infer = Reading(2, 3, 3).cuda(), PrecisionInferer(cuda_graphs=True)
    image = torch.randn(1, 2, 8, 8, 8, device="cuda")
    for _ in range(2):
        infer(image, one).sum().backward()
    assert infer.recordings.recorded is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert torch.cuda.get_sync_debug_mode() == 0
