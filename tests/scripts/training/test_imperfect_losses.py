"""Losses that leave out ignored voxels, and losses of shares of raters."""

import monai.losses
import pytest
import torch
from torch import nn

from scripts.data.imperfect_labels import IGNORED
from scripts.errors import InputError
from scripts.training.boundary_loss import BoundaryLoss
from scripts.training.imperfect_losses import adapt_loss
from scripts.training.loss_terms import LossTerm, LossTerms
from scripts.training.losses import DeepSupervisionLoss, FocalTverskyLoss, MeanOverRegions, RegionDiceCELoss

REGIONS = {"WT": [1, 2], "TC": [1]}
CLASSES = {"background": [0], "NCR": [1], "ED": [2]}
OF_VOXELS = {
    "default": RegionDiceCELoss(),
    "weighted": RegionDiceCELoss(region_weights={"WT": 1, "TC": 3}, pos_weight=4.0),
    "tversky": FocalTverskyLoss(),
    "focal": monai.losses.DiceFocalLoss(sigmoid=True, batch=True),
    "generalized": monai.losses.GeneralizedDiceFocalLoss(sigmoid=True, batch=True),
    "terms": LossTerms(
        {
            "dice": LossTerm(MeanOverRegions(monai.losses.DiceLoss(sigmoid=True, batch=True))),
            "ce": LossTerm(nn.BCEWithLogitsLoss()),
        },
        ["WT", "TC"],
    ),
}


def ignore(loss: nn.Module, outputs: dict = REGIONS) -> nn.Module:
    return adapt_loss(loss, outputs, axes=3, ignore=255)


def batch(outputs: int = 2, columns: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and masks [2, K, 4, 4, 8], of which those after the first columns are ignored."""
    torch.manual_seed(0)
    logits = torch.randn(2, outputs, 4, 4, 8, requires_grad=True)
    label = torch.rand(2, outputs, 4, 4, 8).argmax(1, keepdim=True)
    target = torch.cat([label == k for k in range(outputs)], 1).float()
    target[..., columns:] = IGNORED
    return logits, target


@pytest.mark.parametrize("name", OF_VOXELS)
def test_loss_is_that_of_the_remaining_voxels(name):
    logits, target = batch()
    found = ignore(OF_VOXELS[name])(logits, target)
    assert float(found) == pytest.approx(float(OF_VOXELS[name](logits[..., :6], target[..., :6])), rel=1e-5)


def test_gradient_is_that_of_the_remaining_voxels():
    logits, target = batch()
    ignore(RegionDiceCELoss())(logits, target).backward()
    found, logits.grad = logits.grad, None
    RegionDiceCELoss()(logits[..., :6], target[..., :6]).backward()
    assert not found[..., 6:].any()
    assert torch.allclose(found, logits.grad, atol=1e-7)


def test_softmax_of_classes_leaves_voxels_out_too():
    loss = LossTerms({"ce": LossTerm(nn.CrossEntropyLoss())}, [*CLASSES])
    logits, target = batch(outputs=3)
    expected = float(loss(logits[..., :6], target[..., :6]))
    assert float(ignore(loss, CLASSES)(logits, target)) == pytest.approx(expected, rel=1e-5)


def test_dice_of_each_patch_stays_that_of_each_patch():
    loss = RegionDiceCELoss(batch=False)
    logits, target = batch(columns=8)
    target[1, ..., 3:] = IGNORED  # another number in each patch
    each = [float(loss(logits[k : k + 1, ..., :end], target[k : k + 1, ..., :end])) for k, end in enumerate((8, 3))]
    assert float(ignore(loss)(logits, target)) == pytest.approx(sum(each) / 2, rel=1e-5)


def test_coarse_heads_leave_out_the_voxels_below_them():
    logits, target = batch()
    target[..., 5] = IGNORED  # half of the voxels under a coarse logit
    coarse = torch.randn(2, 2, 2, 2, 4)
    found = DeepSupervisionLoss(ignore(RegionDiceCELoss()))([logits, coarse], target)
    repeated = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    heads = [RegionDiceCELoss()(head[..., :5], target[..., :5]) for head in (logits, repeated)]
    assert float(found) == pytest.approx(float(2 * heads[0] + heads[1]) / 3, rel=1e-5)


@pytest.mark.parametrize("by_batch", [True, False])
def test_a_batch_without_counted_voxels_costs_nothing(by_batch):
    logits, target = batch(columns=0)
    loss = ignore(RegionDiceCELoss(batch=by_batch))(logits, target)
    loss.backward()
    assert float(loss) == pytest.approx(0, abs=1e-3)
    assert not logits.grad.any()


def test_without_a_value_to_ignore_the_loss_is_itself():
    loss = RegionDiceCELoss()
    assert adapt_loss(loss, REGIONS, axes=3) is loss


def test_the_terms_of_a_loss_are_still_logged():
    loss = ignore(OF_VOXELS["terms"])
    loss(*batch())
    assert {*loss.values} == {"dice", "ce"}


@pytest.mark.parametrize(
    "spatial", [BoundaryLoss(), MeanOverRegions(monai.losses.SoftclDiceLoss(sigmoid=True))], ids=["boundary", "cldice"]
)
def test_a_loss_of_places_is_refused_as_later_term(spatial):
    terms = {"dice": LossTerm(RegionDiceCELoss()), "later": LossTerm(spatial, start=0.5)}
    with pytest.raises(InputError, match=r"the loss depends on where voxels lie.* take another recipe"):
        ignore(LossTerms(terms, ["WT", "TC"], lambda: 0.0))


@pytest.mark.parametrize("name", OF_VOXELS)
def test_losses_of_overlap_take_shares_of_raters(name):
    assert adapt_loss(OF_VOXELS[name], REGIONS, axes=3, soft=True) is OF_VOXELS[name]


def test_a_loss_of_masks_refuses_shares_of_raters():
    class OfMasks(nn.Module):
        def forward(self, logits, target):
            return nn.functional.binary_cross_entropy_with_logits(logits, (target > 0.5).float())

    for loss in (OfMasks(), BoundaryLoss()):
        with pytest.raises(InputError, match="takes masks of 0 and 1: give raters draw or staple, or another loss"):
            adapt_loss(loss, REGIONS, axes=3, soft=True)


def test_several_processes_share_dice_where_one_counts_nothing(in_two_processes):
    def loss(rank: int) -> float:
        logits, target = batch(columns=8 if rank == 0 else 0)
        return float(ignore(RegionDiceCELoss(lambda_ce=0))(logits, target))

    alone = float(RegionDiceCELoss(lambda_ce=0)(*batch(columns=8)))
    assert in_two_processes(loss) == pytest.approx([alone, alone], abs=1e-4)
