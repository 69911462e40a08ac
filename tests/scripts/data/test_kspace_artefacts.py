"""Ghosts and motion change one channel of an image as their physics says."""

import pytest
import torch

from scripts.data.augmentation import AugmentedBatch
from scripts.data.kspace_artefacts import RandGhostingd, RandMotiond
from tests.scripts.data.test_augmentation import batch, one_by_one


@pytest.mark.parametrize("shape", [(16, 12, 8), (16, 12)])
@pytest.mark.parametrize("kind", [RandGhostingd, RandMotiond])
def test_one_channel_is_changed_alike_alone_and_in_a_batch(kind, shape):
    augment, given = AugmentedBatch(kind("image", prob=1.0)), batch([1, 2, 3], shape)
    together, alone = augment(given, "cpu"), one_by_one(augment, given)
    assert torch.allclose(together[0], alone[0], atol=1e-5)
    changed = ((together[0] - given["image"]).flatten(2).abs().amax(2) > 1e-4).sum(1)
    assert changed.tolist() == [1, 1, 1]
    assert torch.equal(together[1], given["label"].float())


def test_ghosts_are_copies_at_equal_distances():
    image = torch.zeros(1, 1, 64, 8)
    image[..., 10, :] = 100.0
    ghosting = RandGhostingd("image", prob=1.0)
    drawn = [[0.0, 0.0, 4.0, 0.5]]  # the first axis, four copies, half of the intensity
    found = ghosting.apply({"image": image}, torch.tensor(drawn), drawn)["image"][0, 0, :, 0]
    brightest = found.abs().topk(4).indices.sort().values.tolist()
    assert brightest == [10, 26, 42, 58]  # a quarter of 64 apart
    assert found[26].abs() < found[10] / 2


def test_a_still_head_is_measured_without_an_artefact():
    motion = RandMotiond("image", prob=1.0, degrees=0.0, voxels=0.0)
    image = torch.rand(2, 12, 10, 8)
    assert torch.allclose(motion({"image": image})["image"], image, atol=1e-5)


def test_motion_keeps_the_place_and_blurs_the_edges():
    image = torch.zeros(1, 32, 32)
    image[:, 8:24, 8:24] = 1.0
    for seed in range(10):
        motion = RandMotiond("image", prob=1.0, degrees=0.0, voxels=3.0).set_random_state(seed=seed)
        found = motion({"image": image})["image"]
        assert float((found - image).abs().max()) > 0.02
        rows = torch.arange(32.0)
        centre = (found.clamp(0)[0].sum(1) * rows).sum() / found.clamp(0).sum()
        assert float(centre) == pytest.approx(15.5, abs=1)  # where the label is
