"""The loss of whole validation volumes."""

import pytest
import torch
from monai.engines import SupervisedEvaluator
from monai.transforms import Activationsd

from scripts.training.losses import RegionDiceCELoss
from scripts.training.validation_loss import ValidationLoss


def validated(cases: list[torch.Tensor], loss: torch.nn.Module, **others) -> float:
    """`val_loss` of cases whose logits are their images."""
    batches = [{"image": image, "label": (image > 0.5).to(torch.uint8), "case": ["one"]} for image in cases]
    evaluator = SupervisedEvaluator("cpu", batches, torch.nn.Identity(), val_handlers=[ValidationLoss(loss)], **others)
    evaluator.run()
    return evaluator.state.metrics["val_loss"]


def volumes(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(1, 2, 5 + number, 4, 4, generator=generator) for number in range(count)]


def test_validation_loss_is_the_mean_of_cases_from_logits():
    loss, cases = RegionDiceCELoss(), volumes(3)
    expected = torch.stack([loss(image, (image > 0.5).float()) for image in cases]).mean()
    assert validated(cases, loss, postprocessing=Activationsd("pred", sigmoid=True)) == pytest.approx(expected.item())
    assert loss.training


def test_processes_with_unequal_numbers_of_cases_get_one_mean(in_two_processes):
    cases = volumes(3)
    alone = validated(cases, RegionDiceCELoss())
    found = in_two_processes(lambda rank: validated(cases[rank::2], RegionDiceCELoss()))
    assert found == pytest.approx([alone, alone])


def test_loss_of_several_raters_is_their_mean():
    loss, (image,) = RegionDiceCELoss(), volumes(1)
    raters = [(image > limit).float() for limit in (0.0, 1.0)]
    batch = {"image": image, "label": torch.cat(raters, 1), "case": ["one"]}
    evaluator = SupervisedEvaluator("cpu", [batch], torch.nn.Identity(), val_handlers=[ValidationLoss(loss)])
    evaluator.run()
    expected = sum(float(loss(image, own)) for own in raters) / 2
    assert evaluator.state.metrics["val_loss"] == pytest.approx(expected)
