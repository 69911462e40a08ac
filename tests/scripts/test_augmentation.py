"""Does what a patch becomes depend on its seed alone, and do image and label stay together?"""

import numpy as np
import pytest
import torch
from monai.data import get_track_meta
from monai.transforms import Compose, Lambdad, RandAffined, RandFlipd

from scripts.augmentation import AugmentedBatch


def batch(seeds: list[int], shape=(16, 16, 16), channels: int = 4) -> dict[str, torch.Tensor]:
    """A ball in noise for each seed, of which every patch is another."""
    place = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij"))
    images, labels = [], []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        ball = ((place - 0.3) ** 2).sum(0) < 0.2
        labels.append(torch.stack([ball] * 3).to(torch.uint8))
        images.append(torch.randn(channels, *shape, generator=rng) * 0.2 + ball)
    return {"image": torch.stack(images), "label": torch.stack(labels), "seed": torch.tensor(seeds)}


@pytest.fixture
def everything(small_train) -> AugmentedBatch:
    """The augmentation of train.yaml with every transform on every patch."""
    return certain(small_train())


def certain(config) -> AugmentedBatch:
    for number in range(len(config["train"]["augmentation"]["transforms"])):
        config[f"train::augmentation::transforms::{number}::prob"] = 1.0
    config.parse(True)
    return config.get_parsed_content("train#trainer#prepare_batch")


def test_the_workflow_augments_as_its_config_says(everything):
    kinds = [type(transform).__name__ for transform in everything.augmentation.transforms]
    assert {"RandFlipd", "RandAffined", "RandGaussianNoised", "RandAdjustContrastd"} <= set(kinds)
    before = batch([1])
    image, _ = everything(before, "cpu")
    assert not torch.allclose(image, before["image"])


def test_a_patch_becomes_the_same_alone_and_among_others(everything):
    together = everything(batch([11, 22, 33]), "cpu")
    for number, seed in enumerate([11, 22, 33]):
        alone = everything(batch([seed]), "cpu")
        assert torch.equal(alone[0][0], together[0][number])
        assert torch.equal(alone[1][0], together[1][number])


def test_the_order_of_a_batch_changes_nothing(everything):
    image, label = everything(batch([11, 22]), "cpu")
    turned_image, turned_label = everything(batch([22, 11]), "cpu")
    assert torch.equal(image, turned_image.flip(0))
    assert torch.equal(label, turned_label.flip(0))


def test_what_was_drawn_elsewhere_changes_nothing(everything):
    first, _ = everything(batch([11]), "cpu")
    torch.manual_seed(99)
    np.random.seed(99)
    torch.rand(5)
    second, _ = everything(batch([11]), "cpu")
    assert torch.equal(first, second)


def test_the_same_patch_under_another_seed_becomes_another(everything):
    patch = batch([11])
    first, _ = everything(patch, "cpu")
    second, _ = everything({**patch, "seed": torch.tensor([12])}, "cpu")
    assert not torch.equal(first, second)


def test_the_largest_seed_is_a_seed(everything):
    largest = {**batch([1]), "seed": torch.tensor([2**32 - 1])}
    assert torch.isfinite(everything(largest, "cpu")[0]).all()


def test_the_network_gets_plain_float_tensors_of_the_same_shape(everything):
    image, label = everything(batch([1, 2]), torch.device("cpu"))
    assert (type(image), image.dtype, image.shape) == (torch.Tensor, torch.float32, (2, 4, 16, 16, 16))
    assert (type(label), label.dtype, label.shape) == (torch.Tensor, torch.float32, (2, 3, 16, 16, 16))
    assert torch.isfinite(image).all()
    assert set(label.unique().tolist()) == {0, 1}


def test_image_and_label_move_together():
    move = Compose(
        [
            RandFlipd(["image", "label"], prob=1.0, spatial_axis=0),
            RandAffined(
                ["image", "label"], prob=1.0, rotate_range=[0.26] * 3, scale_range=[0.2] * 3,
                mode=["bilinear", "nearest"], padding_mode="zeros",
            ),
        ]
    )  # fmt: skip
    before = batch([5, 6])
    before["image"] = before["label"].float()
    image, label = AugmentedBatch(move)(before, "cpu")
    assert not torch.equal(label, before["label"].float())
    assert float(((image > 0.5) == (label > 0.5)).float().mean()) > 0.99


def test_slices_are_augmented_by_the_same_config(small_train):
    flat = certain(small_train(patch_size=[16, 16], filters=[4, 8, 8]))
    image, label = flat(batch([1, 2], shape=(16, 16)), "cpu")
    assert image.shape == (2, 4, 16, 16)
    assert label.shape == (2, 3, 16, 16)


def test_metadata_is_tracked_again_afterwards_also_after_an_error():
    def fail(_):
        raise ValueError

    with pytest.raises(RuntimeError):
        AugmentedBatch(Lambdad("image", fail))(batch([1]), "cpu")
    assert get_track_meta()
