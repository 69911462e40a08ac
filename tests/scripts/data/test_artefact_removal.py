"""Bias fields and noise are removed from the brain; background stays 0."""

import pytest
import torch
from monai.data import MetaTensor

from scripts.data.artefact_removal import CorrectBiasFieldd, SmoothKeepingEdgesd
from scripts.data.patch_dataset import PreparedCases
from scripts.errors import InputError
from tests.made.normalization import seen_in_training_and_inference, started


@pytest.fixture(params=[(24, 20, 16), (48, 48)], ids=["3D", "2D"])
def ball(request) -> torch.Tensor:
    """One channel: a ball of 100 with a core of 160 on a background of 0."""
    axes = (torch.linspace(-1, 1, size) for size in request.param)
    radius = (torch.stack(torch.meshgrid(*axes, indexing="ij")) ** 2).sum(0)
    return ((radius < 0.8) * 100.0 + (radius < 0.2) * 60.0)[None]


def gain(shape) -> torch.Tensor:
    """A smooth field from 0.6 to 1.6 along the first axis."""
    return torch.exp(torch.linspace(-0.5, 0.5, shape[1])).reshape(1, -1, *[1] * (len(shape) - 2))


def spread(image: torch.Tensor, tissue: torch.Tensor) -> float:
    return float(image[tissue].std() / image[tissue].mean())


def test_n4_flattens_a_multiplicative_field(ball):
    noise = 3 * torch.randn(ball.shape, generator=torch.Generator().manual_seed(0))
    uneven = torch.where(ball > 0, ball * gain(ball.shape) + noise, 0)
    flat = CorrectBiasFieldd("image")({"image": uneven})["image"]
    assert spread(uneven, ball == 100) > 0.2
    assert spread(flat, ball == 100) < 0.1
    assert torch.equal(flat == 0, ball == 0)
    assert float(flat[ball == 160].mean() / flat[ball == 100].mean()) == pytest.approx(1.6, abs=0.1)


def test_n4_gives_the_same_numbers_at_each_call(ball):
    uneven = ball * gain(ball.shape)
    first, second = (CorrectBiasFieldd("image")({"image": uneven})["image"] for _ in range(2))
    assert torch.equal(first, second)


def test_denoising_keeps_edges_and_background(ball):
    noise = 8 * torch.randn(ball.shape, generator=torch.Generator().manual_seed(0))
    noisy = torch.where(ball > 0, ball + noise, 0)
    smooth = SmoothKeepingEdgesd("image")({"image": noisy})["image"]
    assert float(smooth[ball == 100].std()) < 0.75 * float(noisy[ball == 100].std())
    assert float(smooth[ball == 160].mean() - smooth[ball == 100].mean()) == pytest.approx(60, abs=5)
    assert torch.equal(smooth == 0, noisy == 0)


@pytest.mark.parametrize("remove", [CorrectBiasFieldd, SmoothKeepingEdgesd])
def test_image_keeps_its_affine_and_empty_channels(ball, remove):
    image = MetaTensor(torch.cat([ball, torch.zeros_like(ball)]), affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))
    done = remove("image")({"image": image})["image"]
    assert torch.equal(done.affine, image.affine)
    assert (done.dtype, done.shape) == (torch.float32, image.shape)
    assert not done[1].any()


def test_n4_of_negative_intensities_is_refused(ball):
    image = MetaTensor(ball - 120 * (ball > 0), meta={"filename_or_obj": "ct.nii.gz"})
    with pytest.raises(InputError, match=r"ct.nii.gz has negative voxels, -20: n4 needs .* as scanned"):
        CorrectBiasFieldd("image")({"image": image})


def test_settings_enable_both_steps_before_normalization(read_config):
    config = read_config("configs/inference.yaml", n4=True, denoise=True)
    names = [type(step).__name__ for step in config.get_parsed_content("preprocessing").transforms]
    assert names[-4:] == ["CropForegroundd", "CorrectBiasFieldd", "SmoothKeepingEdgesd", "NormalizeIntensityd"]


def test_training_and_inference_remove_the_same_artefacts(small_train, read_config):
    training = started(small_train(n4=True, denoise=True))
    seen = seen_in_training_and_inference(training, read_config)
    assert torch.equal(*seen)


def test_case_with_n4_is_another_cache_entry(small_train):
    configs = [small_train(n4=n4) for n4 in (False, True)]
    data = configs[0].get_parsed_content("train#dataset").data
    names = {PreparedCases(data, c.get_parsed_content("preprocessing")).cache_name(data[0]) for c in configs}
    assert len(names) == 2
