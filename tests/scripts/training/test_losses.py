"""Losses on small tensors, compared with values calculated by hand.

Everywhere below B = 2 patches of 2 voxels. A logit of ln 3 is a probability of 3/4, 0 is 1/2, -ln 3 is 1/4.

             probabilities (patch 1 | patch 2)   truth           overlap I   sum p   sum g
    a        3/4  1/2 | 1/4  1/2                 1 0 | 0 1       5/4         2       2
    b        1/2  1/2 | 1/2  1/2                 1 1 | 0 0       1           2       2
    c        1/2  1/2 | 1/2  1/2                 1 0 | 0 0       1/2         2       1
"""

import math
from itertools import pairwise

import pytest
import torch

from scripts.network.outputs import read_output
from scripts.training.losses import DeepSupervisionLoss, FocalTverskyLoss, RegionDiceCELoss

LN2, LN3 = math.log(2), math.log(3)
SURE = 1e4  # a logit whose sigmoid is exactly 1 in float32


def by_patch(*regions: list[float]) -> torch.Tensor:
    """[region][patch 1 voxel 1, voxel 2, patch 2 voxel 1, voxel 2] as [B, R, 2]."""
    return torch.tensor(regions).reshape(len(regions), 2, 2).transpose(0, 1).contiguous()


LOGITS = by_patch([LN3, 0, -LN3, 0], [0, 0, 0, 0], [0, 0, 0, 0])
TRUTH = by_patch([1, 0, 0, 1], [1, 1, 0, 0], [1, 0, 0, 0]).float()

# Dice over the batch: 1 - 2 I / (sum p + sum g)
DICE = [1 - 2.5 / 4, 1 - 2 / 4, 1 - 1 / 3]
# cross-entropy: a: (ln 4/3 + ln 2 + ln 4/3 + ln 2) / 4; b and c: ln 2 for every voxel
ENTROPY = [math.log(8 / 3) / 2, LN2, LN2]


def value(loss: torch.nn.Module, regions: int = 3) -> float:
    return float(loss(LOGITS[:, :regions], TRUTH[:, :regions]))


@pytest.mark.parametrize("regions", [1, 2, 3])
def test_dice_and_cross_entropy_are_the_mean_over_regions(regions):
    expected = (sum(DICE[:regions]) + sum(ENTROPY[:regions])) / regions
    assert value(RegionDiceCELoss(), regions) == pytest.approx(expected, abs=1e-5)


def test_the_two_parts_have_their_weights():
    expected = (2 * sum(DICE) + 0.5 * sum(ENTROPY)) / 3
    assert value(RegionDiceCELoss(lambda_dice=2, lambda_ce=0.5)) == pytest.approx(expected, abs=1e-5)


def test_region_weights_hold_for_both_parts():
    # of 1 : 2 : 1, which is 1/4, 1/2, 1/4
    parts = [d + e for d, e in zip(DICE, ENTROPY, strict=True)]
    expected = parts[0] / 4 + parts[1] / 2 + parts[2] / 4
    assert value(RegionDiceCELoss(region_weights={"a": 1, "b": 2, "c": 1})) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", [RegionDiceCELoss, FocalTverskyLoss])
def test_only_the_ratio_of_region_weights_counts(kind):
    small, large = ({"a": k, "b": 3 * k, "c": 2 * k} for k in (1, 100))
    assert value(kind(region_weights=small)) == pytest.approx(value(kind(region_weights=large)), rel=1e-6)
    equal = value(kind(region_weights={"a": 7, "b": 7, "c": 7}))
    assert equal == pytest.approx(value(kind()), rel=1e-6)


def test_two_processes_with_one_patch_match_one_with_both(in_two_processes):
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 4, 4), (torch.rand(2, 3, 4, 4, 4) > 0.7).float()

    def slope(patches: slice) -> torch.Tensor:
        learned = torch.ones(3, 1, 1, 1, requires_grad=True)
        RegionDiceCELoss()(learned * logits[patches], target[patches]).backward()
        return learned.grad.flatten()

    parts = in_two_processes(lambda rank: slope(slice(rank, rank + 1)).tolist())
    averaged = torch.tensor(parts).mean(0)  # as DistributedDataParallel does
    assert averaged == pytest.approx(slope(slice(None)), abs=1e-6)


def test_dice_by_patch_counts_false_positive_in_empty_patch_fully():
    # region b by patch: 1 - 2 * 1 / (1 + 2) = 1/3, and 1 - 0 / (1 + 0) = 1 for the patch without tumour
    loss = RegionDiceCELoss(lambda_ce=0, batch=False)
    assert float(loss(LOGITS[:, 1:2], TRUTH[:, 1:2])) == pytest.approx((1 / 3 + 1) / 2, abs=1e-4)


def test_nested_regions_do_not_compete():
    """The slope of one region does not depend on another's logits, as it does under a softmax."""
    slopes = []
    for other in (-3.0, 3.0):
        logits = LOGITS.clone().requires_grad_()
        RegionDiceCELoss()(torch.cat([logits[:, :1], logits[:, 1:2] + other], 1), TRUTH[:, :2]).backward()
        slopes.append(logits.grad[:, 0])
    assert torch.allclose(*slopes)


@pytest.mark.parametrize(
    ("alpha", "beta", "gamma"), [(0.3, 0.7, 0.75), (0.7, 0.3, 0.75), (0.5, 0.5, 1.0), (0.3, 0.7, 2.0)]
)
def test_focal_tversky_applies_the_power_to_every_region(alpha, beta, gamma):
    # true positives I, false positives sum p - I, false negatives sum g - I:
    #   a: 5/4, 3/4, 3/4      b: 1, 1, 1      c: 1/2, 3/2, 1/2
    counts = [(1.25, 0.75, 0.75), (1, 1, 1), (0.5, 1.5, 0.5)]
    expected = [(1 - tp / (tp + alpha * fp + beta * fn)) ** gamma for tp, fp, fn in counts]
    loss = FocalTverskyLoss(alpha=alpha, beta=beta, gamma=gamma)
    assert value(loss) == pytest.approx(sum(expected) / 3, abs=1e-4)
    weighted = FocalTverskyLoss(alpha, beta, gamma, region_weights={"a": 1, "b": 1, "c": 2})
    assert value(weighted) == pytest.approx((expected[0] + expected[1] + 2 * expected[2]) / 4, abs=1e-4)


def test_focal_tversky_prefers_false_positives_to_false_negatives_by_default():
    truth = by_patch([1, 1, 0, 0]).float()
    too_many, too_few = (by_patch([SURE * s for s in signs]) for signs in ([1, 1, 1, -1], [1, -1, -1, -1]))
    loss = FocalTverskyLoss()
    assert float(loss(too_many, truth)) < float(loss(too_few, truth))


@pytest.mark.parametrize("kind", [RegionDiceCELoss, FocalTverskyLoss])
@pytest.mark.parametrize("truth", [TRUTH, torch.zeros_like(TRUTH)], ids=["tumour", "no tumour"])
def test_perfect_prediction_costs_almost_nothing_with_finite_gradient(kind, truth):
    logits = (SURE * (2 * truth - 1)).requires_grad_()
    loss = kind()(logits, truth)
    loss.backward()
    assert float(loss.detach()) < 1e-4
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("kind", [RegionDiceCELoss, FocalTverskyLoss])
def test_completely_wrong_prediction_has_a_finite_gradient(kind):
    logits = (-SURE * (2 * TRUTH - 1)).requires_grad_()
    kind()(logits, TRUTH).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("kind", [RegionDiceCELoss, FocalTverskyLoss])
def test_gradient_descent_steps_lower_the_loss_of_every_region(kind):
    logits, loss = torch.zeros_like(LOGITS).requires_grad_(), kind()
    by_region = [(logits[:, r : r + 1], TRUTH[:, r : r + 1]) for r in range(3)]
    before = [loss(*region).item() for region in by_region]
    optimizer = torch.optim.SGD([logits], lr=1.0)
    for _ in range(20):
        optimizer.zero_grad()
        loss(logits, TRUTH).backward()
        optimizer.step()
    after = [loss(*region).item() for region in by_region]
    assert all(a < 0.9 * b for a, b in zip(after, before, strict=True))


# Three heads that are 1, 2 and 3 everywhere against a truth of 0: mean square errors of 1, 4 and 9
HEADS = torch.stack([torch.full((2, 1, 2), float(k)) for k in (1, 2, 3)], dim=1)  # [B, heads, R, voxels]
NOTHING = torch.zeros(2, 1, 2)


def test_each_coarser_head_counts_half():
    # weights 1 : 1/2 : 1/4, which is 4/7, 2/7, 1/7: (4 * 1 + 2 * 4 + 1 * 9) / 7
    assert float(DeepSupervisionLoss(torch.nn.MSELoss())(HEADS, NOTHING)) == pytest.approx(21 / 7)


@pytest.mark.parametrize("heads", [1, 2, 5])
@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0])
def test_the_weights_of_heads_sum_to_1_and_fall(heads, decay):
    weights = DeepSupervisionLoss(torch.nn.MSELoss(), decay=decay).head_weights(heads)
    assert sum(weights) == pytest.approx(1)
    assert all(coarser == pytest.approx(decay * finer) for finer, coarser in pairwise(weights))


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, 21 / 7),  # as without annealing
        (0.5, (16 * 1 + 4 * 4 + 1 * 9) / 21),  # decay 1/4: weights 16 : 4 : 1
        (1.0, 1.0),  # the finest head alone
    ],
)
def test_annealing_ends_on_the_finest_head(progress, expected):
    loss = DeepSupervisionLoss(torch.nn.MSELoss(), progress=lambda: progress, anneal=True)
    assert float(loss(HEADS, NOTHING)) == pytest.approx(expected)


def test_without_annealing_progress_changes_nothing():
    loss = DeepSupervisionLoss(torch.nn.MSELoss(), progress=lambda: 0.9)
    assert float(loss(HEADS, NOTHING)) == pytest.approx(3)


def test_a_network_without_heads_is_scored_by_its_output_alone():
    assert float(DeepSupervisionLoss(torch.nn.MSELoss())(HEADS[:, 1], NOTHING)) == pytest.approx(4)


class Product(torch.nn.Module):
    """A loss of the kind that autocast would compute in half precision."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (logits.flatten(1) @ target.flatten(1).T).sum()


@pytest.mark.parametrize("inner", [RegionDiceCELoss(), Product()], ids=["dice and entropy", "product"])
def test_the_loss_is_computed_in_full_precision_under_autocast(inner):
    logits = LOGITS.to(torch.bfloat16)
    loss = DeepSupervisionLoss(inner)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = loss(logits, TRUTH)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, loss(logits.float(), TRUTH))


def test_the_workflows_network_and_loss_fit_each_other(small_train):
    config = small_train()
    network, loss = config.get_parsed_content("network"), config.get_parsed_content("loss")
    output = network.train()(torch.zeros(2, 4, 16, 16, 16))
    assert [head.shape[2] for head in read_output(output, 3).heads] == [16, 8]
    loss(output, torch.zeros(2, 3, 16, 16, 16)).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert without == []


def test_a_positive_weight_multiplies_what_voxels_inside_a_region_cost():
    logits, target = torch.zeros(1, 1, 1, 1, 4), torch.tensor([1.0, 0, 0, 0]).reshape(1, 1, 1, 1, 4)
    # every voxel costs ln 2 at a logit of 0; the one inside counts nine times: (9 + 3) / 4 * ln 2
    loss = RegionDiceCELoss(lambda_dice=0.0, pos_weight=9.0)
    assert loss(logits, target).item() == pytest.approx(3 * math.log(2))


class Focal(torch.nn.Module):
    """A loss of another library, which is not linear in its target."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (logits.sigmoid() - target).abs().pow(3).mean()


def coarse_heads() -> tuple[list[torch.Tensor], torch.Tensor]:
    """Logits of four heads, of which one halves only two axes, and a label."""
    torch.manual_seed(0)
    sizes = [(8, 16, 8), (4, 8, 4), (2, 4, 4), (1, 2, 2)]
    heads = [3 * torch.randn(2, 3, *size) for size in sizes]
    return heads, (torch.rand(2, 3, *sizes[0]) > 0.7).float()


def repeated(heads: list[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.nn.functional.interpolate(head, target.shape[2:]) for head in heads], 1)


LOSSES = [
    RegionDiceCELoss(),
    RegionDiceCELoss(pos_weight=5.0, region_weights={"a": 1, "b": 2, "c": 1}),
    RegionDiceCELoss(batch=False),
    FocalTverskyLoss(),
    Focal(),
]
NAMES = ["dice and entropy", "weighted", "by patch", "focal", "another"]


@pytest.mark.parametrize("inner", LOSSES, ids=NAMES)
def test_coarse_heads_cost_what_they_do_upsampled(inner):
    heads, target = coarse_heads()
    loss = DeepSupervisionLoss(inner)
    leaves = [head.requires_grad_() for head in heads]
    found, expected = loss(leaves, target), loss(repeated(leaves, target), target)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    for own, right in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        assert float((own - right).norm()) < 1e-5 * float(right.norm())


@pytest.mark.parametrize("inner", [FocalTverskyLoss(), Focal()], ids=["focal", "another"])
def test_only_linear_losses_use_averaged_labels(inner, monkeypatch):
    seen = []
    forward = type(inner).forward
    monkeypatch.setattr(type(inner), "forward", lambda own, *pair: seen.append(pair) or forward(own, *pair))
    DeepSupervisionLoss(inner)(*coarse_heads())
    assert {pair[0].shape[2:] for pair in seen} == {(8, 16, 8)}
    assert all(set(pair[1].unique().tolist()) == {0, 1} for pair in seen)


def test_heads_that_do_not_divide_the_label_are_upsampled():
    heads, target = coarse_heads()
    heads[1] = torch.randn(2, 3, 3, 5, 3)
    loss = DeepSupervisionLoss(RegionDiceCELoss())
    assert float(loss(heads, target)) == pytest.approx(float(loss(repeated(heads, target), target)), rel=1e-6)


def test_one_head_in_a_list_is_one_head():
    heads, target = coarse_heads()
    loss = DeepSupervisionLoss(RegionDiceCELoss())
    assert torch.equal(loss(heads[:1], target), loss(heads[0], target))


def test_heads_in_other_layouts_and_dtypes_have_equal_loss():
    heads, target = coarse_heads()
    loss = DeepSupervisionLoss(RegionDiceCELoss())
    heads = [head.bfloat16() for head in heads]
    last = [head.contiguous(memory_format=torch.channels_last_3d) for head in heads]
    assert torch.equal(loss(last, target > 0), loss(heads, target))
