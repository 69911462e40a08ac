"""The U-Net++ of separable blocks: nodes, attention within windows, gates and heads."""

import pytest
import torch

from scripts.errors import InputError
from scripts.network.dense_trans import DenseTrans
from scripts.network.precision import prepare_network
from scripts.network.window_attention import WindowBlock


def pixels_seen(block: WindowBlock, row: int, column: int, size: int = 12) -> torch.Tensor:
    """The pixels that an output pixel depends on, [H, W]."""
    image = torch.randn(1, 4, size, size, requires_grad=True)
    block(image)[0, :, row, column].sum().backward()
    assert image.grad is not None
    return image.grad.abs().sum((0, 1)) > 0


def test_attention_sees_its_own_window_alone():
    seen = pixels_seen(WindowBlock(4, window=4), 5, 6)
    assert seen[4:8, 4:8].all()
    assert int(seen.sum()) == 16


def test_shifted_window_lies_across_the_others():
    seen = pixels_seen(WindowBlock(4, window=4, shifted=True), 5, 6)
    assert seen[2:6, 6:10].all()
    assert int(seen.sum()) == 16


def test_shifted_window_does_not_join_opposite_borders():
    torch.manual_seed(0)  # some weights silence a pixel
    seen = pixels_seen(WindowBlock(4, window=4, shifted=True), 0, 0)
    assert seen[:2, :2].all()
    assert int(seen.sum()) == 4


def test_image_is_padded_to_whole_windows():
    assert WindowBlock(4, window=8)(torch.randn(2, 4, 9, 21)).shape == (2, 4, 9, 21)


def test_attention_starts_as_a_small_addition():
    block, image = WindowBlock(8), torch.randn(1, 8, 16, 16)
    assert float((block(image) - image).std()) < 0.2


@pytest.mark.parametrize("settings", [{}, {"residual": True, "attention_levels": 2, "gates": "multi"}])
def test_any_image_size_gives_logits_of_it(settings):
    network = DenseTrans(3, 2, [4, 8, 8], **settings).eval()
    assert network(torch.randn(1, 3, 21, 34)).shape == (1, 2, 21, 34)


def test_node_takes_all_earlier_nodes_and_the_deeper_one():
    network = DenseTrans(3, 2, [4, 6, 8])
    inputs = {name: node.convolutions[0][0].in_channels for name, node in network.nodes.items()}
    assert inputs == {"0_0": 3, "0_1": 4 + 6, "0_2": 2 * 4 + 6, "1_0": 4, "1_1": 6 + 8, "2_0": 6}


def test_four_levels_have_six_gates():
    assert len(DenseTrans(3, 2, [4, 4, 4, 4], gates="single").gates) == 6


def test_training_returns_all_heads_and_evaluation_the_last():
    network, image = DenseTrans(3, 2, [4, 4, 4, 4], heads=3), torch.randn(1, 3, 16, 16)
    heads = network(image)
    assert len(heads) == 3
    assert torch.equal(network.eval()(image), heads[-1])


def test_recomputed_nodes_have_the_same_gradients():
    def gradient(recompute: bool) -> tuple[torch.Tensor, int]:
        torch.manual_seed(0)
        network, passes = prepare_network(DenseTrans(2, 1, [4, 4], attention_levels=1), recompute=recompute), []
        network.nodes["0_0"].convolutions.register_forward_pre_hook(lambda *_: passes.append(1))
        network(torch.randn(1, 2, 16, 16)).sum().backward()
        found = [weight.grad.flatten() for weight in network.parameters() if weight.grad is not None]
        return torch.cat(found), len(passes)

    (again, twice), (plain, once) = gradient(True), gradient(False)
    assert (twice, once) == (2, 1)
    assert torch.allclose(again, plain, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"gates": "double"}, {"heads": 3}, {"heads": 0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match="expected two levels or more, gates of none, single, multi"):
        DenseTrans(3, 2, [4, 4, 4], **wrong)
