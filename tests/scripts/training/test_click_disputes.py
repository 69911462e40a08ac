"""A disputed piece is connected, of one intensity, on one side of a border, and changes labels of whole voxels."""

import numpy as np
import pytest
import torch

from scripts.data.images import connected_components
from scripts.training.click_disputes import Dispute, draw_dispute

SIZE = [24] * 3
AWAY = np.linalg.norm(np.indices(SIZE).T - np.array([12, 12, 12]), axis=-1).T
LABEL = torch.from_numpy(np.stack([AWAY < 8, AWAY < 6, AWAY < 3])).float()  # nested regions
IMAGE = np.stack([np.where(AWAY < 11, 5 - (AWAY > 6) + 0.01 * AWAY, 0), np.where(AWAY < 11, 1.0, 0)]).astype(np.float32)
NOWHERE = np.zeros(SIZE, bool)


def disputes(region: int, locked: np.ndarray = NOWHERE) -> list[Dispute]:
    mask = LABEL[region].numpy() > 0
    drawn = (draw_dispute(IMAGE, mask, locked, np.random.default_rng(seed)) for seed in range(60))
    return [one for one in drawn if one is not None]


@pytest.mark.parametrize("region", range(3))
def test_piece_is_connected_and_on_one_side(region):
    mask, found = LABEL[region].numpy() > 0, disputes(region)
    assert {one.click.positive for one in found} == {True, False}
    for one in found:
        piece = np.zeros(SIZE, bool)
        piece[one.voxels] = True
        assert len(connected_components(piece)[1]) == 1
        assert (mask[piece] != one.click.positive).all()
        assert piece[one.click.voxel]
        assert IMAGE[0][piece].all()  # no background


@pytest.mark.parametrize("region", range(3))
def test_regions_stay_nested_in_the_changed_label(region):
    for one in disputes(region):
        label = LABEL.clone()
        one.apply(label)
        assert (label[0] >= label[1]).all()
        assert (label[1] >= label[2]).all()
        changed = label[region] != LABEL[region]
        assert changed[one.voxels].all()
        assert changed.sum() == len(one.voxels[0])
        assert bool(label[region][one.click.voxel]) == one.click.positive


def test_pieces_end_where_the_intensity_changes():
    sharp = [one for one in disputes(1) if len({IMAGE[0][voxel] > 4.5 for voxel in zip(*one.voxels, strict=True)}) == 1]
    assert len(sharp) > len(disputes(1)) / 2


def test_locked_voxels_keep_their_label():
    locked = np.indices(SIZE)[0] < 12
    found = disputes(0, locked)
    assert found
    assert not any(locked[one.voxels].any() for one in found)


def test_a_patch_without_a_border_has_no_dispute():
    assert draw_dispute(IMAGE, NOWHERE, NOWHERE, np.random.default_rng(0)) is None
