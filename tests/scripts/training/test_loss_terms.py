"""A loss of several terms is their weighted sum, whatever heads and outputs the network has."""

import pytest
import torch
from torch import nn

from scripts.errors import InputError
from scripts.training.loss_terms import LossTerm, LossTerms
from scripts.training.losses import DeepSupervisionLoss, FocalTverskyLoss, RegionDiceCELoss

NAMES = ["WT", "TC", "ET"]


def pair(size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 3, size, size, size), (torch.rand(2, 3, size, size, size) > 0.7).float()


def test_sum_is_that_of_the_weighted_terms():
    logits, target = pair()
    terms = {"a": LossTerm(RegionDiceCELoss(), 2.0), "b": LossTerm(FocalTverskyLoss(), 0.5)}
    found = LossTerms(terms, NAMES)(logits, target)
    expected = 2.0 * RegionDiceCELoss()(logits, target) + 0.5 * FocalTverskyLoss()(logits, target)
    torch.testing.assert_close(found, expected)


def test_term_of_one_region_gives_gradient_to_it_alone():
    logits, target = pair()
    logits.requires_grad_()
    LossTerms({"et": LossTerm(FocalTverskyLoss(), regions=["ET"])}, NAMES)(logits, target).backward()
    assert [float(part.abs().sum()) > 0 for part in logits.grad.unbind(1)] == [False, False, True]


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.0), (0.4, 0.0), (0.5, 1.0), (0.6, 2.0), (1.0, 2.0)])
def test_term_starts_and_rises_with_the_run(progress, weight):
    assert LossTerm(nn.Identity(), 2.0, start=0.4, ramp=0.2).weight_at(progress) == pytest.approx(weight)


def test_deep_supervision_weighs_all_terms_equally():
    logits, target = pair()
    output = {"logits": logits, "heads": [torch.randn(2, 3, 4, 4, 4)]}
    single = [DeepSupervisionLoss(loss)(output, target) for loss in (RegionDiceCELoss(), FocalTverskyLoss())]
    both = LossTerms({"a": LossTerm(RegionDiceCELoss()), "b": LossTerm(FocalTverskyLoss(), 3.0)}, NAMES)
    torch.testing.assert_close(DeepSupervisionLoss(both)(output, target), single[0] + 3.0 * single[1])


def test_values_are_those_of_the_finest_head():
    logits, target = pair()
    loss = DeepSupervisionLoss(LossTerms({"region": LossTerm(RegionDiceCELoss(), 5.0)}, NAMES))
    for shift in (1.0, 0.0):
        loss({"logits": logits + shift, "heads": [torch.randn(2, 3, 4, 4, 4)]}, target)
    torch.testing.assert_close(loss.values, {"region": RegionDiceCELoss()(logits, target)})


def test_term_of_another_output_is_counted_once():
    logits, target = pair()
    terms = {"region": LossTerm(RegionDiceCELoss()), "edges": LossTerm(nn.MSELoss(), 0.1, output="edges")}
    output = {"logits": logits, "heads": [torch.randn(2, 3, 4, 4, 4)], "edges": logits + 1}
    without = DeepSupervisionLoss(RegionDiceCELoss())({**output, "edges": None}, target)
    found = DeepSupervisionLoss(LossTerms(terms, NAMES))(output, target)
    torch.testing.assert_close(found, without + 0.1 * nn.MSELoss()(logits + 1, target))
    with pytest.raises(InputError, match="output edges, but the network returns logits"):
        DeepSupervisionLoss(LossTerms(terms, NAMES))(logits, target)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LossTerms({"a": LossTerm(RegionDiceCELoss(), regions=["EP"])}, NAMES), "region EP: expected one of"),
        (lambda: LossTerms({}, NAMES), "has no terms"),
        (lambda: LossTerm(RegionDiceCELoss(), start=2.0), "start 2.0"),
    ],
)
def test_wrong_terms_are_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()
