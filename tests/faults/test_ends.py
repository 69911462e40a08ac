"""Faults of weights, scans, memory, processes and small files end in one sentence, and no mask is left."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import run
from torch.utils.data import DataLoader, Dataset

from bundle.commands.evaluate import evaluate
from bundle.commands.prepare import prepare
from bundle.packaging.runs import read_run
from scripts.data.background import foreground
from scripts.data.datalist import read_datalist, select_cases
from scripts.data.loading import LoadImageChannelsd
from scripts.data.patch_dataset import PreparedCases
from scripts.errors import InputError, input_error_message
from scripts.inference.sliding_window import MirroringSlidingWindowInferer
from tests.made import save_nifti
from tests.made.network import network

INFER = ["configs/inference.yaml", "configs/tasks/phantom.yaml"]
TRAIN = ["configs/train.yaml", "configs/tasks/phantom.yaml"]
EVALUATE = ["configs/evaluate.yaml", "configs/tasks/phantom.yaml"]
SMALL = {"patch_size": [16, 16, 16], "filters": [4, 8, 8, 8], "device": "cpu"}


def sentence_of(call: Callable[[], Any]) -> str:
    """The one sentence that the program would end with."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps ours in its own
        call()
    sentence = input_error_message(caught.value)
    assert sentence is not None, f"a traceback would have been shown: {caught.value!r}"
    assert "\n" not in sentence
    return sentence


def save_weights(path: Path, value: float | None = None) -> Path:
    """The small network's weights; one of them replaced by a value."""
    weights = network().state_dict()
    if value is not None:
        list(weights.values())[-1].view(-1)[0] = value
    torch.save(weights, path)
    return path


def save_scan(folder: Path, array: np.ndarray) -> Path:
    """A case whose four channels are one array."""
    for channel in ("t1", "t1ce", "t2", "flair"):
        save_nifti(folder / f"{folder.name}_{channel}.nii.gz", array.astype(np.float32), np.diag([-6.0, -6.0, 6.0, 1]))
    return folder


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.usefixtures("at_root")
def test_no_workflow_takes_weights_that_are_not_finite(cohort, tmp_path, value):
    weights = str(save_weights(tmp_path / "model.pt", value))
    listed = {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir)}
    for run_id, files, given in (
        ("inferring", INFER, {"input": str(cohort.dataset_dir), "checkpoint": weights}),
        ("evaluating", EVALUATE, {**listed, "checkpoint": weights}),
        ("training", TRAIN, {**listed, "init_from": weights, "run_dir": str(tmp_path / "run")}),
    ):
        given = {**given, **SMALL, "output_dir": str(tmp_path / "masks")}
        sentence = sentence_of(partial(run, run_id, config_file=files, **given))
        assert "holds NaN or infinite weights" in sentence
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_output_that_is_not_finite_gives_no_mask(value):
    inferer = MirroringSlidingWindowInferer([8, 8, 8], background_logits=[-20.0])
    image = torch.rand(1, 1, 12, 8, 8)
    assert "is NaN or infinite" in sentence_of(lambda: inferer(image, lambda window: window * value))


@pytest.mark.parametrize(
    "array", [np.zeros((16, 16, 16)), np.full((16, 16, 16), 7), np.ones((1, 1, 1))], ids=["zeros", "constant", "voxel"]
)
@pytest.mark.usefixtures("at_root")
def test_scan_of_one_value_is_named_by_inference(tmp_path, array):
    scan = save_scan(tmp_path / "case_a", array)
    given = {"input": str(scan), "checkpoint": str(save_weights(tmp_path / "model.pt")), **SMALL}
    sentence = sentence_of(lambda: run("inferring", config_file=INFER, output_dir=str(tmp_path / "out"), **given))
    assert "case_a_t1.nii.gz: channel T1 holds nothing but the value" in sentence
    assert not (tmp_path / "out").exists()


def test_one_constant_channel_is_named_by_every_loader(tmp_path):
    noise = np.random.default_rng(0).random((4, 5, 6))
    files = [save_nifti(tmp_path / f"{k}.nii.gz", noise * k, np.eye(4)) for k in (1, 0)]
    load = LoadImageChannelsd("image", ["T1", "FLAIR"], refuse_constant=True)
    assert "channel FLAIR holds nothing but" in sentence_of(lambda: load({"image": [str(file) for file in files]}))


@pytest.mark.usefixtures("at_root")
def test_constant_scan_is_refused_by_prepare_and_training_alike(cohort, tmp_path, capsys):
    patients = tmp_path / "patients"
    shutil.copytree(cohort.dataset_dir, patients)
    case = sorted(patients.iterdir())[0]
    image = nib.load(case / f"{case.name}_t2.nii.gz")
    save_nifti(case / f"{case.name}_t2.nii.gz", np.full(image.shape, 3, np.float32), image.affine)
    given = {"dataset_dir": str(patients), "run_dir": str(tmp_path / "run"), "verify_hashes": False, **SMALL}
    training = sentence_of(lambda: run("training", config_file=TRAIN, datalist=str(cohort.datalist), **given))
    with pytest.raises(InputError):
        prepare(str(patients), out=str(tmp_path / "list.json"), folds=3, picture=False, workers=1)
    same = f"{case.name}_t2.nii.gz: channel T2 holds nothing but the value 3"
    assert same in training
    assert same in capsys.readouterr().err


def test_blank_slice_is_not_cropped_away():
    assert foreground(torch.zeros(2, 4, 5)).all()
    assert foreground(torch.eye(3)[None]).sum() == 3


class Dying(Dataset):
    """Its loader process is killed, as the operating system does where memory ends."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return index


class Greedy(Dying):
    """Asks its loader process for more memory than there is."""

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.empty(2**50)


def test_dead_loader_process_ends_in_a_sentence():
    sentence = sentence_of(lambda: next(iter(DataLoader(Dying(), num_workers=1))))
    assert "a process that loads training data" in sentence
    assert "num_workers" in sentence


@pytest.mark.parametrize(
    "ask",
    [
        lambda: torch.empty(2**50),
        lambda: np.empty(2**50),
        lambda: bytearray(2**62),
        lambda: next(iter(DataLoader(Greedy(), num_workers=1))),
    ],
    ids=["torch", "numpy", "python", "loader process"],
)
def test_lack_of_memory_ends_in_a_sentence(ask):
    assert "out of memory" in sentence_of(ask)


def test_error_that_speaks_of_memory_otherwise_stays_a_traceback():
    assert input_error_message(ValueError("the text says: out of memory")) is None


@pytest.mark.parametrize("name", ["settings.yaml", "environment.json", "config.yaml"])
@pytest.mark.parametrize("content", ["", "- a list", "{a: [", "\ufffd\x00"], ids=["empty", "list", "torn", "binary"])
def test_damaged_small_file_of_a_run_is_named(tmp_path, name, content):
    folder = tmp_path / "run"
    folder.mkdir()
    save_weights(folder / "model.pt")
    for other in ("settings.yaml", "environment.json", "config.yaml"):
        (folder / other).write_text('{"seed": 0}')
    (folder / name).write_text(content)
    assert str(folder / name) in sentence_of(lambda: read_run(folder))


@pytest.mark.usefixtures("at_root")
def test_empty_settings_of_a_run_are_named_by_evaluate(cohort, tmp_path):
    save_weights(tmp_path / "model.pt")
    (tmp_path / "settings.yaml").write_text("")
    sentence = sentence_of(lambda: evaluate(str(tmp_path), datalist=str(cohort.datalist)))
    assert f"{tmp_path / 'settings.yaml'} is empty" in sentence


@pytest.fixture
def cached(cohort, small_train, tmp_path) -> Callable[[], PreparedCases]:
    """Makes data sets of one case that share a cache on disk."""
    entry = select_cases(read_datalist(cohort.datalist), cohort.dataset_dir, "training", 0)[0]
    transform = small_train().get_parsed_content("train#preprocessing")
    return lambda: PreparedCases([entry], transform, cache="disk", cache_dir=tmp_path / "cache")


def damage(path: Path, how: str) -> None:
    """Halve a file, empty it, flip one bit of it or remove it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    changed = {"halved": content[: len(content) // 2], "empty": b"", "flipped": content}
    path.write_bytes(changed[how]) if how in changed else path.unlink()


@pytest.mark.parametrize("how", ["halved", "empty", "flipped", "removed"])
def test_damaged_cache_is_prepared_again_and_says_so(cached, capsys, how):
    case = cached()[0]
    damage(next(cached().cache_dir.rglob("image.npy")), how)
    assert torch.equal(cached()[0]["image"], case["image"])
    assert "in the cache is damaged: case" in capsys.readouterr().out


def test_cache_that_is_halved_during_a_run_is_named(cached):
    cases = cached()
    cases.prepare()
    path = next(cases.cache_dir.rglob("image.npy"))
    damage(path, "halved")
    assert f"{path} in the cache was damaged" in sentence_of(lambda: cases[0])
