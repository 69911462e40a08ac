"""Patch and batch of a training within a memory, asked of the network itself: counted on shapes, or measured."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from monai.bundle import ConfigParser

from bundle.benchmarks.memory import count_config_memory
from bundle.benchmarks.steps import MeasuredStep
from bundle.studies.nnunet_rules import LEAST_BATCH, Configuration, count_outputs
from bundle.studies.topology import Topology, shrinking_patches
from scripts.errors import InputError
from scripts.network import shapes

# a step of the default recipe on an H200: 5.1 GiB of tensors counted, 7.5 reserved by torch, 8.2 in use
RESERVED = 1.5  # by torch, in relation to the tensors
CUDA = 0.7  # GiB of CUDA and its kernels
COHORT_SHARE = 0.05  # of the cohort's voxels that a batch may hold
NEAR = 1.1  # times the room for tensors: a guess up to which the network is asked
TRIES = 5  # measurements
LEAST_LEVELS = 3  # of DynUNet


class StepMemory:
    """Finds patch and batch within a memory.

    Args:
        config: train.yaml with task and recipes.
        gib: the memory.
        order: the axes of the scans in the order of planning.
        fixed: settings that a recipe has set.
        measure: takes steps with settings (`measure_steps`); None: the memory is counted alone.
    """

    def __init__(
        self,
        config: ConfigParser,
        gib: float,
        order: Sequence[int],
        fixed: Iterable[str] = (),
        measure: Callable[[Mapping[str, Any]], MeasuredStep | None] | None = None,
    ) -> None:
        self.config, self.gib, self.order, self.measure = config, gib, order, measure
        self.ours = "@kernels" in str(config["network_def"])  # whether the network takes what a topology says
        self.first = config.get_parsed_content("filters")[0]
        self.batch = config.get_parsed_content("batch_size") if "batch_size" in {*fixed} else None
        self.scale = 1.0  # of measured memory to counted one
        self.counted: dict[str, float] = {}
        self.rate: tuple[float, float] | None = None  # GiB without a patch, and per output of a convolution

    def settings_of(self, topology: Topology) -> dict[str, Any]:
        """Patch and network of a topology."""
        settings = topology.settings(self.order, self.first)
        return settings if self.ours else {"patch_size": settings["patch_size"]}

    def plan(self, spacing: Sequence[float], shape: Sequence[int], cohort: float, exact: bool = False) -> Configuration:
        """The largest patch that fits with the least batch, and the batch that fills the memory.

        Args:
            spacing: mm by axis, in the order of planning; of slices, in their plane.
            shape: voxels of a median scan.
            cohort: voxels of all scans together.
            exact: ask the network about each candidate, seconds each, in place of the first one alone.

        Raises:
            InputError: not even the smallest patch fits.
        """
        needed = self.count_tensors if exact else self.guess_tensors
        least, room = self.batch or LEAST_BATCH, (self.gib - CUDA) / (RESERVED * self.scale)
        for topology in self._topologies(spacing, shape):
            if self.guess_tensors(topology, least) <= NEAR * room and needed(topology, least) <= room:
                most = self.batch or max(least, round(cohort * COHORT_SHARE / math.prod(topology.patch)))
                each = max(needed(topology, least + 1) - needed(topology, least), 1e-9) if most > least else 1.0
                batch = min(most, least + int((room - needed(topology, least)) / each))
                while batch > least and needed(topology, batch) > room:
                    batch = max(least, batch - max(1, batch // 16))
                return Configuration(tuple(spacing), tuple(shape), topology, batch, not self.batch and batch == most)
        plain = [size for _, size in sorted(zip(self.order[-len(shape) :], shape, strict=True))]
        raise InputError(
            f"no patch of scans of {' x '.join(map(str, plain))} voxels fits {self.gib:g} GiB: give more --gpu_gb, a"
            " recipe that needs less, such as small_gpu, or larger scans, if they are of fewer than 16 voxels."
        )

    def plan_measured(
        self, plan: Callable[[], Configuration], settings: Mapping[str, Any]
    ) -> tuple[Configuration, MeasuredStep]:
        """Measure what `plan` finds, correct the count by it, and plan again, until the plan stays and fits.

        Args:
            plan: calls `plan`.
            settings: of the grid.

        Raises:
            InputError: nothing that was measured fits.
        """
        assert self.measure is not None
        known: dict[tuple[Topology, int], MeasuredStep | None] = {}
        for _ in range(TRIES):
            chosen = plan()
            if (key := (chosen.topology, chosen.batch)) in known:
                break
            own = {**settings, **self.settings_of(chosen.topology), "batch_size": chosen.batch}
            known[key] = step = self.measure(own)
            tensors = RESERVED * self.count_tensors(*key)
            used = step.gib - CUDA if step else 1.2 * max(self.gib - CUDA, self.scale * tensors)
            self.scale = max(used, 0.01) / tensors
        fitting = [(key, step) for key, step in known.items() if step and step.gib <= self.gib]
        if not fitting:
            raise InputError(
                f"no patch that was measured fits {self.gib:g} GiB: give more --gpu_gb, or a smaller network."
            )
        (topology, batch), step = max(fitting, key=lambda pair: math.prod(pair[0][0].patch) * pair[0][1])
        return chosen._replace(topology=topology, batch=batch), step

    def count_tensors(self, topology: Topology, batch: int) -> float:
        """GiB of the tensors of a step, counted on the network."""
        settings = {**self.settings_of(topology), "batch_size": batch}
        if (key := str(settings)) not in self.counted:
            self.config.update(settings)
            self.counted[key] = count_config_memory(self.config)
        return self.counted[key]

    def guess_tensors(self, topology: Topology, batch: int) -> float:
        """The same by as much for each output of a convolution as in the first topology that was asked for."""
        if self.rate is None:
            one, two = (self.count_tensors(topology, number) for number in (1, 2))
            self.rate = 2 * one - two, (two - one) / count_outputs(topology, 0)
        return self.rate[0] + batch * self.rate[1] * count_outputs(topology, 0)

    def _topologies(self, spacing: Sequence[float], shape: Sequence[int]) -> Iterator[Topology]:
        if self.ours:
            found = shrinking_patches(spacing, shape)
            yield from (topology for topology in found if len(topology.strides) >= LEAST_LEVELS)
            return
        network, channels = (self.config.get_parsed_content(name) for name in ("network_def", "network_channels"))
        divisor = shapes.size_divisor(network, len(channels), self.config.get_parsed_content("patch_size"))
        for topology in shrinking_patches(spacing, shape):
            steps = [divisor[axis] for axis in self.order][-len(shape) :] if divisor else topology.patch
            padded = (-(-length // step) * step for length, step in zip(topology.patch, steps, strict=True))
            yield topology._replace(patch=tuple(padded))
