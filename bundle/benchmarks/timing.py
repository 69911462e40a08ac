"""Timing, tables and files of a benchmark: medians over interleaved repeats, ratios within one run."""

import datetime
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import monai
import torch

from scripts.files import write_json
from scripts.progress import progress_bar
from scripts.workflow import check_device, default_device


@dataclass
class Timing:
    """One measurement; `ratio` is its median over that of the first row with the same unit."""

    name: str
    values: list[float]
    unit: str = "s"
    ratio: float | None = None

    @property
    def median(self) -> float:
        """Over the repeats."""
        return median(self.values)


@dataclass
class BenchmarkResult:
    """The results of a subject: title, rows, settings and notes."""

    subject: str
    title: str
    rows: list[Timing]
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def choose_device(device: str | None) -> str:
    """The given device, if it exists; by default the GPU, or else the CPU."""
    device = device or default_device()
    check_device(device)
    return device


def time_call(call: Callable[[], Any], device: str = "cpu") -> float:
    """Seconds of a call: CPU time of all threads on a CPU, wall time until completion on a GPU."""
    if device == "cpu":
        began = time.process_time()
        call()
        return time.process_time() - began
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    torch.cuda.synchronize(device)
    return time.perf_counter() - began


def time_in_turn(calls: Mapping[str, Callable[[], Any]], repeats: int, device: str = "cpu") -> dict[str, list[float]]:
    """Seconds of each call, `repeats` times, interleaved so that other load slows all of them."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for name in progress_bar([*calls] * repeats, desc="measuring"):
        found[name].append(time_call(calls[name], device))
    return found


def add_ratios(rows: list[Timing]) -> list[Timing]:
    """Set the ratio of each row to the first one; return the rows."""
    for row in rows:
        row.ratio = row.median / rows[0].median if row.unit == rows[0].unit and rows[0].median else None
    return rows


def describe_machine(device: str) -> dict[str, Any]:
    """The machine: processor, cores, GPU, threads and versions."""
    name = "unknown processor"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or name
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "busy": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name(device) if device != "cpu" else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "monai": monai.__version__,
    }


def print_result(result: BenchmarkResult) -> None:
    """Print a subject's table: median, ratio, name, and range."""
    print(f"\n{result.title}\n{'median':>10}{'ratio':>9}")
    for row in result.rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        spread = f"  ({min(row.values):.3g} to {max(row.values):.3g})" if len(row.values) > 1 else ""
        print(f"{row.median:10.3g} {row.unit:<4}{ratio:>4}  {row.name}{spread}")
    for note in result.notes:
        print(note)


def write_results(out: str, results: list[BenchmarkResult], device: str) -> None:
    """Write the numbers as JSON, whole or not at all."""
    subjects = [asdict(result) for result in results]
    for subject, result in zip(subjects, results, strict=True):
        for made, row in zip(subject["rows"], result.rows, strict=True):
            made["median"] = row.median
    content = {"time": datetime.datetime.now().isoformat(timespec="seconds"), "machine": describe_machine(device)}
    write_json(out, {**content, "subjects": subjects})
    print(f"written: {out}")
