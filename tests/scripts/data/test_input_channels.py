"""Derived channels, positions and surroundings, in patches and in sliding windows."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.transforms import Compose, GaussianSmooth, OneOf, RandGaussianNoised, SobelGradients
from skimage.filters import sobel
from torch.nn import functional

from scripts.data import augmentation
from scripts.data.augmentation import AugmentedBatch
from scripts.data.input_channels import DeriveChannelsd, WindowChannels, name_channels
from scripts.errors import InputError
from scripts.inference.sliding_window import MirroringSlidingWindowInferer
from tests.made.patches import box, cut_from

EDGES = {"Edges": {"of": "T1c", "transform": sobel}}
BOTH = WindowChannels([8, 8, 8], coordinates=True, context=4)


def scan(*size: int) -> torch.Tensor:
    return torch.rand(2, *size, generator=torch.Generator().manual_seed(0)) + 0.5


def test_names_of_all_channels_are_in_the_networks_order():
    assert name_channels(["T1", "T1c"], EDGES, coordinates=True, context=4, axes=2) == [
        "T1", "T1c", "Edges (derived from T1c)", "position on axis 1", "position on axis 2",
        "surroundings of T1", "surroundings of T1c", "surroundings of Edges (derived from T1c)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"derived": ["Edges"]}, r"derived_channels is \['Edges'\]: expected"),
        ({"derived": {"Edges": {"of": "T1c"}}}, "derived channel Edges is .*: expected `of`, a channel, and"),
        ({"derived": {"Edges": {"of": "PD", "transform": sobel}}}, "Edges is of PD: expected one of T1, T1c"),
        ({"derived": {"T1": {"of": "T1c", "transform": sobel}}}, "T1 has the name of a channel of the files"),
        ({"context": 1}, "context is 1: expected 2 or more"),
        ({"context": 2.5}, r"context is 2\.5: expected 2 or more"),
    ],
)
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        name_channels(["T1", "T1c"], **settings)


@pytest.mark.parametrize("transform", [sobel, GaussianSmooth(1.0)], ids=["scikit-image", "MONAI"])
def test_derived_channel_is_the_transform_of_its_own(transform):
    image = MetaTensor(scan(8, 9, 7))
    derive = DeriveChannelsd("image", ["T1", "T1c"], {"New": {"of": "T1c", "transform": transform}})
    made = derive({"image": image})["image"]
    expected = transform(image[1:].as_tensor()) if transform is not sobel else sobel(image[1].numpy())[None]
    torch.testing.assert_close(made[2:].as_tensor(), torch.as_tensor(expected, dtype=torch.float32))
    assert torch.equal(made[:2], image)


def test_derived_channel_stays_zero_in_the_background():
    image = scan(8, 8, 8)
    image[:, :4] = 0
    made = DeriveChannelsd("image", ["T1", "T1c"], EDGES)({"image": image})["image"][2]
    assert not made[:4].any()
    assert made[4:].any()


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (SobelGradients(), r"derived channel New of scan has shape \(3, 8, 8, 8\): expected \(1, 8, 8, 8\)"),
        (partial(np.full_like, fill_value=np.nan), "derived channel New of scan has NaN or infinite voxels"),
        ("sobel", "derived channel New has the transform 'sobel': expected a MONAI transform"),
    ],
)
def test_wrong_derived_channel_is_refused(transform, said):
    image = MetaTensor(scan(8, 8, 8), meta={"filename_or_obj": "scan"})
    with pytest.raises(InputError, match=said):
        DeriveChannelsd("image", ["T1", "T1c"], {"New": {"of": "T1", "transform": transform}})({"image": image})


def test_positions_run_from_side_to_side_of_the_scan():
    whole = WindowChannels([4, 4], coordinates=True)(scan(10, 5), [0, 0], [10, 5])
    assert whole[0, :, 0].tolist() == pytest.approx(np.arange(-0.9, 1, 0.2))
    assert whole[1, 0].tolist() == pytest.approx([-0.8, -0.4, 0.0, 0.4, 0.8])
    part = WindowChannels([4, 4], coordinates=True)(scan(10, 5), [3, 1], [4, 4])
    assert torch.equal(part, whole[:, 3:7, 1:5])


def test_small_scan_has_the_positions_of_the_padded_one():
    small = WindowChannels([8, 8], coordinates=True)(scan(3, 8), [-2, 0], [8, 8])
    assert torch.equal(small, WindowChannels([8, 8], coordinates=True)(scan(8, 8), [0, 0], [8, 8]))


@pytest.mark.parametrize("start", itertools.product((-3, 0, 5, 9), (0, 4)), ids=str)
@pytest.mark.parametrize("size", [(8, 6), (5, 8)], ids=str)
def test_surroundings_are_means_of_the_larger_field_of_view(start, size):
    image, margin = scan(13, 11), 64
    padded = functional.pad(image, [margin] * 4)
    first = [margin + begin - 3 * length // 2 for begin, length in zip(start, size, strict=True)]
    view = padded[(slice(None), *(slice(a, a + 4 * length) for a, length in zip(first, size, strict=True)))]
    found = WindowChannels([4, 4], context=4)(image, start, size)
    torch.testing.assert_close(found, functional.avg_pool2d(view[None], 4)[0])


MOVING = [
    augmentation.RandFlipd(["image", "label"], prob=1.0, spatial_axis=0),
    augmentation.RandAffined(
        ["image", "label"], prob=1.0, rotate_range=[0.3] * 3, scale_range=[0.2] * 3,
        mode=["bilinear", "nearest"], padding_mode="zeros",
    ),
]  # fmt: skip
NOISE = augmentation.RandGaussianNoised("image", prob=1.0, std=0.1)


def augmented_position(*transforms) -> torch.Tensor:
    """Batch image [B, 4, ...] of patches whose only channel holds the position on the first axis."""
    case = box(24)
    case["image"] = BOTH(case["image"], [0] * 3, [24] * 3)[:1]
    dataset = cut_from([case], window_channels=WindowChannels([8] * 3, coordinates=True))
    batch = list_data_collate([dataset[(0, seed)] for seed in range(4)])
    return AugmentedBatch(Compose(list(transforms)))(batch, "cpu")[0]


@pytest.mark.parametrize("others", [[], [OneOf([MOVING[0], MOVING[1]])]], ids=["at once", "one by one"])
def test_positions_move_with_the_voxels_they_belong_to(others):
    image = augmented_position(*MOVING, *others)
    assert image.shape == (4, 4, 8, 8, 8)
    assert torch.equal(image[:, 0], image[:, 1])
    assert len(image[:, 1].unique()) > 8


@pytest.mark.parametrize("noise", [NOISE, RandGaussianNoised("image", prob=1.0)], ids=["at once", "one by one"])
def test_intensity_augmentation_leaves_positions_as_they_are(noise):
    image = augmented_position(noise)
    assert torch.equal(image[:, 1:], augmented_position()[:, 1:])
    assert not torch.equal(image[:, 0], image[:, 1])


@pytest.mark.parametrize("size", [(20, 17, 9), (5, 20, 8)], ids=["larger", "smaller than a window"])
@pytest.mark.parametrize("tta", [False, True])
def test_windows_have_the_positions_of_the_whole_scan(size, tta):
    image = scan(*size)
    inferer = MirroringSlidingWindowInferer(
        [8, 8, 8], 2, overlap=0.5, mode="gaussian", window_channels=WindowChannels([8] * 3, coordinates=True), tta=tta
    )
    found = inferer(image[None], lambda windows: windows[:, 2:5])[0]
    expected = WindowChannels([8] * 3, coordinates=True)(image, [0] * 3, size)
    torch.testing.assert_close(found, expected)


def test_windows_and_training_patches_at_one_place_are_equal():
    case = {**box(20), "image": scan(20, 20, 20)}
    dataset = cut_from([case], window_channels=BOTH)
    patch = dataset[(0, 0, int(np.ravel_multi_index((4, 8, 12), (20, 20, 20))))]  # first voxel 0, 4, 8
    seen = []

    def network(windows: torch.Tensor) -> torch.Tensor:
        seen.append(windows)
        return windows[:, :1]

    inferer = MirroringSlidingWindowInferer([8] * 3, 1, overlap=0.5, window_channels=BOTH)
    inferer(dataset.cases[0]["image"][None], network)
    image = torch.cat([patch["image"], patch["window_channels"]]).float()
    assert len(image) == 2 + BOTH.count(2) == 7
    assert any(torch.allclose(window[0], image, atol=1e-3) for window in seen)


def test_background_windows_are_skipped_in_spite_of_positions():
    image = torch.zeros(1, 1, 16, 8, 8)
    image[..., :8, :, :] = torch.rand(8, 8, 8) + 1
    seen = []
    inferer = MirroringSlidingWindowInferer(
        [8] * 3, 1, overlap=0.0, background_logits=[-20.0], window_channels=WindowChannels([8] * 3, coordinates=True)
    )
    inferer(image, lambda windows: seen.append(len(windows)) or windows[:, :1])
    assert sum(seen) == 1
