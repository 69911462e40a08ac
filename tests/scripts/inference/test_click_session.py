"""A click changes its voxel in the scan's own grid, runs its own windows alone, and is never ignored."""

import numpy as np
import pytest
import torch
from PIL import Image

from scripts.inference.click_session import ClickSession
from scripts.inference.sliding_window import MirroringSlidingWindowInferer
from tests.made import refused
from tests.made.clicks import AFFINES, CHANNELS, SHAPE, Obedient, open_session

PLACE = (6, 5, 10)  # in the head, away from the bright voxel
SPACINGS = {"own spacing": None, "coarser": [2.0, 2.0, 2.0]}


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS)
def test_mask_is_at_the_clicked_voxel_of_any_grid(read_config, tmp_path, affine, spacing):
    session = open_session(read_config, tmp_path, Obedient(), affine, spacing=spacing)
    before = session.mask("TC")
    assert before.shape == SHAPE
    assert not before[PLACE]
    mask, notes, _ = session.click("TC", [PLACE])
    assert notes == []
    added = np.argwhere(mask & ~before)
    away = np.linalg.norm((added - PLACE) @ affine[:3, :3].T, axis=1)
    assert away.min() == 0
    assert away.max() < 3 * max(np.linalg.norm(affine[:3, :3], axis=0).max(), 2.0) * 1.5  # radius 2 of the ball
    assert np.linalg.norm((added.mean(0) - PLACE) @ affine[:3, :3].T) < 2.5


def test_background_click_removes_what_was_found(read_config, tmp_path):
    session = open_session(read_config, tmp_path, Obedient())
    assert session.mask("WT")[10, 9, 7]
    mask, notes, _ = session.click("WT", background=[[10, 9, 7]])
    assert notes == []
    assert not mask[10, 9, 7]


def test_a_click_runs_the_windows_alone_that_it_lies_in(read_config, tmp_path):
    network = Obedient()
    session = open_session(read_config, tmp_path, network)
    every = len(network.inputs)
    first = session.click("WT", [PLACE])
    assert 0 < first.windows == len(network.inputs) - every < every
    assert all(window[5].max() == 1 for window in network.inputs[every:])
    second = session.click("WT", [PLACE, (15, 12, 3)])
    assert 0 < second.windows < every
    assert second.mask[PLACE]


def test_pictures_are_corrected_like_volumes(read_config, tmp_path):
    pixels = np.zeros((24, 30, 3), np.uint8)  # [y, x]
    pixels[4:20, 6:28] = np.random.default_rng(0).integers(100, 110, (16, 22, 3))
    Image.fromarray(pixels).save(tmp_path / "X.png")
    config = read_config(
        "configs/inference.yaml", "configs/tasks/lgg.yaml", device="cpu", profile="$None", patch_size=[8, 8],
        normalize="zscore_nonzero", window_channels=CHANNELS,
    )  # fmt: skip
    parts = [config.get_parsed_content(name) for name in ("inferer", "preprocessing", "region_decision")]
    case = parts[1]({"image": str(tmp_path / "X.png"), "case": "X"})
    session = ClickSession(case, Obedient(channels=3), *parts)
    (region,) = session.start
    mask, notes, _ = session.click(region, [[20, 9]])  # x, y
    assert notes == []
    assert mask.shape == (30, 24)
    assert np.abs(np.argwhere(mask) - (20, 9)).max() <= 2


class Convolutions(torch.nn.Sequential):
    """A network that mixes all of its input."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        first, last = torch.nn.Conv3d(11, 8, 3, padding=1), torch.nn.Conv3d(8, 3, 3, padding=1)
        super().__init__(first, torch.nn.InstanceNorm3d(8), torch.nn.ReLU(), last)


@pytest.mark.parametrize("tta", [False, True])
def test_kept_windows_give_what_all_windows_give(read_config, tmp_path, tta):
    session = open_session(read_config, tmp_path, Convolutions(), tta=tta)
    outputs, infer = [], MirroringSlidingWindowInferer.__call__

    def record(*arguments, **options):
        outputs.append(infer(*arguments, **options))
        return outputs[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MirroringSlidingWindowInferer, "__call__", record)
        assert session.click("ET", [PLACE]).windows > 0
    session.inferer.kept = None
    with torch.no_grad():
        every = session.inferer(session.case["image"].as_tensor()[None], session.network)
    assert torch.equal(outputs[0], every)


def test_a_click_that_the_network_ignores_is_explained(read_config, tmp_path):
    session = open_session(read_config, tmp_path, Obedient(obeys=0.0))
    before = session.mask("WT")
    mask, (note,), _ = session.click("WT", [PLACE])
    added = np.argwhere(mask & ~before)
    assert mask[PLACE]
    assert 1 < len(added) <= 33  # voxels of a ball of radius 2
    assert np.linalg.norm(added - PLACE, axis=1).max() <= 2
    assert note.startswith(f"The click at [6, 5, 10] moved {len(added)} connected voxels of similar intensity into WT")
    mask, notes, _ = session.click("WT", [PLACE], [[10, 9, 7]])
    assert len(notes) == 2
    assert mask[PLACE]
    assert not mask[10, 9, 7]


def test_a_click_in_the_background_around_the_patient_is_explained(read_config, tmp_path):
    session = open_session(read_config, tmp_path, Obedient())
    mask, (note,), windows = session.click("WT", [[0, 0, 0]])
    assert mask[0, 0, 0]
    assert windows == 0
    assert "it lies in the background around the patient, which the network does not see" in note
    assert session.click("ET", background=[[0, 0, 0]]).notes == []  # as it is


def test_a_click_taken_back_starts_the_region_anew(read_config, tmp_path):
    session = open_session(read_config, tmp_path, Convolutions())
    first = session.click("WT", [PLACE]).mask
    session.click("WT", [PLACE, (15, 12, 3)])
    assert np.array_equal(session.click("WT", [PLACE]).mask, first)


def test_two_annotators_in_turns_do_not_see_each_others_clicks(read_config, tmp_path):
    other = (15, 12, 3)
    alone = [
        [session.click("WT", clicks).mask for clicks in ([place], [place, (9, 9, 4)])]
        for place in (PLACE, other)
        for session in [open_session(read_config, tmp_path, Convolutions())]
    ]
    session = open_session(read_config, tmp_path, Convolutions())
    for turn, clicks in enumerate(([], [(9, 9, 4)])):
        for person, place in enumerate((PLACE, other)):
            found = session.click("WT", [place, *clicks], annotator=f"annotator {person}").mask
            assert np.array_equal(found, alone[person][turn])
    assert not np.array_equal(session.mask("WT", "annotator 0"), session.mask("WT", "annotator 1"))


def test_the_mask_before_the_last_click_is_given(read_config, tmp_path):
    network = Obedient()
    session = open_session(read_config, tmp_path, network)
    session.click("TC", [PLACE])
    assert not any(window[4].bool()[window[7] > 0].any() for window in network.inputs)  # the ball was not in it before
    session.click("TC", [PLACE, (7, 5, 10)])
    assert all(window[4].bool()[window[7] == 1].any() for window in network.inputs[-2:])


def masks_of(session: ClickSession, place: tuple[int, int, int]) -> dict[str, bool]:
    return {region: bool(session.mask(region)[place]) for region in ("WT", "TC", "ET")}


def test_what_a_click_adds_is_in_the_regions_around(read_config, tmp_path):
    session = open_session(read_config, tmp_path, Obedient())
    added = session.click("TC", [PLACE]).mask
    assert masks_of(session, PLACE) == {"WT": True, "TC": True, "ET": False}
    assert not (added & ~session.mask("WT")).any()
    session.click("WT", [(15, 12, 3)])  # elsewhere
    assert masks_of(session, PLACE) == {"WT": True, "TC": True, "ET": False}
    session.click("TC", [(7, 5, 10)])  # without the former click
    assert session.mask("WT")[15, 12, 3]


def test_what_a_click_removes_is_in_no_region_within(read_config, tmp_path):
    session, bright = open_session(read_config, tmp_path, Obedient()), (10, 9, 7)
    assert masks_of(session, bright) == dict.fromkeys(("WT", "TC", "ET"), True)
    session.click("TC", background=[bright])
    assert masks_of(session, bright) == {"WT": True, "TC": False, "ET": False}
    session.click("ET", [bright])  # the last click decides
    assert masks_of(session, bright) == dict.fromkeys(("WT", "TC", "ET"), True)
    assert not (session.mask("ET") & ~session.mask("TC")).any()


def test_regions_without_a_common_label_share_no_voxel(read_config, tmp_path):
    session = open_session(read_config, tmp_path, Obedient(), regions={"ED": [2], "ET": [4]})
    session.click("ED", [PLACE])
    added = session.click("ET", [PLACE]).mask
    assert added[PLACE]
    assert not (added & session.mask("ED"))[PLACE]


def test_unknown_regions_and_other_networks_are_refused(read_config, tmp_path):
    session = open_session(read_config, tmp_path, Obedient())
    assert refused(session.click, "Tumour", [PLACE]) == "there is no region Tumour: expected one of WT, TC, ET."
    assert "lies outside the scan" in refused(session.click, "WT", [[40, 2, 3]])
    plain = {"_target_": "scripts.data.input_channels.WindowChannels", "patch_size": "@patch_size"}
    said = refused(open_session, read_config, tmp_path, Obedient(), window_channels=plain)
    assert said == "this network takes no clicks: train one with the recipe clicks."
