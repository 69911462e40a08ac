"""What each variant of a study costs: a training step next to the baseline's in the same run, weights, memory."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.utils import CommonKeys

from bundle.benchmarks.memory import count_step_memory
from bundle.benchmarks.timing import BenchmarkResult, Timing, time_in_turn
from scripts.network.outputs import read_logits
from scripts.network.shapes import first_line
from scripts.progress import progress_bar
from scripts.training.click_simulation import ClickSimulation

CASES = 2  # training cases that patches are cut from


class TimedVariant(NamedTuple):
    """A way of training: the config files after configs/train.yaml, and settings."""

    name: str
    files: Sequence[str]
    settings: dict[str, Any]


def measure_variants(
    variants: Sequence[TimedVariant], datalist: Path, dataset_dir: Path, device: str = "cpu", repeats: int = 5
) -> BenchmarkResult:
    """Time copying, augmentation, network, loss and optimiser of one batch, each variant in turn with the first.

    Args:
        variants: the baseline first.
        datalist: of the study; two of its training cases are read.
        dataset_dir: where its paths start.
        device: to compute on.
        repeats: steps of each, after one that does not count.
    """
    rows: list[Timing] = []
    notes = ["The ratio is the median of the ratios to the baseline's step in the same turn."]
    notes.append("GiB: counted, not measured; in half precision.")
    with tempfile.TemporaryDirectory() as folder:
        places = {"datalist": str(datalist), "dataset_dir": str(dataset_dir), "run_dir": f"{folder}/run", "rank": 0}
        base: Callable[[], None] | None = None
        for variant in progress_bar(variants, desc="variants"):
            try:
                step, weights = build_step(variant.files, {**variant.settings, **places, "device": device})
                step()
            except Exception as error:  # of any part; its training fails too, and the others are measured
                if base is None:
                    raise
                notes.append(f"{variant.name} cannot be measured: {first_line(error)}")
                continue
            found = time_in_turn({"base": base or step, "own": step}, repeats, device)
            ratios = np.divide(found["own"], found["base"]) if base else [1.0]
            base = base or step
            rows.append(Timing(variant.name, found["own"], "s", float(np.median(ratios))))
            rows.append(Timing(f"{variant.name}: weights", [weights / 1e6], "M"))
            with suppress(Exception):  # of a loss that looks at voxels or cases, which do not exist here
                memory = count_step_memory(variant.files, **variant.settings)
                rows.append(Timing(f"{variant.name}: tensors of a step", [memory], "GiB"))
    return BenchmarkResult("variants", f"one training step of each variant, {repeats} times", rows, {}, notes)


def build_step(files: Sequence[str], settings: dict[str, Any]) -> tuple[Callable[[], None], int]:
    """A training step on one batch of a few cases, and the number of weights."""
    config = ConfigParser()
    config.read_config(["configs/train.yaml", *files])
    config.update(settings)
    config.parse()
    config["train"]["dataset"]["data"] = config.get_parsed_content("train#dataset#data")[:CASES]
    config.parse()  # again, with these cases
    torch.manual_seed(0)
    network, optimizer, loss = (config.get_parsed_content(name) for name in ("network", "optimizer", "loss"))
    infer, prepare = (config.get_parsed_content(f"train#{name}") for name in ("inferer", "trainer#prepare_batch"))
    batch, axes = next(iter(config.get_parsed_content("train#dataloader"))), len(config.get("patch_size"))
    network.train()

    def step() -> None:
        image, label = prepare(dict(batch), config.get_parsed_content("device"))
        if isinstance(infer, ClickSimulation):  # which reads the step of a trainer
            step_output = {CommonKeys.IMAGE: image, CommonKeys.LABEL: label}
            infer.attach(SimpleNamespace(state=SimpleNamespace(output=step_output, batch=batch)))
        output = infer(image, network)
        assert read_logits(output, axes).shape[2:] == image.shape[2:]
        loss(output, label).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, sum(weight.numel() for weight in network.parameters())
