"""The stages of a network and how features flow between them, found by running shapes through its modules."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from scripts.network.outputs import read_output
from scripts.network.shapes import shapes_only

INPUT = -1
SPATIAL = ("Conv", "Pool", "Upsample", "InstanceNorm", "BatchNorm", "GroupNorm")  # modules whose output is an image


@dataclass
class Stage:
    """Modules that follow each other on one grid.

    Attributes:
        size: of the grid, in voxels.
        channels: of its last output that is no head and, unless all are, no map of one channel, such as a gate.
        parameters: of all its modules.
        heads: outputs of the network that it computes.
        last: the module of this output; None where there is none.
    """

    size: tuple[int, ...]
    channels: int = 0
    parameters: int = 0
    heads: int = 0
    last: nn.Module | None = None


@dataclass
class NetworkGraph:
    """Stages in the order of computation, and the pairs between which features flow; `INPUT` is the image."""

    name: str
    channels: int
    size: tuple[int, ...]
    stages: list[Stage]
    edges: set[tuple[int, int]]
    parameters: int

    def level(self, stage: Stage) -> int:
        """0 for the finest grid, one more for each coarser one."""
        sizes = sorted({one.size for one in self.stages}, key=lambda size: (-len(size), size), reverse=True)
        return sizes.index(stage.size)

    def skips(self) -> set[tuple[int, int]]:
        """The edges to a later stage than the next one."""
        return {(start, end) for start, end in self.edges if start != INPUT and end > start + 1}

    def parameters_by_level(self) -> dict[tuple[int, ...], int]:
        """The parameters of the stages on each grid, finest first."""
        sizes = dict.fromkeys(stage.size for stage in sorted(self.stages, key=self.level))
        return {size: sum(stage.parameters for stage in self.stages if stage.size == size) for size in sizes}


class _Flow(TorchDispatchMode):
    """Remembers from which calls of modules each tensor was computed; the inside of a module counts as its call."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: dict[int, frozenset[int]] = {}
        self.kept: list[torch.Tensor] = []  # so that no id is used twice
        self.inside = 0

    def mark(self, found: Any, sources: frozenset[int]) -> None:
        for tensor in _tensors(found):
            self.sources[id(tensor)] = sources
            self.kept.append(tensor)

    def sources_of(self, found: Any) -> frozenset[int]:
        return frozenset(chain.from_iterable(self.sources.get(id(tensor), ()) for tensor in _tensors(found)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.inside:
            self.mark(result, self.sources_of((args, kwargs or {})))
        return result


def read_graph(network: nn.Module, channels: int, size: Sequence[int]) -> NetworkGraph:
    """The graph of a network in training, with all its heads.

    A module is a part of the stage that its features come from, if its output has the same grid; a gate, a map of one
    channel that features are multiplied with, does not count there.

    Args:
        network: any whose output `scripts.network.outputs.read_output` reads; it is not changed.
        channels: of the image.
        size: of the image in voxels, which the network accepts.
    """
    flow, stages, edges = _Flow(), [], set()
    place_of: dict[int, int] = {}  # of each call: its stage
    counted: set[int] = set()
    outputs: list[tuple[int, int, int, nn.Module]] = []  # images: call, stage, channels, module
    gates: set[int] = set()  # calls whose output is a map of one channel
    heads: set[int] = set()  # calls that logits are computed from, with no module between
    calls = 0

    def enter(_: nn.Module, inputs: Any) -> None:
        flow.inside += 1

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal calls
        flow.inside -= 1
        first = next(iter(_tensors(output)), None)
        from_calls = flow.sources_of(inputs)
        sources = {INPUT if call == INPUT else place_of[call] for call in from_calls}
        image = type(module).__name__.startswith(SPATIAL) and first is not None and first.dim() > 3
        grid = tuple(first.shape[2:]) if image and first is not None else None
        features = {place_of[call] for call in from_calls - gates - {INPUT}} or sources
        only = next(iter(features)) if len(features) == 1 and INPUT not in sources else INPUT
        if only != INPUT and grid in (None, stages[only].size):
            place = only
        elif not stages or (grid is not None and grid != stages[-1].size):
            stages.append(Stage(grid or tuple(size)))
            place = len(stages) - 1
        else:
            place = len(stages) - 1
        stage = stages[place]
        stage.parameters += sum(p.numel() for p in module.parameters() if id(p) not in counted)
        counted.update(map(id, module.parameters()))
        if image and first is not None:
            outputs.append((calls, place, first.shape[1], module))
        edges.update((source, place) for source in sources if source != place)
        place_of[calls] = place
        if first is not None and first.dim() > 3 and first.shape[1] == 1:
            gates.add(calls)
        flow.mark(output, frozenset({calls}))
        calls += 1

    leaves = [module for module in network.modules() if not any(True for _ in module.children())]
    hooks = [module.register_forward_pre_hook(enter) for module in leaves]
    hooks += [module.register_forward_hook(leave) for module in leaves]
    was_training = network.training
    network.train()
    try:
        with shapes_only(), torch.no_grad(), flow:
            image = torch.empty(2, channels, *size)
            flow.mark(image, frozenset({INPUT}))
            for head in read_output(network(image), len(size)).heads:
                made = flow.sources_of(head) - {INPUT}
                places = {place_of[call] for call in made}
                if own := {place for place in places if stages[place].size == tuple(head.shape[2:])} or places:
                    stages[max(own)].heads += 1
                    heads |= made
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    for _, place, width, module in sorted(outputs, key=lambda one: (one[0] not in heads, one[0] not in gates)):
        stages[place].channels, stages[place].last = width, module  # the last one that is neither, if there is any
    total = sum(p.numel() for p in network.parameters())
    return NetworkGraph(_name(network), channels, tuple(size), stages, edges, total)


def _name(network: nn.Module) -> str:
    """The class of the network, and of the one that it wraps."""
    inner = getattr(network, "network", None)
    own = type(network).__name__.removeprefix("CoarseHeads")  # of `scripts.network.coarse_heads`
    return f"{own} of {_name(inner)}" if isinstance(inner, nn.Module) else own


def _tensors(found: Any) -> Iterator[torch.Tensor]:
    if torch.is_tensor(found):
        yield found
    elif isinstance(found, Mapping):
        yield from chain.from_iterable(map(_tensors, found.values()))
    elif isinstance(found, list | tuple):
        yield from chain.from_iterable(map(_tensors, found))
