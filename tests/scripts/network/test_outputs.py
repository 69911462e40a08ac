"""Every usual form of a network's output is read in the same way."""

import pytest
import torch
from torch import nn

from scripts.errors import InputError
from scripts.network.outputs import LogitsNetwork, read_logits, read_output

FINE, MIDDLE, COARSE = (torch.randn(2, 3, size, size, size) for size in (8, 4, 2))


@pytest.mark.parametrize(
    "output",
    [
        FINE,
        torch.stack([FINE, FINE + 1], 1),
        [FINE, MIDDLE],
        (COARSE, MIDDLE, FINE),
        [FINE + 1, FINE],  # as of U-Net++, whose last head is built upon the others
        (FINE, torch.tensor(0.5)),
        {"logits": FINE, "heads": [MIDDLE, COARSE], "embedding": torch.randn(2, 16)},
    ],
    ids=["tensor", "stacked", "list", "coarsest first", "equally fine", "with a scalar", "dictionary"],
)
def test_logits_are_found_in_every_form(output):
    assert torch.equal(read_logits(output, 3), FINE)


def test_heads_come_finest_first_and_the_rest_by_name():
    found = read_output([COARSE, FINE, torch.tensor(0.5), MIDDLE], 3)
    assert [head.shape[2] for head in found.heads] == [8, 4, 2]
    assert found.others == {"auxiliary": torch.tensor(0.5)}
    named = read_output({"logits": FINE, "heads": [MIDDLE], "edges": COARSE}, 3)
    assert len(named.heads) == 2
    assert named.others["edges"] is COARSE


@pytest.mark.parametrize("output", [{"out": FINE}, [torch.tensor(1.0)], torch.randn(2, 3), None])
def test_other_forms_are_refused_in_one_sentence(output):
    with pytest.raises(InputError, match=r"the network returned .*: expected logits"):
        read_output(output, 3)


class Several(nn.Module):
    """Returns two heads, in training and in evaluation."""

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [image, 2 * image]


def test_wrapped_network_returns_its_logits_alone_in_evaluation():
    network = LogitsNetwork(Several())
    assert len(network.train()(FINE)) == 2
    assert torch.equal(network.eval()(FINE), 2 * FINE)
    assert torch.equal(torch.jit.trace(network.eval(), FINE)(FINE), 2 * FINE)
