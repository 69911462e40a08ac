"""Time of a training step, of the network alone, of MONAI's usual order, and of nnU-Net."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai import transforms
from monai.bundle import ConfigParser
from monai.data import CacheDataset, list_data_collate
from monai.engines import SupervisedTrainer

from bundle.benchmarks import memory
from bundle.benchmarks.gpu_use import GpuWatch
from bundle.benchmarks.nnunet import peer
from bundle.benchmarks.patients import write_datalist, write_patients
from bundle.benchmarks.timing import BenchmarkResult, Timing, add_ratios, time_in_turn
from scripts.data import datalist

STEPS, GPU_STEPS = 8, 60  # of an epoch, on a CPU and on a GPU: augmentation is random, so its cost is a mean
GPU_STEPS_ALONE = 10  # of the network alone in one measurement; one on a CPU
WATCHED = 20  # steps of the trainer in which the use of the GPU is measured, after as many: more take minutes to count
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
    """Time a step on two patches of four channels; phantoms have `size` voxels per side, 192 mm in all.

    On a GPU loader and trainer use the workflow's loader processes; the trainer's epoch has `GPU_STEPS` steps.
    """
    steps, alone = (STEPS, 1) if device == "cpu" else (GPU_STEPS, GPU_STEPS_ALONE)
    filters = filters or ([16, 32, 64, 128] if device == "cpu" else DEFAULT)
    patch = patch or (64 if device == "cpu" else 128)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"device": device, "filters": filters, "patch_size": [patch] * 3, "steps_per_epoch": steps}
        config = _config(Path(folder), size, settings)
        ours, crop = _ours(config, device)
        trainer, epoch = _trainer(config)
        calls = {
            f"the network alone, steps: {alone}": _network_alone(config, device, alone),
            f"our loader, {steps} batches": crop,
            f"our loader and augmentation, {steps} batches": ours,
            "MONAI's usual order: augment the volume, then crop": _usual(config),
            f"an epoch of the trainer, {steps} steps": epoch,
        }
        for call in calls.values():
            call()  # warm-up; the trainer's leaves cuDNN deterministic, as in a training
        if device != "cpu":
            calls[ANY_KERNEL] = partial(_with_any_kernel, next(iter(calls.values())))
        found = time_in_turn(calls, repeats, device)
        used = watch_steps(trainer, epoch, GpuWatch(device)) if device != "cpu" else []
        any_kernel = found.pop(ANY_KERNEL, [])
        network, loader, both, usual, trained = found.values()
        theirs = _nnunet(config, nnunet_python, filters, patch, repeats) if nnunet_python else {}
    network, any_kernel = ([value / alone for value in values] for values in (network, any_kernel))
    loader, both, trained = ([value / steps for value in values] for values in (loader, both, trained))
    rows = [
        Timing("the network alone", network),
        Timing("a step of the trainer, with all that a training does", trained),
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
    processes = "one process" if device == "cpu" else f"{config.get_parsed_content('num_workers')} loader processes"
    return BenchmarkResult(
        "train",
        f"two patches of {patch} voxels per side, four channels, features {filters}, {processes}",
        rows,
        {"patch": patch, "filters": filters, "batch": 2, "precision": str(half), "steps": steps, "device": device},
        ["GiB: counted, not measured; patches of 128 voxels per side in half precision, without CUDA's own memory."],
    )


def watch_steps(trainer: Engine, epoch: Callable[[], object], watch: GpuWatch) -> list[Timing]:
    """The use of the GPU in `WATCHED` steps within one more epoch of a trainer."""
    done = trainer.state.iteration
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=done + WATCHED), watch.start)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=done + 2 * WATCHED), watch.stop)
    epoch()
    return watch.as_rows()


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
    config.update({**places, "max_epochs": EPOCHS, "val_interval": EPOCHS, **settings})
    config.parse()
    config.get_parsed_content("train#dataset").cases.prepare()
    return config


def _network_alone(config: ConfigParser, device: str, steps: int) -> Callable[[], None]:
    """This many steps on one batch that is on the device: forward, loss, backward and optimiser."""
    network, optimizer, loss = (config.get_parsed_content(name) for name in ("network", "optimizer", "loss"))
    infer, prepare_batch = (config.get_parsed_content(f"train#{name}") for name in ("inferer", "trainer#prepare_batch"))
    image, label = prepare_batch(next(iter(config.get_parsed_content("train#dataloader"))), device)

    def take_steps() -> None:
        network.train()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss(infer(image, network), label).backward()
            optimizer.step()

    return take_steps


def _trainer(config: ConfigParser) -> tuple[SupervisedTrainer, Callable[[], None]]:
    """The workflow's own trainer, and a call that runs it for one more epoch.

    Clipping, averaging, logs and the checkpoint are part of it; a validation is not.
    """
    trainer = config.get_parsed_content("train#trainer")
    trainer.state.max_epochs = 0

    def epoch() -> None:
        trainer.state.max_epochs += 1
        trainer.run()

    return trainer, epoch


def _ours(config: ConfigParser, device: str) -> tuple[Callable, Callable]:
    """A pass of the workflow's loader that augments each batch, and one that does not; each draws other patches."""
    names = ("trainer#prepare_batch", "dataloader", "sampler")
    prepare_batch, loader, sampler = (config.get_parsed_content(f"train#{name}") for name in names)

    def crop(use: Callable[[dict], Any] = lambda batch: None) -> None:
        sampler.set_epoch(sampler.epoch + 1)
        for batch in loader:
            use(batch)

    return partial(crop, lambda batch: prepare_batch(batch, device)), crop


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


def _nnunet(config: ConfigParser, python: str, filters: list[int], patch: int, repeats: int) -> dict[str, list[float]]:
    """Its patch, augmentation and network on the same case."""
    case = config.get_parsed_content("train#dataset").cases[0]
    arrays = {"image": case["image"].numpy(), "label": case["label"].sum(0).numpy().astype(np.int16)}
    half, device = config.get_parsed_content("amp"), config.get_parsed_content("device")
    torch.cuda.empty_cache()  # it runs in a process of its own, on the same card
    return peer.time_nnunet(python, "train", arrays, filters, patch, repeats, half, device)
