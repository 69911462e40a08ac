"""Elastic deformations and quarter turns move image and label alike, in 2D and 3D."""

import numpy as np
import pytest
import torch

from scripts.data.augmentation import AugmentedBatch
from scripts.data.deformation import RandElasticd, RandRotate90EqualAxesd
from tests.scripts.data.test_augmentation import batch, one_by_one

KEYS = ["image", "label"]
SHAPES = [(16, 12, 8), (20, 20)]


def elastic(**settings) -> RandElasticd:
    return RandElasticd(KEYS, prob=1.0, **{"spacing": 8, "mode": ["bilinear", "nearest"], **settings})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [elastic, lambda: RandRotate90EqualAxesd(KEYS, prob=0.7)], ids=["elastic", "turns"])
def test_batch_is_changed_like_its_single_patches(shape, make):
    augment, given = AugmentedBatch(make()), batch([1, 2, 3], shape)
    together, alone = augment(given, "cpu"), one_by_one(augment, given)
    assert augment.at_once
    assert torch.allclose(together[0], alone[0], atol=1e-5)
    assert torch.equal(together[1], alone[1])


@pytest.mark.parametrize("shape", [(24, 20, 16), (32, 32)])
def test_image_and_label_are_deformed_together(shape):
    given = batch([4, 5], shape)
    given["image"] = given["label"].float()
    image, label = AugmentedBatch(elastic(magnitude_range=(2.0, 3.0)))(given, "cpu")
    assert float((label != given["label"]).float().mean()) > 0.01
    assert float(((image > 0.5) == (label > 0.5)).float().mean()) > 0.99


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_displacements_of_all_points_shift_the_patch(shape):
    deform, image = elastic(spacing=5), torch.rand(1, 1, *shape)
    count = len(deform.set_random_state(seed=0).draw(image[0])) // len(shape)
    numbers = [2.0] * count + [0.0] * count * (len(shape) - 1)  # the first axis by two voxels
    moved = deform.apply({"image": image, "label": image}, torch.tensor([numbers]), [numbers])["image"]
    assert torch.allclose(moved[:, :, :-2], image[:, :, 2:], atol=1e-4)


def test_displacement_grows_with_its_magnitude():
    image = torch.linspace(0, 1, 32).expand(1, 32, 32)[None]
    changes = []
    for size in (0.0, 1.0, 4.0):
        deform = elastic(magnitude_range=(size, size)).set_random_state(seed=3)
        moved = deform({"image": image[0], "label": image[0]})["image"]
        changes.append(float((moved - image[0])[:, 8:-8, 8:-8].abs().mean()))
    assert changes[0] < 1e-6
    assert 3 < changes[2] / changes[1] < 5


def test_only_axes_of_equal_size_and_spacing_are_turned():
    image = torch.rand(1, 8, 8, 8)
    turned = RandRotate90EqualAxesd(["image"], prob=1.0, spacing=[1.0, 1.0, 3.0]).set_random_state(seed=0)
    planes = {tuple(turned.draw(image)[:2]) for _ in range(20)}
    assert planes == {(0, 1)}
    every = RandRotate90EqualAxesd(["image"], prob=1.0).set_random_state(seed=0)
    assert {tuple(every.draw(image)[:2]) for _ in range(40)} == {(0, 1), (0, 2), (1, 2)}
    assert {every.draw(image)[2] for _ in range(40)} == {1, 2, 3}
    assert every.draw(torch.rand(1, 8, 6, 4)) is None


def test_quarter_turns_are_those_of_numpy():
    turn = RandRotate90EqualAxesd(["image"], prob=1.0).set_random_state(seed=1)
    image = torch.rand(2, 6, 6)
    first, second, count = turn.draw(image)
    found = turn.set_random_state(seed=1)({"image": image})["image"]
    assert np.array_equal(found.numpy(), np.rot90(image.numpy(), count, (first + 1, second + 1)))
