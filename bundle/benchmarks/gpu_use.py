"""How much of the time a GPU works, and its memory."""

import time
from collections.abc import Callable, Iterable

import torch
from torch.profiler import ProfilerActivity, profile

from bundle.benchmarks.timing import Timing


def measure_gpu_use(call: Callable[[], object], device: str) -> list[Timing]:
    """The share of a call's time in which the GPU is busy, and its peak memory; nothing on a CPU."""
    if device == "cpu":
        return []
    watch = GpuWatch(device)
    watch.start()
    call()
    watch.stop()
    return watch.as_rows()


class GpuWatch:
    """Watches a GPU from `start` to `stop`, which both wait for it: when it is busy, and its peak memory.

    Its kernels are counted one by one: watch seconds, not minutes.
    """

    def __init__(self, device: str) -> None:
        self.device, self.began, self.wall = device, 0.0, 0.0
        self.memory: dict[str, float] = {}  # GiB
        self.profile = profile(activities=[ProfilerActivity.CUDA])

    def start(self) -> None:
        """Start to watch."""
        torch.cuda.synchronize(self.device)  # or kernels that are queued already would count
        self.profile.start()
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.began = time.perf_counter()

    def stop(self) -> None:
        """Stop watching."""
        torch.cuda.synchronize(self.device)
        self.wall = time.perf_counter() - self.began
        most = {"allocated": torch.cuda.max_memory_allocated, "reserved": torch.cuda.max_memory_reserved}
        self.memory = {kind: count(self.device) / 2**30 for kind, count in most.items()}
        self.profile.stop()

    def as_rows(self) -> list[Timing]:
        """The share of the time in which the GPU was busy, and its peak memory."""
        on_gpu = (e.time_range for e in self.profile.events() if e.device_type == torch.autograd.DeviceType.CUDA)
        busy = covered_length((span.start, span.end) for span in on_gpu) / 1e6
        return [
            Timing("   share of the time in which the GPU is busy", [100 * busy / self.wall], "%"),
            *(Timing(f"   peak GPU memory, {kind}", [gib], "GiB") for kind, gib in self.memory.items()),
        ]


def covered_length(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of spans (start, end): kernels of two streams run at the same time."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
