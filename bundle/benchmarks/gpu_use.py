"""How much of the time a GPU works, and its memory."""

from collections.abc import Callable, Iterable

import torch
from torch.profiler import ProfilerActivity, profile

from bundle.benchmarks.timing import Timing, time_call


def measure_gpu_use(call: Callable[[], object], device: str) -> list[Timing]:
    """The share of a call's time in which the GPU is busy, and its peak memory; nothing on a CPU."""
    if device == "cpu":
        return []
    torch.cuda.reset_peak_memory_stats(device)
    with profile(activities=[ProfilerActivity.CUDA]) as watched:
        wall = time_call(call, device)
    on_gpu = (e.time_range for e in watched.events() if e.device_type == torch.autograd.DeviceType.CUDA)
    busy = covered_length((time.start, time.end) for time in on_gpu) / 1e6
    memory = {"allocated": torch.cuda.max_memory_allocated, "reserved": torch.cuda.max_memory_reserved}
    return [
        Timing("   share of the time in which the GPU is busy", [100 * busy / wall], "%"),
        *(Timing(f"   peak GPU memory, {kind}", [most(device) / 2**30], "GiB") for kind, most in memory.items()),
    ]


def covered_length(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of spans (start, end): kernels of two streams run at the same time."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
