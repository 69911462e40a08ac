"""Agreement of mirrored views and of the members of an ensemble with their mean."""

import pytest
import torch
from monai.data import MetaTensor

from scripts.inference.sliding_window import MirroringSlidingWindowInferer
from scripts.inference.view_agreement import MEMBERS, MIRRORS, ViewAgreement
from scripts.network.ensemble import Ensemble

REGIONS, LABELS = {"A": [1], "B": [2]}, {"a": 1, "b": 2}
SCAN = MetaTensor(torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0)))


class Shifted(torch.nn.Module):
    """Logits that are the image, and the image moved along an axis, plus a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.constant = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([image, image.roll(1, 2)], 1) + self.constant


def infer(network: torch.nn.Module, **options) -> MetaTensor:
    agreement = ViewAgreement("regions", REGIONS, LABELS)
    with torch.no_grad():
        return MirroringSlidingWindowInferer(8, 2, agreement=agreement, **options)(SCAN, network)


def dice(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_views_that_are_the_same_agree_wholly():
    first, second = infer(Shifted(), tta=True).meta[MIRRORS][0]
    assert first == 1  # its logits are the image whichever way it is turned
    assert second < 0.9


def test_mirrored_views_are_compared_with_their_mean():
    output = infer(Shifted(), tta=True)
    mean, image = output[0, 1] > 0, SCAN[0, 0].as_tensor()
    views = [image.roll(1, 0) > 0, image.roll(-1, 0) > 0]  # turned along this axis it moves the other way
    sizes = [int(view.sum() + mean.sum()) for view in views]
    expected = sum(dice(v, mean) * s for v, s in zip(views, sizes, strict=True)) / sum(sizes)
    assert float(output.meta[MIRRORS][0, 1]) == pytest.approx(expected, abs=1e-6)


def test_members_are_compared_with_their_mean():
    ensemble = Ensemble(Shifted(), 2).eval()
    ensemble.members[1].constant.data += 1
    output = infer(ensemble)
    mean = output[0, 0] > 0
    masks = [SCAN[0, 0] > 0, SCAN[0, 0] > -1]
    sizes = [int(mask.sum() + mean.sum()) for mask in masks]
    expected = sum(dice(m, mean) * s for m, s in zip(masks, sizes, strict=True)) / sum(sizes)
    assert float(output.meta[MEMBERS][0, 0]) == pytest.approx(expected, abs=1e-6)
    assert MIRRORS not in output.meta


def test_a_single_network_without_mirroring_has_no_agreement():
    assert not {MEMBERS, MIRRORS} & {*infer(Shifted()).meta}


def test_agreement_starts_anew_with_each_scan():
    agreement = ViewAgreement("regions", REGIONS, LABELS)
    run = MirroringSlidingWindowInferer(8, 2, agreement=agreement, tta=True)
    with torch.no_grad():
        first, second = (run(SCAN, Shifted()).meta[MIRRORS] for _ in range(2))
    assert torch.equal(first, second)


def test_counting_agreement_leaves_the_logits_as_they_are():
    with torch.no_grad():
        plain = MirroringSlidingWindowInferer(8, 2, tta=True)(SCAN, Shifted())
    assert torch.equal(infer(Shifted(), tta=True), plain)
