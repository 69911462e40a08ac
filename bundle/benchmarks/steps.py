"""Real training steps of a workflow: the time of one, and the most memory that they take."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser

from bundle.benchmarks.memory import process_memory
from scripts.data.intensity_statistics import measure_statistics
from scripts.errors import NO_MEMORY

WARM_UP, STEPS, CASES = 2, 6, 2


class MeasuredStep(NamedTuple):
    """The mean time of an optimiser step, loader and augmentation included, and the peak memory.

    `gib` is, on a GPU, all that is in use there; on a CPU, the memory of the process.
    """

    seconds: float
    gib: float


def measure_steps(files: Sequence[str], settings: Mapping[str, Any]) -> MeasuredStep | None:
    """Train for `STEPS` steps after `WARM_UP`, on `CASES` cases, in a process of its own; None: out of memory.

    Args:
        files: the config files of a training.
        settings: that override them, with the data list.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            return pool.submit(_measure, list(files), dict(settings)).result()
        except BrokenProcessPool:  # killed for memory
            return None


def _measure(files: list[str], settings: dict[str, Any]) -> MeasuredStep | None:
    try:
        return _take_steps(files, settings)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
            return None
        raise


def _take_steps(files: list[str], settings: dict[str, Any]) -> MeasuredStep:
    config = ConfigParser()
    config.read_config(files)
    config.update({**settings, "cache": "memory", "steps_per_epoch": WARM_UP + STEPS, "rank": 0, "world_size": 1})
    config.parse()
    cases = config.get_parsed_content("train#dataset#data")[:CASES]
    config["train"]["dataset"]["data"] = cases
    config.parse()  # again, with these cases
    ask, device = config.get_parsed_content, torch.device(config.get_parsed_content("device"))
    measure_statistics(ask("preprocessing"), cases, lambda _, measure: measure(), show=False)
    ask("train#dataset").cases.prepare()
    network, optimizer, loss, _ = (ask(name) for name in ("network", "optimizer", "loss", "average"))
    prepare, infer, parts = ask("train#trainer#prepare_batch"), ask("train#inferer"), ask("accumulation_steps")
    network.train()
    batches, began = iter(ask("train#trainer#train_data_loader")), 0.0
    for step in range(WARM_UP + STEPS):
        if step == WARM_UP:
            _wait_for(device)
            began = time.perf_counter()
        for _ in range(parts):
            image, label = prepare(next(batches), device)
            loss(infer(image, network), label).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    _wait_for(device)
    seconds = (time.perf_counter() - began) / STEPS
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return MeasuredStep(seconds, (total - free) / 2**30)
    return MeasuredStep(seconds, process_memory("VmHWM") / 1024)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
