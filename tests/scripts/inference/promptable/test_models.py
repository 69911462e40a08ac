"""SAM 2, MedSAM and nnInteractive by their own classes, with small random weights, on a scan."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.data.clicks import Click
from scripts.errors import InputError
from scripts.inference.promptable.medsam import MARGIN
from scripts.inference.promptable.models import MODELS, open_scan
from scripts.inference.promptable.prompts import Box, SlicePrompt, box_of, to_tensors
from tests.made.clicks import SHAPE, towards
from tests.made.masks import oblique
from tests.made.promptable import SIDE, WRITERS, require

INSIDE, OUTSIDE, BOX = (10, 8, 6), (4, 9, 9), Box((5, 4, 4), (12, 11, 8))
CLICKS = [Click(INSIDE, True), Click(OUTSIDE, False)]
BASES = {"straight": towards("RAS"), "oblique": oblique(12.0)}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A function that loads the small weights of a model, once."""
    loaded = {}

    def load(name: str):
        if name not in loaded:
            model = require(name)
            loaded[name] = model, model.load(WRITERS[name](tmp_path_factory.mktemp("weights") / name), "cpu")
        return loaded[name]

    return load


def made_scan() -> np.ndarray:
    voxels = 100 * np.random.default_rng(0).random(SHAPE).astype(np.float32) + 1
    voxels[:2], voxels[INSIDE] = 0, 150
    return voxels


def recorded(module: torch.nn.Module) -> list[dict]:
    """What a network is called with from now on."""
    calls: list[dict] = []
    module.register_forward_pre_hook(
        lambda _, words, options: calls.append({"words": words, **options}), with_kwargs=True
    )
    return calls


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
@pytest.mark.parametrize("axes", ["LPS", "ASR", "SLP"])
@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_axes_changes_no_voxel(network, name, axes, base):
    model, weights = network(name)
    voxels, plane = made_scan(), "coronal"
    mask, _ = open_scan(model, weights, voxels, base, plane).segment(CLICKS, BOX)
    turn = nib.orientations.ornt_transform(nib.io_orientation(base), nib.orientations.axcodes2ornt(tuple(axes)))
    back = nib.orientations.inv_ornt_aff(turn, SHAPE)

    def move(voxel):
        return tuple(np.rint(np.linalg.inv(back) @ [*voxel, 1]).astype(int)[:3].tolist())

    clicks = [Click(move(click.voxel), click.positive) for click in CLICKS]
    corners = np.sort([move(corner) for corner in BOX], axis=0).tolist()
    turned, _ = open_scan(model, weights, nib.apply_orientation(voxels, turn), base @ back, plane).segment(
        clicks, Box(*map(tuple, corners))
    )
    assert 0 < mask.sum() < mask.size
    assert np.array_equal(turned, nib.apply_orientation(mask, turn))


def test_sam2_tracks_from_the_prompted_slice_to_both_sides(network):
    model, weights = network("sam2")
    calls = recorded(weights)
    _, runs = open_scan(model, weights, made_scan(), BASES["straight"]).segment([], BOX)
    seen = [(call["frame_idx"], call.get("reverse", False)) for call in calls]
    assert seen == [(6, False), *((k, False) for k in (6, 7, 8)), *((k, True) for k in (6, 5, 4))]
    assert runs == 5


def test_sam2_gets_background_clicks_with_their_masks_box(network):
    model, weights = network("sam2")
    opened = open_scan(model, weights, made_scan(), BASES["straight"])
    tracked, _ = opened.segment([Click(INSIDE, True)], None)
    slices = opened.view.slices(tracked)
    place = opened.view.place(OUTSIDE)
    assert slices[place[0]].any()
    calls = recorded(weights.prompt_encoder)
    opened.segment(CLICKS, None)
    labels = [call["input_labels"].flatten().tolist() for call in calls if call["input_labels"] is not None]
    assert [2, 3, 0] in labels  # the corners of the box and a background click


def test_medsam_gets_the_box_of_the_neighbours_mask(network):
    model, weights = network("medsam")
    calls = recorded(weights)
    opened = open_scan(model, weights, made_scan(), BASES["straight"])
    mask, runs = opened.segment([], BOX)
    slices, boxes = opened.view.slices(mask), [call["input_boxes"].flatten() for call in calls]
    assert runs == len(boxes) == 5
    assert not slices[:4].any()
    assert not slices[9:].any()
    _, _, box = to_tensors(SlicePrompt(box=box_of(slices[6], MARGIN)), slices.shape[1:], SIDE)
    assert torch.equal(boxes[1], box.flatten())


def test_medsam_adds_foreground_clicks_to_its_neighbours_box(network):
    model, weights = network("medsam")
    opened = open_scan(model, weights, made_scan(), BASES["straight"])
    calls = recorded(weights)
    opened.segment([Click(INSIDE, True), Click((0, 0, 7), True)], None)
    point, box = calls[1]["input_points"].flatten(), calls[1]["input_boxes"].flatten()
    assert (box[:2] <= point).all()
    assert (point <= box[2:]).all()


def test_nninteractive_sees_the_click_at_its_voxel(network):
    model, weights = network("nninteractive")
    voxels = made_scan()
    calls = recorded(weights["network"])
    opened = open_scan(model, weights, voxels, towards("ASR"))
    opened.segment([Click(INSIDE, True)], None)
    image, *_, inside, outside = calls[0]["words"][0][0][[0, 1, 4, 5]]
    assert np.unravel_index(image.argmax(), image.shape) == np.unravel_index(inside.argmax(), inside.shape)
    assert inside.max() == 1
    assert not outside.any()


def test_nninteractive_goes_on_from_its_former_clicks(network):
    model, weights = network("nninteractive")
    opened = open_scan(model, weights, made_scan(), BASES["straight"])
    first = opened.segment(CLICKS[:1], None)
    both = opened.segment(CLICKS, None)
    assert (first[1], both[1]) == (1, 1)
    again = opened.segment(CLICKS[:1], None)  # without the second: anew
    assert again[1] == 1
    assert np.array_equal(again[0], first[0])


@pytest.mark.parametrize("box3d", [True, False])
def test_nninteractive_gets_a_box_as_its_weights_know_it(tmp_path, box3d):
    model = require("nninteractive")
    weights = model.load(WRITERS["nninteractive"](tmp_path / "weights", box3d), "cpu")
    calls = recorded(weights["network"])
    open_scan(model, weights, made_scan(), BASES["straight"]).segment([], BOX)
    drawn = calls[0]["words"][0][0][2] > 0
    assert drawn.any(-1).any(-1).sum() == (5 if box3d else 1)  # slices
    assert drawn.any(0).sum() == 8 * 8


@pytest.mark.parametrize("given", MODELS)
@pytest.mark.parametrize("name", MODELS)
def test_weights_of_another_model_are_refused(tmp_path, name, given):
    model, _ = require(name), require(given)
    weights = WRITERS[given](tmp_path / given)
    if given == name:
        assert model.load(weights, "cpu") is not None
        return
    with pytest.raises(InputError, match=r"expected (SAM|weights in the format of|a model of nnInteractive)"):
        model.load(weights, "cpu")


@pytest.mark.parametrize("name", ["sam2", "medsam"])
def test_incomplete_weights_are_refused(tmp_path, name):
    from safetensors.torch import load_file, save_file

    model = require(name)
    file = WRITERS[name](tmp_path / name) / "model.safetensors"
    tensors = load_file(file)
    del tensors["mask_decoder.iou_token.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"lack 1 tensors .* such as mask_decoder\.iou_token\.weight"):
        model.load(file, "cpu")


def test_damaged_weights_are_refused(tmp_path):
    model = require("nninteractive")
    file = WRITERS["nninteractive"](tmp_path / "weights") / "fold_0" / "checkpoint_final.pth"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be loaded as nnInteractive"):
        model.load(file, "cpu")


@pytest.mark.parametrize("name", MODELS)
def test_weights_that_cannot_be_fetched_are_named(monkeypatch, tmp_path, name):
    model = require(name)
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("NNINTERACTIVE_MODEL_DIR", str(tmp_path))
    with pytest.raises(InputError, match=r"could not be fetched .* `hf download \S+ --local-dir FOLDER`"):
        model.load(None, "cpu")


def test_weights_that_do_not_exist_are_refused(tmp_path):
    with pytest.raises(InputError, match="do not exist"):
        require("nninteractive").load(tmp_path / "none", "cpu")


def test_an_empty_channel_is_refused():
    with pytest.raises(InputError, match="0 in every voxel"):
        open_scan(MODELS["sam2"], None, np.zeros(SHAPE), np.eye(4))
