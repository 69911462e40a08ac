"""Channels are left out in training, and a scan without them is one that the network has seen."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from scripts.data import missing_channels
from scripts.data.loading import LoadImageChannelsd
from scripts.data.missing_channels import RandDropChannelsd, list_given
from scripts.errors import InputError
from tests.made import save_nifti

CHANNELS = ["T1", "T1c", "T2"]


@pytest.mark.parametrize(
    ("optional", "without", "expected"),
    [(CHANNELS, ["T2"], ["T1", "T1c"]), (CHANNELS, "T1", ["T1c", "T2"]), ([], [], CHANNELS)],
)
def test_channels_that_a_scan_must_have(optional, without, expected):
    assert list_given(CHANNELS, optional, without) == expected


@pytest.mark.parametrize(
    ("optional", "without", "expected"),
    [
        ([], ["T2"], "was not trained without T2: .* train one with the recipe channel_dropout"),
        (["T1"], ["T2"], "was not trained without T2: .* it may lack T1"),
        (CHANNELS, ["PD"], "channel PD cannot be left out: the network has T1, T1c, T2"),
        (CHANNELS, CHANNELS, "all channels are left out"),
    ],
)
def test_channels_that_cannot_be_left_out_are_refused(optional, without, expected):
    with pytest.raises(InputError, match=expected):
        list_given(CHANNELS, optional, without)


@pytest.mark.parametrize(
    ("derived", "context", "expected"),
    [({"Edges": {"of": "T2", "transform": abs}}, 0, "derived channel Edges is computed from"), ({}, 4, "context 4")],
)
def test_channel_that_another_one_shows_is_refused(derived, context, expected):
    missing_channels.refuse_dependent_channels(CHANNELS, [], derived, context)
    with pytest.raises(InputError, match=expected):
        missing_channels.refuse_dependent_channels(CHANNELS, ["T2"], derived, context)


def test_channels_are_left_out_as_often_as_asked_never_all():
    drop = RandDropChannelsd("image", CHANNELS, CHANNELS, prob=0.6)
    drop.set_random_state(0)
    image = torch.ones(4, 2, 2)  # the fourth is not of a file
    kept = torch.stack([drop({"image": image})["image"][:, 0, 0] for _ in range(2000)])
    assert kept[:, 3].all()
    assert (kept[:, :3].sum(1) > 0).all()
    expected = 0.6 - 0.6**3 / 3  # one of the three stays where all would go
    assert (1 - kept[:, :3]).mean(0).tolist() == pytest.approx([expected] * 3, abs=0.04)
    assert image.all()


def test_required_channels_stay():
    drop = RandDropChannelsd("image", CHANNELS, ["T1"], prob=0.9)
    drop.set_random_state(0)
    kept = torch.stack([drop({"image": torch.ones(3, 1)})["image"][:, 0] for _ in range(50)])
    assert kept[:, 1:].all()
    assert not kept[:, 0].all()


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for name in CHANNELS:
        voxels = rng.normal(100, 10, (12, 12, 12)).astype(np.float32)
        made.append(str(save_nifti(tmp_path / f"{name}.nii", voxels, np.eye(4))))
    return made


@pytest.mark.parametrize("given", ["all files", "those that are there"])
def test_a_missing_channel_is_zero_and_noted(files, given):
    named = files if given == "all files" else [files[0], files[2]]
    costs = {"T1c": {"patients": 20, "dice": {"WT": 0.013, "ET": 0.21}}}
    load = LoadImageChannelsd(["image"], CHANNELS, without=["T1c"], channel_costs=costs, check_scans=True)
    loaded, whole = load({"image": named}), LoadImageChannelsd(["image"], CHANNELS)({"image": files})["image"]
    assert not loaded["image"][1].any()
    assert torch.equal(loaded["image"][[0, 2]], whole[[0, 2]])
    note = json.loads(loaded["checks"])[-1]
    assert (note["name"], note["status"]) == ("missing channels", "note")
    assert "the mean Dice of 20 patients falls without, WT by 0.01, ET by 0.21" in note["sentence"]
