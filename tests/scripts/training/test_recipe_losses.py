"""The loss of every recipe that sets one: its value, its minimum, its gradients and its regions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from scripts.files import read_mapping
from scripts.training.boundary_loss import BoundaryLoss, boundary_distances
from scripts.training.losses import DeepSupervisionLoss
from tests.made import ROOT

NAMES = [path.stem for path in sorted((ROOT / "configs/recipes").glob("*.yaml")) if "region_loss" in read_mapping(path)]
POOLED = ("generalized_dice_focal", "softmax_dice_ce")  # one quotient, or one softmax, of all channels
SPACE = (8, 7, 6)


class Example:
    """A recipe's loss as at the end of a run, random logits, and labels: nested regions, or one class per voxel."""

    def __init__(self, config: Any) -> None:
        self.loss = config.get_parsed_content("region_loss")
        self.loss.progress = lambda: 1.0
        self.classes = config["decision"] == "classes"
        self.channels = len(config.get_parsed_content("outputs"))
        self.random = torch.Generator().manual_seed(0)
        self.logits = 2 * torch.randn(2, self.channels, *SPACE, generator=self.random)
        self.target = self.labels(torch.rand(2, *SPACE, generator=self.random))

    def labels(self, depth: torch.Tensor) -> torch.Tensor:
        """[B, K, ...] from a number per voxel: 0 is outside of all regions, 1 inside all; or 0 to 1 by class."""
        if self.classes:
            place = (depth * (self.channels - 1e-3)).long()
            return torch.nn.functional.one_hot(place, self.channels).movedim(-1, 1).float()
        return torch.stack([depth > (channel + 1) / 5 for channel in range(self.channels)], 1).float()


@pytest.fixture
def example(small_train) -> Callable[[str], Example]:
    return lambda name: Example(small_train(f"configs/recipes/{name}.yaml"))


def entropy(p: np.ndarray, g: np.ndarray) -> np.ndarray:
    return -(g * np.log(p) + (1 - g) * np.log(1 - p)).mean((0, 2, 3, 4))


def dice(p: np.ndarray, g: np.ndarray) -> np.ndarray:
    return 1 - 2 * (p * g).sum((0, 2, 3, 4)) / (p + g).sum((0, 2, 3, 4))


def jaccard(p: np.ndarray, g: np.ndarray) -> float:
    return (1 - (p * g).sum((0, 2, 3, 4)) / (p + g - p * g).sum((0, 2, 3, 4)) + entropy(p, g)).mean()


def generalized_dice_focal(p: np.ndarray, g: np.ndarray) -> float:
    weights = 1 / g.sum((0, 2, 3, 4)) ** 2
    quotient = 2 * weights @ (p * g).sum((0, 2, 3, 4)) / (weights @ (p + g).sum((0, 2, 3, 4)))
    right = np.where(g == 1, p, 1 - p)
    return 1 - quotient + (-((1 - right) ** 2) * np.log(right)).mean()


def unified_focal(p: np.ndarray, g: np.ndarray) -> float:
    hit, added, missed = ((a * b).sum((0, 2, 3, 4)) for a, b in ((p, g), (p, 1 - g), (1 - p, g)))
    rejected = ((1 - p) * (1 - g)).sum((0, 2, 3, 4))
    region = 1 - hit / (hit + 0.6 * missed + 0.4 * added)
    background = 1 - rejected / (rejected + 0.6 * added + 0.4 * missed)
    focal = -(0.6 * g * np.log(p) + 0.4 * (1 - g) * p**0.5 * np.log(1 - p))
    return 0.5 * focal.mean() + 0.5 * ((region**0.5 + background) / 2).mean()


def boundary(p: np.ndarray, g: np.ndarray) -> float:
    return (dice(p, g) + entropy(p, g)).mean() + (scipy_distances(g > 0, [1, 1, 1], 10.0) * np.abs(p - g)).mean()


def scipy_distances(masks: np.ndarray, spacing: list[float], limit: float) -> np.ndarray:
    flat = masks.reshape(-1, *masks.shape[2:])
    both = [sum(ndimage.distance_transform_edt(side, sampling=spacing) for side in (m, ~m)) for m in flat]
    return np.minimum(np.stack(both), limit).reshape(masks.shape)


def skeleton(image: np.ndarray, steps: int = 3) -> np.ndarray:
    """The soft skeleton of [...] (Shit et al. 2021, algorithm 1)."""
    cross = ndimage.generate_binary_structure(image.ndim, 1)
    found = np.zeros_like(image)
    for _ in range(steps + 1):
        eroded = ndimage.minimum_filter(image, footprint=cross, mode="constant", cval=np.inf)
        opened = ndimage.maximum_filter(eroded, size=3, mode="constant", cval=-np.inf)
        found += (1 - found) * np.maximum(image - opened, 0)
        image = eroded
    return found


def cldice(p: np.ndarray, g: np.ndarray) -> float:
    values = []
    for predicted, truth in zip(p.reshape(-1, *SPACE), g.reshape(-1, *SPACE), strict=True):
        lines, true_lines = skeleton(predicted), skeleton(truth)
        precision = ((lines * truth).sum() + 1) / (lines.sum() + 1)
        recall = ((true_lines * predicted).sum() + 1) / (true_lines.sum() + 1)
        values.append(1 - 2 * precision * recall / (precision + recall + 1e-4))
    return (dice(p, g) + entropy(p, g)).mean() + 0.5 * np.mean(values)


def softmax_dice_ce(p: np.ndarray, g: np.ndarray) -> float:
    return dice(p, g)[1:].mean() - np.log((p * g).sum(1)).mean()


@pytest.mark.parametrize("formula", [jaccard, generalized_dice_focal, unified_focal, boundary, cldice, softmax_dice_ce])
def test_value_is_that_of_the_formula(formula, example):
    made = example(formula.__name__)
    p = made.logits.softmax(1) if made.classes else made.logits.sigmoid()
    expected = formula(p.double().numpy(), made.target.double().numpy())
    assert float(made.loss(made.logits, made.target)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_perfect_prediction_costs_least_and_gradients_are_finite(name, example):
    made = example(name)
    empty, full = (made.labels(torch.full((2, *SPACE), depth)) for depth in (0.0, 1.0))
    for target in (made.target, empty, full):
        perfect = 40 * (2 * target - 1)
        one_voxel_wrong = perfect.clone()
        one_voxel_wrong[0, :, 3, 3, 3] *= -1
        values = []
        for logits in (perfect, one_voxel_wrong, made.logits, -100 * perfect):
            logits = logits.clone().requires_grad_()
            value = made.loss(logits, target)
            value.backward()
            assert torch.isfinite(logits.grad).all()
            values.append(value.item())
        assert values[0] < 2e-3
        assert values[0] < values[1] < values[2] < values[3]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in POOLED])
def test_gradient_of_a_region_ignores_other_regions(name, example):
    made = example(name)
    slopes = []
    for shift in (-3.0, 3.0):
        logits = made.logits.clone().requires_grad_()
        shifts = torch.tensor([0.0] + [shift] * (made.channels - 1)).reshape(1, -1, 1, 1, 1)
        made.loss(logits + shifts, made.target).backward()
        slopes.append(logits.grad[:, 0])
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "meta_unet"])  # of other outputs than heads too
def test_all_heads_get_gradients_in_half_precision(name, example):
    made = example(name)
    heads = [torch.randn(2, made.channels, *size, requires_grad=True) for size in (SPACE, (4, 7, 3))]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = DeepSupervisionLoss(made.loss)([head.bfloat16() for head in heads], made.target)
    value.backward()
    assert value.dtype == torch.float32
    assert all(torch.isfinite(head.grad).all() and head.grad.any() for head in heads)


@pytest.mark.parametrize(("spacing", "limit"), [([1.0, 1.0, 1.0], 3.0), ([1.0, 2.0, 0.7], 4.0), ([1.0, 2.0], 100.0)])
def test_boundary_distances_are_those_of_scipy(spacing, limit):
    random = torch.Generator().manual_seed(0)
    masks = torch.rand(2, 2, *(9, 12, 10)[: len(spacing)], generator=random) > 0.9
    found = boundary_distances(masks, spacing, limit)
    np.testing.assert_allclose(found, scipy_distances(masks.numpy(), spacing, limit), rtol=1e-6)


@pytest.mark.parametrize("filled", [False, True])
def test_mask_without_a_boundary_has_no_distances(filled):
    masks = torch.full((1, 2, 4, 4), filled)
    masks[0, 1, 0, 0] = not filled
    assert (boundary_distances(masks, [1.0, 1.0], 3.0) > 0).flatten(2).any(-1).tolist() == [[False, True]]


def test_boundary_loss_follows_its_target():
    torch.manual_seed(0)
    logits, targets, loss = torch.randn(1, 1, 6, 6), (torch.rand(2, 1, 1, 6, 6) > 0.5).float(), BoundaryLoss()
    expected = [BoundaryLoss()(logits, target) for target in targets]
    assert [loss(logits, targets[place]) for place in (0, 0, 1, 0)] == [expected[place] for place in (0, 0, 1, 0)]
