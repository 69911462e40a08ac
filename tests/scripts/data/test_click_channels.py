"""Clicks are balls in the channels of their region; a window without a click has none of them, and no mask."""

import pytest
import torch

from scripts.data.click_channels import ClickChannels, Prompt, ball_profile
from scripts.data.clicks import Click
from scripts.data.input_channels import WindowChannels, name_channels

MASK = torch.rand(16, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.5
CHANNELS = ClickChannels([8] * 3, regions=["WT", "ET"], radius=3)


@pytest.mark.parametrize("axes", [2, 3])
def test_a_ball_is_deepest_in_its_centre(axes):
    ball = ball_profile(3, axes)
    assert ball.shape == (7,) * axes
    ray = ball[(3,) * (axes - 1)]
    assert float(ray[3]) == 1
    assert bool((ray[1:4] > ray[:3]).all())
    assert torch.equal(ray, ray.flip(0))
    assert float(ray[0]) > 0
    assert float(ball[(0,) * axes]) == 0


def test_each_region_has_its_own_two_channels():
    clicks = (Click((4, 4, 4), True), Click((11, 11, 11), False))
    found = CHANNELS.guide(Prompt(1, clicks, MASK), [0] * 3, [16] * 3)
    assert found.shape == (5, 16, 16, 16)
    assert torch.equal(found[0], MASK.float())
    assert not found[1:3].any()
    assert found[3].argmax() == 4 * 256 + 4 * 16 + 4
    assert found[4].argmax() == 11 * 256 + 11 * 16 + 11


def test_overlapping_balls_keep_the_larger_value():
    near = (Click((4, 4, 4), True), Click((4, 4, 6), True))
    both, *single = (
        CHANNELS.guide(Prompt(0, clicks, MASK), [0] * 3, [16] * 3)[1] for clicks in (near, near[:1], near[1:])
    )
    assert torch.equal(both, torch.maximum(*single))


@pytest.mark.parametrize("start", [[0, 0, 0], [3, 4, 2], [-2, -1, 1]], ids=["corner", "inside", "beyond the scan"])
def test_a_window_is_cut_from_the_channels_of_the_scan(start):
    prompt = Prompt(0, (Click((4, 5, 4), True),), MASK)
    whole = torch.nn.functional.pad(CHANNELS.guide(prompt, [0] * 3, [16] * 3), [4] * 6)
    place = tuple(slice(4 + first, 12 + first) for first in start)
    assert torch.equal(CHANNELS.guide(prompt, start, [8] * 3), whole[(slice(None), *place)])


def test_a_window_without_a_click_is_empty():
    prompt = Prompt(0, (Click((4, 4, 4), True),), MASK)
    assert not CHANNELS.guide(prompt, [5, 0, 0], [8] * 3).any()  # though the ball and the mask reach into it
    assert not CHANNELS.guide(None, [0] * 3, [8] * 3).any()


def test_channels_are_named_in_their_order():
    image = torch.rand(2, 16, 16, 16)
    channels = ClickChannels([8] * 3, True, 2, regions=["WT", "ET"])
    found = channels(image, [1, 2, 3], [8] * 3)
    names = name_channels(["T1", "T2"], coordinates=True, context=2, prompts=["WT", "ET"])
    assert len(found) == channels.count(2) == len(names) - 2
    assert torch.equal(found[:5], WindowChannels([8] * 3, True, 2)(image, [1, 2, 3], [8] * 3))
    assert names[-5:] == [
        "previous mask of the clicked region",
        "foreground clicks on WT",
        "background clicks on WT",
        "foreground clicks on ET",
        "background clicks on ET",
    ]
