"""Memory of a cohort and time per patch, for several numbers of cases, each measured in a separate process."""

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from monai.bundle import ConfigParser

from bundle.benchmarks.memory import process_memory
from bundle.benchmarks.patients import write_datalist, write_patients
from bundle.benchmarks.timing import BenchmarkResult, Timing
from scripts.data.patch_dataset import PreparedCases
from scripts.errors import InputError
from scripts.files import atomic_write

DRAWN = 8  # phantoms; larger cohorts are copies under other names, each prepared and cached separately
SIZE, SPACING, PATCH = 64, 3.0, 32  # voxels, mm, voxels
PATCHES = 250  # in an epoch
PEAK = "private memory"  # not shared, and not reclaimable by the system


def measure_loading(
    cases: str | Sequence[int] = "8,64,512",
    repeats: int = 3,
    picture: str | None = None,
    patch: int | None = None,
    scale: float = 1.0,
) -> BenchmarkResult:
    """Measure preparation, memory, and time of an epoch of 250 patches, for each number of cases and both caches."""
    numbers, patch = _numbers(cases), patch or PATCH
    rows, curves = [], {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_patients(folder / "drawn", cases=DRAWN, size=round(SIZE * scale), spacing=SPACING / scale)
        write_datalist(folder / "drawn", folder / "list.json")
        for number in numbers:
            for cache in ("memory", "disk"):
                # an executor, since a Pool waits forever for a process that died
                with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                    one = pool.submit(_one, str(folder), number, cache, repeats, patch).result()
                curves[number, cache] = one
                rows += [
                    Timing(f"{number} cases in {cache}: {PEAK}", [one["memory"]], "MB"),
                    Timing(f"{number} cases in {cache}: an epoch of {PATCHES} patches", one["epochs"]),
                    Timing(f"{number} cases in {cache}: prepared", [one["prepared"]]),
                ]
                for name, clock in one["clock"].items():
                    rows.append(Timing(f"{number} cases in {cache}: an epoch, {name}, wall time", clock))
            shutil.rmtree(folder / "cache", ignore_errors=True)
    if picture:
        _draw(curves, Path(picture))
    shape = " x ".join(map(str, curves[numbers[0], "disk"]["shape"]))
    settings = {"cases": numbers, "scale": scale, "patch": patch, "patches": PATCHES}
    notes = [f"{PEAK.capitalize()}: beyond that before loading; mapped files are reclaimable."]
    return BenchmarkResult("load", f"phantoms of {shape} voxels, patches of {patch} per side", rows, settings, notes)


def _numbers(cases: str | int | Sequence[int]) -> list[int]:
    listed = cases.split(",") if isinstance(cases, str) else [cases] if isinstance(cases, int) else list(cases)
    if not listed or not all(str(number).strip().isdigit() and int(number) > 0 for number in listed):
        raise InputError(f"cases is {cases}: expected whole numbers above 0, such as 8,64,512.")
    return [int(number) for number in listed]


def _one(folder: str, number: int, cache: str, repeats: int, patch: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    config = ConfigParser()
    config.read_config(["configs/train.yaml", "configs/tasks/phantom.yaml"])
    config.update({"datalist": f"{folder}/list.json", "dataset_dir": f"{folder}/drawn", "run_dir": folder})
    config.update({"device": "cpu", "patch_size": [patch] * 3, "cache": cache, "cache_dir": f"{folder}/cache"})
    config.update({"steps_per_epoch": PATCHES, "batch_size": 1})
    config.parse()
    own = config.get_parsed_content("train#dataset").data
    copies = [{**own[k % len(own)], "case": f"{own[k % len(own)]['case']}_{k}"} for k in range(number)]
    config["train"]["dataset"]["data"] = copies
    config.parse()
    dataset, sampler = (config.get_parsed_content(f"train#{name}") for name in ("dataset", "sampler"))
    original = PreparedCases.cache_name  # copies share the files of a case; by name they are separate on disk
    PreparedCases.cache_name = lambda self, entry: f"{original(self, entry)}-{entry['case']}"
    before, began = process_memory("RssAnon"), time.perf_counter()
    dataset.cases.prepare()
    prepared = time.perf_counter() - began
    epochs, memory = [], 0.0
    for epoch in range(repeats):
        sampler.set_epoch(epoch)
        began = time.process_time()
        for index in sampler:
            dataset[index]
        epochs.append(time.process_time() - began)
        memory = max(memory, process_memory("RssAnon") - before)
    clock: dict[str, list[float]] = {}
    if cache == "disk" and hasattr(os, "posix_fadvise"):  # as for a cohort larger than memory
        for epoch in range(2 * repeats):
            name, spent = ("from the page cache", "from disk")[epoch % 2], 0.0
            for case, seed in sampler:
                if epoch % 2:
                    _drop_from_page_cache(dataset.cases.held[case]["folder"])
                began = time.perf_counter()
                dataset[case, seed]
                spent += time.perf_counter() - began
            clock.setdefault(name, []).append(spent)
    shape = tuple(dataset.cases.stored_case(0)["image"].shape[1:])
    return {"memory": memory, "epochs": epochs, "clock": clock, "prepared": prepared, "shape": shape}


def _drop_from_page_cache(folder: Path) -> None:
    """Drop the files of a folder from the page cache."""
    for file in folder.iterdir():
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _draw(curves: dict[tuple[int, str], dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    memory, patch = figure.subplots(1, 2)
    for cache, colour in (("memory", "#b2182b"), ("disk", "#2166ac")):
        numbers = sorted(number for number, kind in curves if kind == cache)
        memory.plot(numbers, [curves[n, cache]["memory"] for n in numbers], "o-", color=colour, label=cache)
        times = [1000 * median(curves[n, cache]["epochs"]) / PATCHES for n in numbers]
        patch.plot(numbers, times, "o-", color=colour, label=cache)
    for axes, title in ((memory, "memory of the process [MB]"), (patch, "time to cut a patch [CPU ms]")):
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xscale("log", base=2)
        axes.set_xticks(numbers, map(str, numbers))
        axes.set_xlabel("cases")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(title="cache", frameon=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    print(f"picture: {os.fspath(path)}")
