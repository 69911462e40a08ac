"""Time of a training step, of the network alone, of MONAI's usual order, and of nnU-Net."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai import transforms
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, list_data_collate

from bundle.benchmarks import memory
from bundle.benchmarks.gpu_use import measure_gpu_use
from bundle.benchmarks.nnunet import peer
from bundle.benchmarks.patients import write_datalist, write_patients
from bundle.benchmarks.timing import BenchmarkResult, Timing, add_ratios, time_in_turn
from scripts.data import datalist

STEPS = 8  # batches per repeat: augmentation is random, so its cost is a mean
EPOCHS = 1000  # more than are measured, so that no validation falls due
RECIPES = (None, "small_gpu", "large_gpu")
ANY_KERNEL = "the network alone, cuDNN's kernels deterministic or not"
DEFAULT = [32, 64, 128, 256, 320, 320]


def measure_training(
    device: str = "cpu",
    repeats: int = 3,
    filters: list[int] | None = None,
    patch: int | None = None,
    nnunet_python: str | None = None,
    size: int = 192,
) -> BenchmarkResult:
    """Time a step on two patches of four channels; phantoms have `size` voxels per side, 192 mm in all."""
    filters = filters or ([16, 32, 64, 128] if device == "cpu" else DEFAULT)
    patch = patch or (64 if device == "cpu" else 128)
    with tempfile.TemporaryDirectory() as folder:
        config = _config(Path(folder), size, {"device": device, "filters": filters, "patch_size": [patch] * 3})
        step, batch = _step(config, device)
        ours, crop = _ours(config, device)
        calls = {
            "the network alone": partial(step, *batch),
            f"our loader, {STEPS} batches": crop,
            f"our loader and augmentation, {STEPS} batches": ours,
            "MONAI's usual order: augment the volume, then crop": _usual(config),
        }
        for call in calls.values():
            call()  # warm-up
        epoch, steps = _epoch_of_trainer(config, device)
        calls[f"an epoch of the trainer, {steps} steps"] = epoch
        epoch()  # leaves cuDNN deterministic, as in a training
        if device != "cpu":
            calls[ANY_KERNEL] = partial(_with_any_kernel, calls["the network alone"])
        found = time_in_turn(calls, repeats, device)
        used = measure_gpu_use(epoch, device)
        any_kernel = found.pop(ANY_KERNEL, [])
        network, loader, both, usual, trained = found.values()
        theirs = _nnunet(config, nnunet_python, filters, patch, repeats) if nnunet_python else {}
    loader, both = ([value / STEPS for value in values] for values in (loader, both))
    rows = [
        Timing("the network alone", network),
        Timing("a step of the trainer, with all that a training does", [seconds / steps for seconds in trained]),
        Timing("   of which the loader", loader),
        Timing("   of which loader and augmentation", both),
        Timing("MONAI's usual step: augment the volume, then crop", _sum(network, usual)),
        Timing("   of which data", usual),
    ]
    if theirs:
        rows += [
            Timing("nnU-Net's network alone", theirs["network"]),
            Timing("nnU-Net's step, its data made in the same process", _sum(theirs["network"], theirs["data"])),
            Timing("   of which data", theirs["data"]),
        ]
    rows += [Timing(ANY_KERNEL, any_kernel)] if any_kernel else []
    add_ratios(rows)
    rows += used
    rows += [
        Timing(
            f"peak memory of the tensors of a step, recipe {recipe or 'default'}",
            [memory.count_step_memory([f"configs/recipes/{recipe}.yaml"] if recipe else [])],
            "GiB",
        )
        for recipe in RECIPES
    ]
    half = config["amp_dtype"] if config.get_parsed_content("amp") else "float32"
    return BenchmarkResult(
        "train",
        f"two patches of {patch} voxels per side, four channels, features {filters}, one process",
        rows,
        {"patch": patch, "filters": filters, "batch": 2, "precision": str(half), "steps": STEPS, "device": device},
        ["GiB: counted, not measured; patches of 128 voxels per side in half precision, without CUDA's own memory."],
    )


def _with_any_kernel(call: Callable[[], None]) -> None:
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = False
    try:
        call()
    finally:
        torch.backends.cudnn.deterministic = before


def _sum(network: list[float], data: list[float]) -> list[float]:
    return [one + other for one, other in zip(network, data, strict=True)]


def _config(folder: Path, size: int, settings: dict[str, Any]) -> ConfigParser:
    write_patients(folder / "patients", cases=2, size=size, spacing=192 / size)
    write_datalist(folder / "patients", folder / "list.json")
    config = ConfigParser()
    config.read_config("configs/train.yaml")
    places = {"datalist": str(folder / "list.json"), "dataset_dir": str(folder / "patients"), "run_dir": str(folder)}
    config.update({**places, **settings})
    config.parse()
    config.get_parsed_content("train#dataset").cases.prepare()
    return config


def _step(config: ConfigParser, device: str) -> tuple[Callable, tuple[torch.Tensor, torch.Tensor]]:
    network, optimizer, loss = (config.get_parsed_content(name) for name in ("network", "optimizer", "loss"))
    infer, prepare_batch = (config.get_parsed_content(f"train#{name}") for name in ("inferer", "trainer#prepare_batch"))

    def step(image: torch.Tensor, label: torch.Tensor) -> None:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        loss(infer(image, network), label).backward()
        optimizer.step()

    return step, prepare_batch(next(iter(config.get_parsed_content("train#dataloader"))), device)


def _epoch_of_trainer(config: ConfigParser, device: str) -> tuple[Callable[[], None], int]:
    """The workflow's own trainer for one more epoch at each call, and the steps of an epoch.

    Clipping, averaging, logs and the checkpoint are part of it; a validation is not.
    """
    steps = STEPS if device == "cpu" else config["steps_per_epoch"]
    config.update({"steps_per_epoch": steps, "max_epochs": EPOCHS, "val_interval": EPOCHS})
    config.parse()
    trainer = config.get_parsed_content("train#trainer")
    trainer.state.max_epochs = 0

    def epoch() -> None:
        trainer.state.max_epochs += 1
        trainer.run()

    return epoch, steps


def _ours(config: ConfigParser, device: str) -> tuple[Callable, Callable]:
    prepare_batch, dataset = (config.get_parsed_content(f"train#{n}") for n in ("trainer#prepare_batch", "dataset"))
    batches = _endless(DataLoader(dataset, sampler=config.get_parsed_content("train#sampler"), batch_size=2))

    def crop() -> list[dict]:
        return [next(batches) for _ in range(STEPS)]

    def augmented() -> None:
        for batch in crop():
            prepare_batch(batch, device)

    return augmented, crop


def _usual(config: ConfigParser) -> Callable:
    """As in tutorials: whole prepared volumes are augmented, with metadata, and a patch is cut last."""
    settings = [dict(setting) for setting in config["train"]["augmentation"]["transforms"]]
    size = config.get_parsed_content("patch_size")
    random = []
    for setting in settings:
        name = setting.pop("_target_").rpartition(".")[2]
        values = {
            k: config.get_parsed_content(f"train#augmentation#transforms#{len(random)}#{k}")
            for k in setting
            if k != "_disabled_"
        }
        random.append(getattr(transforms, name)(**values))
    crop = transforms.RandCropByPosNegLabeld(["image", "label"], "label", size, image_key="image")
    steps = [config.get_parsed_content("validate#preprocessing"), transforms.SpatialPadd(["image", "label"], size)]
    data = datalist.select_cases(config.get_parsed_content("data"), config["dataset_dir"], "training", 0)
    dataset = CacheDataset(data, transforms.Compose([*steps, *random, crop]), progress=False)

    def batch() -> None:
        list_data_collate([dataset[0], dataset[0]])

    return batch


def _endless(loader: DataLoader) -> Iterator[dict]:
    while True:
        yield from loader


def _nnunet(config: ConfigParser, python: str, filters: list[int], patch: int, repeats: int) -> dict[str, list[float]]:
    """Its patch, augmentation and network on the same case."""
    case = config.get_parsed_content("train#dataset").cases[0]
    arrays = {"image": case["image"].numpy(), "label": case["label"].sum(0).numpy().astype(np.int16)}
    half, device = config.get_parsed_content("amp"), config.get_parsed_content("device")
    return peer.time_nnunet(python, "train", arrays, filters, patch, repeats, half, device)
