"""Clicks and boxes are read, refused in a sentence where they are wrong, and each is on its own slice."""

import numpy as np
import pytest

from scripts.data.clicks import Click
from scripts.errors import InputError
from scripts.inference.promptable.planes import SliceView
from scripts.inference.promptable.prompts import Box, box_of, read_box, split_prompts
from scripts.inference.promptable.session import PromptSession
from tests.made.clicks import SHAPE, towards

VIEW = SliceView(SHAPE, towards("RAS"), "axial")  # rows and columns run against the file's axes


@pytest.mark.parametrize(
    ("corners", "words"),
    [
        ([1, 2, 3], "expected 6 numbers"),
        (["a"] * 6, "expected 6 numbers"),
        ([9, 2, 3, 4, 5, 6], "give the lowest index of each axis first"),
        ([1, 2, 3, 20, 5, 6], "reaches outside the scan, which has 20 x 18 x 14 voxels"),
        ([-1, 2, 3, 4, 5, 6], "reaches outside the scan"),
    ],
)
def test_a_wrong_box_is_refused_in_a_sentence(corners, words):
    with pytest.raises(InputError, match=words):
        read_box(corners, SHAPE)


def test_a_box_is_prompted_on_its_middle_slice():
    prompts, limits = split_prompts(VIEW, [], read_box([2, 3, 4, 9, 8, 10], SHAPE))
    assert limits == (4, 10)
    assert {number: prompt.box for number, prompt in prompts.items()} == {7: (9, 10, 14, 17)}


def test_clicks_within_a_box_have_it_on_their_slice():
    clicks = [Click((5, 5, 4), True), Click((5, 5, 12), False)]
    prompts, _ = split_prompts(VIEW, clicks, Box((2, 3, 4), (9, 8, 10)))
    assert [*prompts] == [7, 4, 12]
    assert prompts[4] == ((Click((12, 14), True),), prompts[7].box)
    assert not prompts[12].finds


def test_the_box_of_a_mask_is_grown_within_the_slice():
    mask = np.zeros((20, 40), bool)
    mask[0:3, 10:12] = True
    assert box_of(mask) == (0, 10, 2, 11)
    assert box_of(mask, 0.1) == (0, 6, 4, 15)
    assert box_of(np.zeros((4, 4), bool)) is None


class Stubborn:
    """Finds the same mask whatever is clicked."""

    def segment(self, clicks, box):
        found = np.zeros(SHAPE, bool)
        found[5:8, 5:8, 5:8] = True
        return found, 3


def test_a_click_that_is_not_followed_is_explained():
    session = PromptSession(Stubborn(), SHAPE, ["WT", "TC"])
    mask, notes, windows = session.click("WT", [[1, 1, 1], [6, 6, 6]], [[5, 5, 5]])
    assert windows == 3
    assert mask[1, 1, 1]
    assert not mask[5, 5, 5]
    assert [note[:44] for note in notes] == [
        "The click at [1, 1, 1] moved this one voxel ",
        "The click at [5, 5, 5] moved this one voxel ",
    ]
    assert np.array_equal(session.mask("WT"), mask)


def test_regions_and_annotators_have_masks_of_their_own():
    session = PromptSession(Stubborn(), SHAPE, ["WT", "TC"])
    session.click("WT", [[1, 1, 1]], annotator="anna")
    assert not session.mask("TC", "anna").any()
    assert not session.mask("WT", "ben").any()
    assert session.mask("WT", "anna").sum() == 28


@pytest.mark.parametrize(
    ("region", "inside", "outside", "words"),
    [
        ("ET", [[1, 1, 1]], (), "there is no region ET: expected one of WT, TC"),
        ("WT", (), [[1, 1, 1]], "all clicks on WT are background"),
        ("WT", (), (), "no click on WT is given"),
        ("WT", [[1, 1, 14]], (), "lies outside the scan, which has 20 x 18 x 14 voxels"),
    ],
)
def test_wrong_clicks_are_refused_in_a_sentence(region, inside, outside, words):
    with pytest.raises(InputError, match=words):
        PromptSession(Stubborn(), SHAPE, ["WT", "TC"]).click(region, inside, outside)
