"""Augmentation depends on a patch's seed alone and moves image and label together."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai import transforms as theirs
from monai.data import get_track_meta, set_track_meta
from monai.transforms import Compose, Lambdad, RandAffined, RandFlipd

from scripts.data import augmentation as ours
from scripts.data.augmentation import AugmentedBatch, PrefetchedBatches
from scripts.data.sampler import EpochSampler
from scripts.training.handlers import EpochSeed


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


def certain(config, probability: float = 1.0) -> AugmentedBatch:
    for number in range(len(config["train"]["augmentation"]["transforms"])):
        config[f"train::augmentation::transforms::{number}::prob"] = probability
    config.parse(True)
    return config.get_parsed_content("train#trainer#prepare_batch")


def test_the_workflow_augments_as_its_config_says(everything):
    kinds = [type(transform).__name__ for transform in everything.augmentation.transforms]
    assert {"RandFlipd", "RandAffined", "RandGaussianNoised", "RandAdjustContrastd"} <= set(kinds)
    before = batch([1])
    image, _ = everything(before, "cpu")
    assert not torch.allclose(image, before["image"])


def test_patch_is_augmented_equally_alone_and_in_a_batch(everything):
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


def test_random_numbers_drawn_elsewhere_have_no_effect(everything):
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


# ---- a batch at once ------------------------------------------------------------------------------------------------


def one_by_one(augment: AugmentedBatch, given: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch after each patch went through the chain alone."""
    augment.at_once = False
    try:
        return augment(given, "cpu")
    finally:
        augment.at_once = True


@pytest.mark.parametrize("shape", [(16, 12, 8), (16, 12)])
@pytest.mark.parametrize("probability", [0.4, 1.0])
def test_batch_is_augmented_like_its_single_patches(small_train, shape, probability):
    config = small_train(patch_size=[16] * len(shape), filters=[4, 8, 8])
    augment = certain(config, probability)
    assert augment.at_once
    for start in range(0, 60, 3):
        given = batch([start, start + 1, start + 2], shape)
        together = augment(given, "cpu")
        drawn = [transform.R.get_state()[1].tolist() for transform in augment.transforms]
        alone = one_by_one(augment, given)
        assert drawn == [transform.R.get_state()[1].tolist() for transform in augment.transforms]
        assert torch.allclose(together[0], alone[0], rtol=1e-4, atol=1e-5)
        assert torch.equal(together[1], alone[1])


def test_a_chain_with_another_transform_goes_patch_by_patch(small_train):
    config = small_train()
    elastic = {"_target_": "Rand3DElasticd", "keys": "image", "sigma_range": [1, 2], "magnitude_range": [1, 2]}
    config["train"]["augmentation"]["transforms"].append(elastic)
    augment = certain(config)
    assert not augment.at_once
    together, alone = augment(batch([1, 2]), "cpu"), augment(batch([2]), "cpu")
    assert torch.equal(together[0][1], alone[0][0])


MONAIS = {
    "RandFlipd": {"keys": ["image", "label"], "spatial_axis": 1},
    "RandGaussianSmoothd": {"sigma_x": (0.3, 1.2), "sigma_y": (0.5, 1.0), "sigma_z": (0.5, 1.0)},
    "RandScaleIntensityd": {"factors": 0.25, "channel_wise": True},
    "RandScaleIntensityFixedMeand": {"factors": 0.25},
    "RandSimulateLowResolutiond": {"zoom_range": (0.5, 1.0)},
    "RandAdjustContrastd": {"gamma": (0.7, 1.5), "retain_stats": True},
}
OTHER_SETTINGS = {
    "RandFlipd": {"keys": ["image", "label"]},
    "RandGaussianSmoothd": {"approx": "sampled"},
    "RandScaleIntensityd": {"factors": (0.1, 0.5)},
    "RandScaleIntensityFixedMeand": {"factors": 0.25, "channel_wise": True, "preserve_range": True},
    "RandSimulateLowResolutiond": {"downsample_mode": "area"},
    "RandAdjustContrastd": {"invert_image": True},
}


@pytest.mark.parametrize("settings", [MONAIS, OTHER_SETTINGS], ids=["as in train.yaml", "other settings"])
@pytest.mark.parametrize("name", MONAIS)
@pytest.mark.parametrize("shape", [(16, 12, 8), (16, 12)])
def test_each_transform_draws_and_computes_what_monais_does(name, settings, shape):
    options = {"keys": "image", "prob": 0.7, **settings[name]}
    if name == "RandSimulateLowResolutiond" and len(shape) == 2:
        options["upsample_mode"] = "bilinear"
    mine, monais = (AugmentedBatch(getattr(library, name)(**options)) for library in (ours, theirs))
    assert mine.at_once
    assert not monais.at_once
    for start in range(0, 20, 2):
        given = batch([start, start + 1], shape)
        for found, expected in zip(mine(given, "cpu"), monais(given, "cpu"), strict=True):
            assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert mine.state.get_state()[1].tolist() == monais.state.get_state()[1].tolist()
        assert mine.state.get_state()[2] == monais.state.get_state()[2]


# ---- batches ahead --------------------------------------------------------------------------------------------------


class Loader:
    """Two batches per epoch, each with the epoch of the sampler when it was drawn."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler, self.drawn = sampler, []

    def __len__(self) -> int:
        return 2

    def __iter__(self):
        for number in range(2):
            self.drawn.append((self.sampler.epoch, number))
            yield {**batch([2 * self.sampler.epoch + number], (4, 4, 4)), "case": [f"{self.sampler.epoch} {number}"]}


@pytest.mark.parametrize("ahead", [True, False])
def test_batches_ahead_are_never_those_of_the_next_epoch(ahead):
    sampler, seen = EpochSampler(cases=4, samples=2), []
    loader, prepare = Loader(sampler), AugmentedBatch(ours.RandFlipd(KEYS, prob=0.5))
    ready = PrefetchedBatches(loader, prepare, "cpu")
    ready.ahead = ahead
    assert len(ready) == 2

    def step(engine: Engine, given: dict) -> None:
        image, label = prepare(given, "cpu")
        expected = prepare(batch([2 * (engine.state.epoch - 1) + len(seen) % 2], (4, 4, 4)), "cpu")
        assert torch.equal(image, expected[0])
        assert torch.equal(label, expected[1])
        seen.append(given["case"][0])
        assert loader.drawn[-1] == (engine.state.epoch - 1, int(ahead or len(seen) % 2 == 0))

    engine = Engine(step)
    EpochSeed(sampler, 0).attach(engine)
    engine.run(ready, max_epochs=3, epoch_length=2)
    assert seen == ["0 0", "0 1", "1 0", "1 1", "2 0", "2 1"]
    assert loader.drawn == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]


# ---- ours against MONAI's ------------------------------------------------------------------------------------------


@pytest.fixture
def untracked():
    set_track_meta(False)
    yield
    set_track_meta(True)


AFFINE = {"mode": ["bilinear", "nearest"], "padding_mode": "zeros"}
KEYS = ["image", "label"]


def affine(library, axes: int, leave_out: str = ""):
    rotations = 3 if axes == 3 else 1
    ranges = {"rotate_range": [0.26] * rotations, "scale_range": [0.2] * axes}
    ranges.pop(leave_out, None)
    return library.RandAffined(KEYS, prob=1.0, **AFFINE, **ranges)


@pytest.mark.usefixtures("untracked")
@pytest.mark.parametrize("shape", [(20, 24, 16), (24, 16)])
@pytest.mark.parametrize("leave_out", ["", "rotate_range", "scale_range"])
def test_rotation_and_scaling_match_monai_given_angles_and_factors(shape, leave_out):
    drawn = batch([3], shape)
    patch = {"image": drawn["image"][0], "label": drawn["label"][0].float()}
    mine, monais = (affine(library, len(shape), leave_out) for library in (ours, theirs))
    moved = mine.set_random_state(seed=5)(patch)
    wanted, found = (t.rand_affine.rand_affine_grid for t in (monais, mine))
    wanted.randomize = lambda data=None: None  # MONAI draws twice and uses the second; take what ours drew
    wanted.rotate_params, wanted.scale_params = found.rotate_params, found.scale_params
    wanted.shear_params = wanted.translate_params = []
    expected = monais(patch)
    assert torch.allclose(moved["image"], torch.as_tensor(expected["image"]).float(), atol=1e-3)
    assert float((moved["label"] != torch.as_tensor(expected["label"])).float().mean()) < 1e-3
    assert not torch.allclose(moved["image"], patch["image"], atol=0.1)


@pytest.mark.usefixtures("untracked")
@pytest.mark.parametrize("shape", [(20, 24, 16), (24, 16)])
def test_the_bias_field_is_that_of_monai(shape):
    image = {"image": torch.rand(2, *shape) + 1}
    mine, monais = (library.RandBiasFieldd("image", 2, (0.0, 0.1), prob=1.0) for library in (ours, theirs))
    fields = [t.set_random_state(seed=5)(image)["image"] / image["image"] for t in (mine, monais)]
    assert torch.allclose(fields[0], torch.as_tensor(fields[1]).float(), atol=1e-5)
    assert float(fields[0].std()) > 0.01


def deciles(values) -> np.ndarray:
    return np.quantile(np.asarray(values), np.linspace(0.1, 0.9, 9))


def drawn_parameters(transform, patch: dict, read, count: int = 400) -> np.ndarray:
    transform.set_random_state(seed=0)
    rows = []
    for _ in range(count):
        transform(patch)
        rows.append(read(transform))
    return np.array(rows)


@pytest.mark.usefixtures("untracked")
def test_angles_and_factors_have_the_same_distribution_as_monais():
    patch = {"image": torch.zeros(1, 4, 4, 4), "label": torch.zeros(1, 4, 4, 4)}

    def read(transform) -> list[float]:
        grid = transform.rand_affine.rand_affine_grid
        return [*grid.rotate_params, *grid.scale_params]

    mine, monais = (drawn_parameters(affine(library, 3), patch, read) for library in (ours, theirs))
    for column in range(6):  # 400 draws each: deciles of a uniform range differ by 0.05 of it or so
        width = 2 * (0.26 if column < 3 else 0.2)
        assert np.abs(deciles(mine[:, column]) - deciles(monais[:, column])).max() < 0.12 * width
        assert np.ptp(mine[:, column]) > 0.95 * width


STATISTICS = {
    "mean": torch.mean,
    "standard deviation": torch.std,
    "tenth percentile": lambda image: torch.quantile(image, 0.1),
    "maximum": torch.amax,
}


@pytest.mark.usefixtures("untracked")
@pytest.mark.parametrize(
    "make",
    [
        lambda library: library.RandGaussianNoised("image", prob=0.5, std=0.5),
        lambda library: library.RandBiasFieldd("image", 2, (0.0, 0.3), prob=0.5),
        lambda library: Compose([affine(library, 3)]),
    ],
    ids=["noise", "bias field", "affine"],
)
def test_patches_have_the_statistics_of_monais_transforms(make):
    drawn = batch([1], (10, 10, 10), channels=1)
    patch = {"image": drawn["image"][0] + 1, "label": drawn["label"][0].float()}
    found = []
    for library in (ours, theirs):
        transform = make(library).set_random_state(seed=0)
        images = [torch.as_tensor(transform(patch)["image"]).float() for _ in range(400)]
        found.append({name: [float(statistic(image)) for image in images] for name, statistic in STATISTICS.items()})
    for name in STATISTICS:
        mine, monais = (np.array(one[name]) for one in found)
        spread = monais.std()
        assert spread > 0
        # two samples of 400: the largest distance of their distributions exceeds 0.136 once in a thousand (Smirnov)
        grid = np.sort(np.concatenate([mine, monais]))
        share = [np.searchsorted(np.sort(values), grid, side="right") / 400 for values in (mine, monais)]
        assert np.abs(share[0] - share[1]).max() < 0.136, name


@pytest.mark.usefixtures("untracked")
def test_each_patch_gets_another_noise_of_a_strength_that_varies():
    noise = ours.RandGaussianNoised("image", prob=1.0, std=0.5).set_random_state(seed=1)
    zeros = {"image": torch.zeros(2, 12, 12, 12)}
    first, second = (noise(zeros)["image"] for _ in range(2))
    assert not torch.equal(first / first.std(), second / second.std())
    assert abs(float(first.std() - second.std())) > 1e-3
    assert not torch.equal(first[0], first[1])


def test_every_angle_and_strength_of_its_range_is_drawn(small_train, monkeypatch):
    """A transform whose inner part is seeded alike draws its angle from the number that let it happen."""
    augment = small_train().get_parsed_content("train#trainer#prepare_batch")
    transforms = {type(t).__name__: t for t in augment.augmentation.transforms}
    ranges = {
        "RandAffined": (lambda t: t.rand_affine.rand_affine_grid.rotate_params[0], -0.26, 0.26),
        "RandScaleIntensityd": (lambda t: t.scaler.factor, -0.25, 0.25),
        "RandScaleIntensityFixedMeand": (lambda t: t.scaler.factor, -0.25, 0.25),
        "RandSimulateLowResolutiond": (lambda t: t.sim_lowres_tfm.zoom_factor, 0.5, 1.0),
        "RandAdjustContrastd": (lambda t: t.adjuster.gamma_value, 0.7, 1.5),
    }
    drawn = {name: [] for name in ranges}
    for name, (read, *_) in ranges.items():

        def draw_and_record(image, own=transforms[name], draw=transforms[name].draw, read=read, values=drawn[name]):
            numbers = draw(image)
            values.extend([] if numbers is None else [read(own)])
            return numbers

        monkeypatch.setattr(transforms[name], "draw", draw_and_record)
    for seed in range(0, 3000, 5):
        patch = {"image": torch.rand(1, 1, 4, 4, 4), "label": torch.ones(1, 1, 4, 4, 4), "seed": torch.tensor([seed])}
        augment(patch, "cpu")
    for name, (_, low, high) in ranges.items():
        places = (np.ravel(drawn[name]) - low) / (high - low)
        assert len(places) > 50, name
        assert 0.4 < np.mean(places) < 0.6, name  # the standard error of the mean of 60 is 0.037
        assert places.min() < 0.1 < 0.9 < places.max(), name


# ---- rotation with a margin -----------------------------------------------------------------------------------------


def turn(prob: float = 1.0):
    """Flips, the affine transform of train.yaml, and noise."""
    chain = [
        ours.RandFlipd(KEYS, prob=0.5, spatial_axis=0),
        affine(ours, 3),
        ours.RandGaussianNoised("image", prob=0.5),
    ]
    chain[1].prob = prob
    return Compose(chain)


def with_margin(given: dict, margin: list[int], value: float) -> dict:
    """The batch, continued by `value` on each side."""
    sides = [side for more in reversed(margin) for side in (more, more)]
    wide = {key: torch.nn.functional.pad(given[key].float(), sides, value=value) for key in KEYS}
    return {**given, **wide}


def test_no_rotation_or_scaling_reaches_beyond_the_margin():
    size = [16, 12, 8]
    margin = ours.rotation_margin(turn(), size)
    augment = AugmentedBatch(Compose([affine(ours, 3)]), size)
    for start in range(0, 300, 3):
        given = with_margin(batch([start, start + 1, start + 2], size), margin, 1.0)
        image, label = augment({**given, "image": torch.ones_like(given["image"])}, "cpu")
        assert (image.shape, label.shape) == ((3, 4, *size), (3, 3, *size))
        assert torch.allclose(image, torch.ones(()))


def test_margin_is_as_small_as_its_rotations_and_scalings():
    flat = ours.RandAffined(KEYS, prob=1.0, rotate_range=[np.pi / 4], **AFFINE)
    assert ours.rotation_margin(flat, [20, 20]) == [5, 5]  # half of the diagonal, 14.1, instead of 10
    scaled = ours.RandAffined(KEYS, prob=1.0, scale_range=[(-0.3, 0.5), 0.1], **AFFINE)
    assert ours.rotation_margin(scaled, [20, 20]) == [5, 1]
    assert ours.rotation_margin(Compose([scaled, scaled]), [20, 20]) == [13, 3]
    assert ours.rotation_margin(turn(prob=0.0), [16, 12, 8]) == [0, 0, 0]


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_margin_of_zeros_changes_nothing(probability):
    given, size = batch([1, 2, 3], (16, 12, 8)), [16, 12, 8]
    expected = AugmentedBatch(turn(probability))(given, "cpu")
    margin = ours.rotation_margin(turn(), size)
    found = AugmentedBatch(turn(probability), size)(with_margin(given, margin, 0.0), "cpu")
    assert torch.allclose(found[0], expected[0], atol=1e-4)
    assert float((found[1] != expected[1]).float().mean()) < 1e-3


def test_margin_is_used_alike_alone_and_in_a_batch():
    size = [16, 12, 8]
    augment = AugmentedBatch(turn(0.5), size)
    given = with_margin(batch([1, 2, 3, 4], size), ours.rotation_margin(turn(), size), 0.5)
    together, alone = augment(given, "cpu"), one_by_one(augment, given)
    assert torch.allclose(together[0], alone[0], atol=1e-5)
    assert torch.equal(together[1], alone[1])


def test_training_with_a_margin_cuts_the_same_patches(small_train):
    configs = [small_train(rotation_margin=margin, augmentation_strength=1.0) for margin in (False, True)]
    plain, wide = (config.get_parsed_content("train#dataset")[0, 7] for config in configs)
    more = ours.rotation_margin(configs[1].get_parsed_content("train#augmentation"), plain["image"].shape[1:])
    inside = (slice(None), *(slice(m, m + n) for m, n in zip(more, plain["image"].shape[1:], strict=True)))
    for key in KEYS:
        assert torch.equal(wide[key][inside], plain[key])
        assert wide[key].shape[1:] == tuple(n + 2 * m for n, m in zip(plain[key].shape[1:], more, strict=True))
    assert wide["image"].count_nonzero() > plain["image"].count_nonzero()


def test_equal_factors_scale_all_axes_alike():
    scale = ours.RandAffined(KEYS, prob=1.0, scale_range=[(-0.3, 0.4)] * 3, one_scale=True, **AFFINE)
    scale.set_random_state(seed=0)
    for _ in range(10):
        theta = np.reshape(scale.draw(torch.zeros(1, 8, 8, 8)), (3, 4))
        assert np.allclose(theta[:, :3], theta[0, 0] * np.eye(3))
        assert 0.7 <= theta[0, 0] <= 1.4
