"""One batch, repeated, tells a network that learns from one that does not."""

import numpy as np
import pytest
import torch
from monai.bundle import run
from PIL import Image

from scripts.errors import InputError
from scripts.training.losses import RegionDiceCELoss
from scripts.training.overfit import cut_batch, draw_batch, overfit_batch


def one_batch(learning_rate, tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 1, 1)
    image = torch.randn(1, 1, 8, 8, 8)
    batch = {"image": image, "label": (image > 0).float()}
    return overfit_batch(
        network,
        RegionDiceCELoss(),
        lambda image, network: network(image),
        lambda batch, device: (batch["image"], batch["label"]),
        batch,
        torch.optim.AdamW(network.parameters(), learning_rate),
        "cpu",
        str(tmp_path / "losses.png"),
        steps=60,
    )


def test_batch_is_repeated_until_its_loss_has_halved(tmp_path, capsys):
    values = one_batch(0.5, tmp_path)
    assert values[-1] <= 0.5 * values[0] < values[-2]
    assert f"in {len(values)} steps, half of the first" in capsys.readouterr().out
    assert (tmp_path / "losses.png").stat().st_size > 5000


@pytest.mark.parametrize("axes", [2, 3])
def test_picture_shows_input_label_and_prediction(axes, tmp_path):
    image = np.random.default_rng(0).normal(size=(2, 6, *[8] * axes))
    masks = np.stack([image[:, 0] > 0, image[:, 0] > 1], 1).astype(float)
    draw_batch([1.0, 0.5], image, masks, np.zeros_like(masks), tmp_path / "batch.png")
    with Image.open(tmp_path / "batch.png") as picture:
        assert picture.size == (1320, 560)  # six parts: four of the channels, label and prediction


def test_batch_whose_loss_stays_above_half_takes_all_steps(tmp_path, capsys):
    values = one_batch(0.01, tmp_path)
    assert len(values) == 60
    assert "in all 60 steps, more than half of the first" in capsys.readouterr().out


def test_network_that_does_not_learn_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"one batch repeated 60 times has a loss of .*does not learn; check the loss"):
        one_batch(0.0, tmp_path)
    assert (tmp_path / "losses.png").is_file()


def test_batch_is_of_a_few_cases_prepared_here(small_train):
    parser = small_train(num_workers=2, normalize_scope="dataset")
    loader = parser.get_parsed_content("train#dataloader")
    assert len(loader.dataset) == 3
    batch = cut_batch(loader, parser.get_parsed_content("preprocessing"), seed=0, cases=2)
    assert batch["image"].shape == (2, 4, 16, 16, 16)
    assert len(loader.dataset.cases.held) == len({*batch["case"]}) == 2


def test_batch_is_of_labelled_cases(small_train, monkeypatch):
    parser = small_train(cache="none")
    loader = parser.get_parsed_content("train#dataloader")
    monkeypatch.setattr(loader.dataset, "labelled", lambda: [1])
    batch = cut_batch(loader, parser.get_parsed_content("preprocessing"), seed=0)
    assert batch["case"] == [loader.dataset.data[1]["case"]] * 2


@pytest.mark.usefixtures("at_root")
def test_check_repeats_a_batch_of_the_training(cohort, tmp_path, capsys):
    run(
        "check", config_file=["configs/train.yaml", "configs/tasks/phantom.yaml"], datalist=str(cohort.datalist),
        dataset_dir=str(cohort.dataset_dir), run_dir=str(tmp_path / "run"), device="cpu", patch_size=[16, 16, 16],
        filters=[4, 8, 8], learning_rate=0.01, overfit=True,
    )  # fmt: skip
    assert "one batch: loss" in capsys.readouterr().out
    assert (tmp_path / "run_overfit.png").is_file()
    assert not (tmp_path / "run").exists()
