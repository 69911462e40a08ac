"""Memory of a process, and of the tensors of a training step on a GPU, counted without computing."""

import copy
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch._subclasses import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from scripts.network import precision


def count_step_memory(files: Sequence[str] = (), **settings: Any) -> float:
    """`count_config_memory` of train.yaml with further config files, such as recipes, and settings."""
    config = ConfigParser()
    config.read_config(["configs/train.yaml", *files])
    config.update(settings)
    return count_config_memory(config)


def count_config_memory(config: ConfigParser) -> float:
    """GiB of all tensors of two optimiser steps in half precision: weights, their average, gradients, AdamW's moments,
    activations, losses. Without the memory of CUDA and its kernels, and fragmentation.

    Args:
        config: train.yaml with all that overrides it; is not changed.
    """
    config = ConfigParser(copy.deepcopy({key: value for key, value in config.get().items() if key != "_meta_"}))
    config.update({"device": "cpu"})  # needs no driver
    config.parse()
    patch, channels, outputs, batch_size, recompute = (
        config.get_parsed_content(name)
        for name in ("patch_size", "network_channels", "outputs", "batch_size", "recompute")
    )
    with FakeTensorMode():
        network = precision.prepare_network(config.get_parsed_content("network_def"), recompute=recompute)
        average = [torch.empty_like(weight) for weight in network.parameters()]
        config.update({"network": network})
        config.parse()
        optimizer, loss = torch.optim.AdamW(network.parameters()), config.get_parsed_content("loss")
        tracker = MemTracker()
        tracker.track_external(network, optimizer, *average)
        with tracker:
            for _ in range(2):  # the first step makes the moments
                image, label = (torch.empty(batch_size, len(several), *patch) for several in (channels, outputs))
                with torch.autocast("cpu", torch.bfloat16):
                    heads = network(image)
                loss(heads, label).backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                tracker.reset_mod_stats()
    return max(tracker.get_tracker_snapshot("peak")[torch.device("cpu")].values()) / 2**30


def process_memory(field: str) -> float:
    """Memory of this process in MB, as Linux reports it; elsewhere its peak memory.

    Args:
        field: of /proc/self/status: `RssAnon` is what is its own now, `VmHWM` the largest so far, without its parent's.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
