"""Background values set to 0."""

from __future__ import annotations

import numpy as np
import torch

from scripts.data.background import ZeroBackgroundd


def test_constant_background_becomes_zero_in_its_own_channel(head):
    shifted = head + torch.tensor([-3.6, 0.0]).reshape(2, 1, 1, 1)
    shifted[0][head[0] == 0] = -3.6243944
    before = shifted.clone()
    found = ZeroBackgroundd("image")({"image": shifted})["image"]
    assert torch.equal(shifted, before)
    assert torch.equal(found == 0, head == 0)
    assert torch.equal(found[1], head[1])
    array = ZeroBackgroundd("image")({"image": shifted.numpy()})["image"]
    assert isinstance(array, np.ndarray)
    assert (array == found.numpy()).all()


def test_zero_or_varying_background_returns_the_same_object(head):
    noise = torch.randn(2, 12, 10, 8)
    assert ZeroBackgroundd("image")({"image": head})["image"] is head
    assert torch.equal(ZeroBackgroundd("image")({"image": noise})["image"], noise)


def test_background_is_one_value_up_to_rounding(head):
    air = head == 0
    shifted = head - 3.6
    shifted[air] += 1e-6 * torch.rand(int(air.sum()))
    found = ZeroBackgroundd("image")({"image": shifted})["image"]
    assert torch.equal(found == 0, air)
    assert torch.allclose(found[~air], head[~air], atol=1e-4)


def test_background_is_the_corners_value_even_in_one_row():
    white = torch.full((1, 6, 5), 255.0)
    white[:, 2:4, 1:3] = 17.0
    assert ZeroBackgroundd("image")({"image": white})["image"].unique().tolist() == [-238, 0]
    white[0, -1, -1] = 254.0
    assert torch.equal(ZeroBackgroundd("image")({"image": white})["image"], white)
    assert ZeroBackgroundd("image")({"image": white.byte()})["image"].max() == 255
    assert ZeroBackgroundd("image")({"image": torch.tensor([[[3.0, 5.0, 3.0]]])})["image"].tolist() == [[[0, 2, 0]]]
