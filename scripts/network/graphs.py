"""The network's two passes as CUDA graphs, for training: a call each starts what otherwise takes hundreds.

Where the GPU computes faster than Python starts its kernels, it waits for Python; a recorded graph does not. What is
recorded has fixed places in memory: for the image, the logits, and the gradients of logits and weights.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.parallel import DistributedDataParallel

WARM_UP = 3  # passes before the recording, in which cuDNN chooses its kernels and Triton compiles its own
logger = logging.getLogger(__name__)

Logits = torch.Tensor | list[torch.Tensor]


class RecordedPass:
    """A pass of a network over inputs of one shape, and the way back, replayed from recordings.

    The logits are overwritten by the next call: read them before. One call may wait for its way back at a time.

    Args:
        call: gives the logits of inputs, float32: a tensor, or heads in a list.
        network: whose parameters it uses, in training mode; its state stays as it is.
        inputs: of the shape, kind and layout to record for.
    """

    def __init__(self, call: Callable[[torch.Tensor], Logits], network: nn.Module, inputs: torch.Tensor) -> None:
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.inputs = inputs.detach().clone()
        self.waiting = False
        with _unchanged(network, inputs.device):
            self._record(call)

    def __call__(self, inputs: torch.Tensor) -> Logits:
        """The logits of inputs, as `call` gives them."""
        heads = _Replay.apply(self, inputs, *self.parameters)
        return list(heads) if self.in_list else heads[0]

    def fits(self, inputs: torch.Tensor) -> bool:
        """Whether inputs are such as these were, and none before them waits for its way back."""
        own = self.inputs
        alike = (inputs.shape, inputs.dtype, inputs.device) == (own.shape, own.dtype, own.device)
        return alike and not inputs.requires_grad and not self.waiting

    def _record(self, call: Callable[[torch.Tensor], Logits]) -> None:
        """Make the two graphs and the places that they read and write."""
        device = self.inputs.device
        here, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        pool = torch.cuda.graph_pool_handle()
        aside.wait_stream(here)
        # with this stream, as a recording that fails does not put the current one back
        with torch.cuda.stream(aside):
            for step in range(WARM_UP):
                # a pass that waits for the GPU cannot be recorded, and to try would leave the allocator in disorder
                with _no_waiting(step == WARM_UP - 1):
                    heads = _in_list(call(self.inputs))
                    torch.autograd.grad(heads, self.parameters, [*map(torch.ones_like, heads)], allow_unused=True)
                del heads
            aside.synchronize()
            try:
                self.there, self.back = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.there, pool, aside, "thread_local"):  # others may go on loading
                    logits = call(self.inputs)
                self.in_list, heads = not torch.is_tensor(logits), _in_list(logits)
                self.slopes = [torch.zeros_like(head) for head in heads]
                with torch.cuda.graph(self.back, pool, aside, "thread_local"):
                    self.gradients = torch.autograd.grad(heads, self.parameters, self.slopes, allow_unused=True)
            except BaseException:
                with suppress(AttributeError, RuntimeError):  # or it would be recording for ever
                    torch._C._cuda_endAllocateToPool(device.index, pool)
                raise
        here.wait_stream(aside)
        self.heads = [head.detach() for head in heads]  # without what autograd remembers

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Replay the way there; the heads."""
        self.waiting = True
        self.inputs.copy_(inputs)
        self.there.replay()
        return tuple(head.detach() for head in self.heads)

    def backward(self, slopes: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
        """Replay the way back; the gradients of the parameters, from those of the heads."""
        self.waiting = False
        # autograd takes these gradients over as they are; where they are to be added to, they move out of the way
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            if parameter.grad is not None and gradient is not None and _same_place(parameter.grad, gradient):
                parameter.grad = parameter.grad.clone()
        torch._foreach_copy_(self.slopes, list(slopes))
        self.back.replay()
        return [None if gradient is None else gradient.detach() for gradient in self.gradients]


class _Replay(torch.autograd.Function):
    """What autograd sees of a `RecordedPass`: one step from inputs and parameters to the heads."""

    @staticmethod
    def forward(
        ctx: Any, recorded: RecordedPass, inputs: torch.Tensor, *parameters: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        ctx.recorded = recorded
        return recorded.forward(inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return None, None, *ctx.recorded.backward(slopes)


class Recordings:
    """Replays a network's training steps once they are recorded, which the first one that can be leads to.

    Only inputs of that first shape are replayed. A network that cannot be recorded is told of once.
    """

    def __init__(self) -> None:
        self.recorded: RecordedPass | None = None
        self.network: nn.Module | None = None  # tried

    def of(
        self, network: nn.Module, call: Callable[[torch.Tensor], Logits], inputs: torch.Tensor
    ) -> RecordedPass | None:
        """The recording that does for these inputs what `call` does, or None."""
        if not (inputs.is_cuda and torch.is_grad_enabled() and getattr(network, "training", False)):
            return None
        if self.network is not network:
            self.network = network
            self.recorded = _try_to_record(network, call, inputs) if recordable(network) else None
        return self.recorded if self.recorded is not None and self.recorded.fits(inputs) else None


def recordable(network: nn.Module) -> bool:
    """Whether a network is nothing but its modules.

    Not wrapped for several GPUs or by torch.compile, without hooks, and with no module's forward replaced, as by
    recomputing: what these do would be recorded, or left out.
    """
    return not isinstance(network, DistributedDataParallel) and not any(
        hasattr(module, "_orig_mod")  # compiled
        or module._compiled_call_impl is not None
        or "forward" in vars(module)
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        for module in network.modules()
    )


def _try_to_record(
    network: nn.Module, call: Callable[[torch.Tensor], Logits], inputs: torch.Tensor
) -> RecordedPass | None:
    try:
        return RecordedPass(call, network, inputs)
    except RuntimeError as error:  # of memory, too
        reason = str(error).strip().splitlines()
        logger.warning("training goes on without CUDA graphs: %s", reason[0] if reason else type(error).__name__)
        return None


@contextmanager
def _unchanged(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Put back what passes of a network change: its buffers, such as running means, and the random state."""
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for buffer, values in before:
                buffer.copy_(values)


@contextmanager
def _no_waiting(forbidden: bool) -> Iterator[None]:
    """Whatever waits for the GPU is an error, where forbidden."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error" if forbidden else before)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _in_list(logits: Logits) -> list[torch.Tensor]:
    return [logits] if torch.is_tensor(logits) else list(logits)


def _same_place(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
