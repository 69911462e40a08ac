"""Clicks are placed in the middle of the largest error, for half of the patches, each from its own seed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.utils import CommonKeys

from scripts.data.click_channels import ClickChannels
from scripts.data.clicks import Click
from scripts.data.decision import RegionDecision
from scripts.data.imperfect_labels import IGNORED
from scripts.training.click_simulation import ClickSimulation, find_next_click
from tests.made import refused

REGIONS = {"WT": [1, 2], "ET": [2]}
SIZE = [16] * 3
CHANNELS = ClickChannels(SIZE, regions=REGIONS, radius=2)


def box(*sides: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


LARGE, SMALL = box((2, 9), (2, 9), (2, 9)), box((11, 14), (11, 14), (11, 14))


@pytest.mark.parametrize(
    ("mask", "truth", "expected"),
    [
        (SMALL & False, LARGE | SMALL, Click((5, 5, 5), True)),
        (LARGE, LARGE | SMALL, Click((12, 12, 12), True)),
        (LARGE | SMALL, SMALL, Click((5, 5, 5), False)),
        (LARGE, SMALL, Click((5, 5, 5), False)),  # both kinds of error, the larger first
        (LARGE, LARGE, None),
    ],
    ids=["all missing", "small one missing", "excess", "excess and missing", "no error"],
)
def test_click_is_in_the_middle_of_the_largest_error(mask, truth, expected):
    assert find_next_click(mask, truth) == expected


class Recorded(torch.nn.Module):
    """No region anywhere but near foreground clicks; keeps its inputs and whether they were to be learned from."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(10.0))
        self.seen: list[tuple[torch.Tensor, bool, bool]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append((images, torch.is_grad_enabled(), self.training))
        return self.scale * (images[:, [2, 4]] - images[:, [3, 5]] - 0.3)


def simulate(seeds: list[int], label: torch.Tensor, share: float = 1.0, decision: str = "regions", most: int = 5):
    """The network after a step of a trainer on patches of these seeds; its last input is what was learned from."""
    decide = RegionDecision(decision, REGIONS, {"a": 1, "b": 2}, threshold=0.0)
    inferer, network = ClickSimulation(CHANNELS, decide, share, most), Recorded()
    image = torch.zeros(len(seeds), 1, *SIZE)
    state = SimpleNamespace(
        output={CommonKeys.IMAGE: image, CommonKeys.LABEL: label}, batch={"seed": torch.tensor(seeds)}
    )
    inferer.attach(SimpleNamespace(state=state))
    inferer(image, network.train())
    return network, inferer


def labels(number: int) -> torch.Tensor:
    """Two regions of two boxes each."""
    return torch.from_numpy(np.stack([LARGE | SMALL, SMALL]))[None].repeat(number, 1, 1, 1, 1).float()


def test_only_the_last_pass_is_learned_from():
    network, _ = simulate([0, 1], labels(2))
    assert [learned for _, learned, _ in network.seen] == [False] * (len(network.seen) - 1) + [True]
    assert [training for *_, training in network.seen] == [False] * (len(network.seen) - 1) + [True]
    assert len(network.seen) > 1
    assert network.training


def test_the_given_mask_is_that_of_the_pass_before():
    seed = next(n for n in range(99) if simulate([n], labels(1))[1].draw(n) == ([0, 1], 2))
    network, _ = simulate([seed], labels(1))
    (first, *_), (second, *_), (last, *_) = network.seen
    assert not first[0, 1:].any()
    assert not second[0, 1].any()  # the first pass has found nothing
    assert second[0, 2].argmax() == np.ravel_multi_index((5, 5, 5), SIZE)
    assert torch.equal(last[0, 1].bool(), second[0, 2] > 0.3)
    assert int((last[0, 2] == 1).sum()) == 2  # both clicks
    assert not last[0, 4:].any()  # of the other region


def test_half_of_the_patches_have_no_clicks():
    inferer = simulate([0], labels(1), share=0.5)[1]
    drawn = np.array([(regions[0], number) for regions, number in map(inferer.draw, range(4000))])
    assert np.mean(drawn[:, 1] == 0) == pytest.approx(0.5, abs=0.03)
    asked = drawn[drawn[:, 1] > 0]
    assert np.bincount(asked[:, 1])[1:] / len(asked) == pytest.approx([0.2] * 5, abs=0.03)
    assert np.bincount(asked[:, 0]) / len(asked) == pytest.approx([0.5] * 2, abs=0.03)


def test_clicks_of_a_patch_do_not_depend_on_the_batch():
    draw = simulate([0], labels(1))[1].draw
    one, other = (next(seed for seed in range(99) if draw(seed) == wanted) for wanted in (([0, 1], 2), ([1, 0], 3)))
    groups = ([one, other], [one], [other])
    together, *alone = (simulate(seeds, labels(len(seeds)))[0].seen[-1][0] for seeds in groups)
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(*alone)


def test_patch_without_errors_has_no_clicks():
    network, _ = simulate([0, 1], labels(2) * 0)
    assert len(network.seen) == 2
    assert not network.seen[-1][0].any()


def test_a_region_without_errors_is_passed_over():
    label = labels(1)
    label[:, 0] = 0
    seed = next(n for n in range(99) if simulate([n], label)[1].draw(n) == ([0, 1], 1))
    given = simulate([seed], label)[0].seen[-1][0][0]
    assert not given[2:4].any()
    assert given[4].argmax() == np.ravel_multi_index((12, 12, 12), SIZE)


def test_ignored_voxels_are_never_clicked():
    label = labels(1)
    label[:, :, 2:9, 2:9, 2:9] = IGNORED
    seed = next(n for n in range(99) if simulate([n], label)[1].draw(n) == ([0, 1], 5))
    clicked = simulate([seed], label)[0].seen[-1][0][0, 2:] == 1
    assert bool(clicked.any())
    assert not clicked[:, 2:9, 2:9, 2:9].any()


def test_classes_that_exclude_each_other_are_clicked_as_regions():
    classes = torch.from_numpy(np.stack([~(LARGE | SMALL), LARGE, SMALL]))[None].float()

    class Background(Recorded):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            super().forward(images)
            return torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1, 1).expand(len(images), -1, *SIZE)

    decide = RegionDecision("classes", REGIONS, {"a": 1, "b": 2}, threshold=0.0)
    inferer, network, image = ClickSimulation(CHANNELS, decide, 1.0, 1), Background(), torch.zeros(1, 1, *SIZE)
    seed = next(n for n in range(99) if inferer.draw(n)[0] == [0, 1])
    state = SimpleNamespace(
        output={CommonKeys.IMAGE: image, CommonKeys.LABEL: classes}, batch={"seed": torch.tensor([seed])}
    )
    inferer.attach(SimpleNamespace(state=state))
    inferer(image, network.train())
    assert network.seen[-1][0][0, 2].argmax() == np.ravel_multi_index((5, 5, 5), SIZE)


def test_other_calls_than_a_training_step_have_no_clicks():
    _, inferer = simulate([0], labels(1))
    network = Recorded()
    inferer(torch.zeros(1, 1, *SIZE), network)
    assert len(network.seen) == 1
    assert network.seen[0][0].shape[1] == 1 + CHANNELS.guides
    assert not network.seen[0][0].any()


def dispute(seeds: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The labels after a step in which every click is disputed, and what the last pass was given."""
    decide, label = RegionDecision("regions", REGIONS, {"a": 1, "b": 2}, threshold=0.0), labels(len(seeds))
    inferer, network = ClickSimulation(CHANNELS, decide, 1.0, 2, disputes=1.0), Recorded()
    image = torch.ones(len(seeds), 1, *SIZE)
    state = SimpleNamespace(
        output={CommonKeys.IMAGE: image, CommonKeys.LABEL: label}, batch={"seed": torch.tensor(seeds)}
    )
    inferer.attach(SimpleNamespace(state=state))
    inferer(image, network.train())
    assert len(network.seen) == 2  # the mask before the clicks, and the pass that is learned from
    return label, network.seen[-1][0][:, 1:]


def test_disputed_clicks_contradict_the_label_and_change_it():
    label, given = dispute([*range(8)])
    before = labels(8)
    for positive in (True, False):
        clicks = given[:, 1 + (not positive) :: 2] == 1
        assert bool(clicks.any())
        for region, clicked in enumerate(clicks.unbind(1)):
            assert (before[:, region][clicked] != positive).all()
            assert (label[:, region][clicked] == positive).all()
    assert (label[:, 0] >= label[:, 1]).all()


def test_disputes_of_a_patch_do_not_depend_on_the_batch():
    together, *alone = (dispute(seeds) for seeds in ([3, 4], [3], [4]))
    assert torch.equal(together[0], torch.cat([label for label, _ in alone]))
    assert torch.equal(together[1], torch.cat([given for _, given in alone]))


@pytest.mark.parametrize(
    ("share", "most", "said"),
    [(1.5, 5, "click_share is 1.5"), (0.5, 0, "most_clicks is 0"), (0.5, 2.5, "most_clicks is 2.5")],
)
def test_impossible_shares_and_numbers_are_refused(share, most, said):
    decide = RegionDecision("regions", REGIONS, {"a": 1, "b": 2})
    assert said in refused(ClickSimulation, CHANNELS, decide, share, most)
