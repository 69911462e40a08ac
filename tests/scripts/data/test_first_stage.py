"""Masks of a first stage reach the second as they are, move with the label, and are of networks that never saw them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from scipy import ndimage

from scripts.data.augmentation import RandAffined, RandFlipd, RandGaussianNoised, RandScaleIntensityd
from scripts.data.datalist import read_datalist, select_cases
from scripts.data.first_stage import (
    SHAPES,
    AppendMaskChannelsd,
    CascadeBatch,
    change_shape,
    check_first_stage,
    corrupt_masks,
)
from scripts.data.patch_dataset import PreparedCases
from scripts.files import read_mapping, write_json, write_text
from tests.made import refused
from tests.made.first_stage import write_first_stage

LABELS = {"NCR": 1, "ED": 2, "ET": 4}


@pytest.fixture
def first_stage(cohort, tmp_path) -> Path:
    return write_first_stage(tmp_path / "first", cohort.datalist, cohort.dataset_dir)


# no voxel of the second spacing lies midway between two of the 6 mm of the phantoms
@pytest.mark.parametrize("spacing", [None, [5.31, 4.73, 6.57]], ids=["own spacing", "resampled"])
def test_a_perfect_first_mask_is_reproduced(cohort, first_stage, spacing, read_config):
    files = ("configs/train.yaml", "configs/tasks/phantom.yaml", "configs/recipes/cascade.yaml")
    config = read_config(*files, spacing=spacing, first_stage=str(first_stage))
    prepare, voxels = config.get_parsed_content("preprocessing"), np.zeros(len(LABELS))
    for entry in select_cases(read_datalist(cohort.datalist), cohort.dataset_dir, "labelled"):
        case = prepare(entry)
        assert case["image"].shape[0] == 4 + len(LABELS) == len(config.get_parsed_content("network_channels"))
        masks, label = case["image"][4:].numpy(), case["label"][0].numpy()
        assert np.array_equal(masks, np.stack([label == value for value in LABELS.values()]))
        voxels += masks.sum((1, 2, 3))
    assert voxels.min() > 0


def batch_of(masks: torch.Tensor) -> dict:
    image = torch.cat([torch.rand(len(masks), 4, *masks.shape[2:]), masks], 1)
    return {"image": image.half(), "label": masks.clone(), "seed": torch.arange(len(masks))}


def balls(number: int) -> torch.Tensor:
    """Masks [number, 2, 24, 24, 24] of two balls that do not touch, at random places."""
    places = torch.stack(torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij"), -1)
    rng = np.random.default_rng(0)
    centres = [torch.from_numpy(np.stack([rng.uniform(4, 8, 3), rng.uniform(14, 19, 3)])) for _ in range(number)]
    return torch.stack([torch.stack([((places - c) ** 2).sum(-1) < 16 for c in both]) for both in centres]).float()


def augmentation(*further) -> Compose:
    both = ["image", "label"]
    turn = RandAffined(both, 1.0, rotate_range=[0.5] * 3, scale_range=[0.3] * 3, mode=["bilinear", "nearest"])
    return Compose([RandFlipd(both, 0.5, 0), turn, RandGaussianNoised("image", 1.0), *further])


def test_masks_move_with_the_label_and_keep_their_values():
    prepare = CascadeBatch(augmentation(RandScaleIntensityd("image", 0.9, 1.0)), 4, 2, morphology=0.0, removal=0.0)
    image, label = prepare(batch_of(balls(6)), "cpu")
    assert label.shape == (6, 2, 24, 24, 24)
    assert torch.equal(image[:, 4:], label)
    assert not torch.equal(label, balls(6))


def test_channels_of_the_place_follow_the_masks():
    further = torch.full((6, 3, 24, 24, 24), 7.0)
    prepare = CascadeBatch(Compose([RandFlipd(["image", "label"], 1.0, 0)]), 4, 2, morphology=0.0, removal=0.0)
    image, _ = prepare({**batch_of(balls(6)), "window_channels": further}, "cpu")
    assert torch.equal(image[:, 4:6], balls(6).flip(2))
    assert torch.equal(image[:, 6:], further)


def test_masks_are_corrupted_and_labels_are_not():
    prepare = CascadeBatch(Compose([RandFlipd(["image", "label"], 0.0, 0)]), 4, 2, morphology=1.0, removal=1.0)
    image, label = prepare(batch_of(balls(6)), "cpu")
    again, _ = prepare(batch_of(balls(6)), "cpu")
    assert torch.equal(label, balls(6))
    assert torch.equal(image[:, 4:], again[:, 4:])  # by the seed of each patch
    assert not torch.equal(image[:, 4:], label)
    assert image[:, 4:].unique().tolist() == [0, 1]
    assert float(image[:, 4:].sum(1).max()) == 1  # labels exclude each other


@pytest.mark.parametrize("operation", SHAPES)
@pytest.mark.parametrize("radius", [1, 3])
def test_changes_of_shape_are_those_of_scipy(operation, radius):
    mask = np.random.default_rng(0).random((20, 22, 18)) < (0.05 if operation in ("dilation", "closing") else 0.95)
    steps = np.indices([2 * radius + 1] * 3) - radius
    ball = (steps**2).sum(0) <= radius**2
    kept = {"border_value": 1} if operation == "erosion" else {}
    padded = np.pad(mask, 9, mode="constant", constant_values=operation == "opening")  # the rim does not erode
    expected = getattr(ndimage, f"binary_{operation}")(
        padded if operation in ("closing", "opening") else mask, ball, **kept
    )
    expected = expected[9:-9, 9:-9, 9:-9] if operation in ("closing", "opening") else expected
    found = change_shape(torch.from_numpy(mask), operation, radius).numpy()
    inner = (slice(radius, -radius),) * 3 if operation in ("closing", "opening") else ...
    assert np.array_equal(found[inner], expected[inner])


def test_small_components_are_removed_and_large_ones_stay():
    masks = torch.zeros(1, 10, 10, 10)
    masks[0, :5] = 1  # half of the patch
    masks[0, 8, 8, 8] = 1
    left = masks.clone()
    rng = np.random.default_rng(1)
    for _ in range(20):
        corrupt_masks(left, rng, morphology=0.0, removal=1.0)
    assert float(left[0, :5].min()) == 1
    assert float(left[0, 8, 8, 8]) == 0


def remove_mask(folder: Path) -> None:
    min((folder / "masks").iterdir()).unlink()


def train_on_all(folder: Path) -> None:
    record = folder / "fold1" / "environment.json"
    others = read_mapping(folder / "fold2" / "environment.json")["patients"]["training"]
    write_json(record, {"patients": {"training": others}})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "crossval.json").unlink(), "is not a cross-validation"),
        (lambda folder: write_json(folder / "crossval.json", {"sha256": "0", "folds": []}), "has another data list"),
        (lambda folder: shutil.rmtree(folder / "fold3"), "lacks fold 3"),
        (remove_mask, "hold no first-stage mask of case BraTS2021_00000"),
        (train_on_all, "fold1 was trained on patient"),
        (lambda folder: write_text(folder / "fold0" / "settings.yaml", "first_stage: x"), "is a second stage itself"),
    ],
    ids=["no cross-validation", "another list", "missing fold", "missing mask", "seen patient", "second stage"],
)
def test_a_first_stage_that_cannot_be_trusted_is_refused(cohort, first_stage, damage, said):
    content = read_datalist(cohort.datalist)
    check_first_stage(first_stage, content)
    damage(first_stage)
    assert said in refused(check_first_stage, first_stage, content)


def test_no_first_stage_is_refused():
    assert "first_stage is not given" in refused(check_first_stage, None, {})


def test_other_masks_are_other_cases_in_the_cache(cohort, first_stage):
    (entry,) = select_cases(read_datalist(cohort.datalist), cohort.dataset_dir, "validation", 1)

    def name() -> str:
        return PreparedCases([entry], AppendMaskChannelsd("image", str(first_stage), LABELS)).cache_name(entry)

    before = name()
    assert name() == before
    os.utime(min((first_stage / "masks").iterdir()), ns=(1, 1))
    assert name() != before
