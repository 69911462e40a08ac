"""The next case prepared in a thread while the network works on this one."""

import copy
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from monai.utils import TraceKeys
from torch.utils.data import Dataset


class PrefetchedDataset(Dataset):
    """Prepares the next case in a thread of its own while the network works on this one.

    Args:
        dataset: asked in order. It is copied, since a MONAI transform cannot run in one thread and be inverted in
            another; what the copies leave is signed in the name of the originals, which will invert it.
    """

    def __init__(self, dataset: Dataset) -> None:
        copies: dict[int, Any] = {}
        self.dataset = copy.deepcopy(dataset, copies)
        self.originals = {id(made): original for original, made in copies.items()}
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.waiting: dict[int, Future] = {}

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # torch declares data sets without a length

    def __getitem__(self, index: int) -> Any:
        # its thread works on the caller's GPU and on that one's default stream: what it leaves needs no waiting for
        gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
        case = self.waiting.pop(index, None) or self.thread.submit(self._prepare, index, gpu)
        following = [index + 1] if index + 1 < len(self) else []
        self.waiting = {number: self.thread.submit(self._prepare, number, gpu) for number in following}
        return case.result()

    def _prepare(self, index: int, gpu: int | None) -> Any:
        if gpu is not None:
            torch.cuda.set_device(gpu)
        case = self.dataset[index]
        for value in case.values():
            for operation in getattr(value, "applied_operations", ()):
                self._sign(operation)
        return case

    def _sign(self, trace: dict) -> None:
        """A crop's trace holds that of the padding before it, and so on."""
        if TraceKeys.ID in trace:
            trace[TraceKeys.ID] = self.originals.get(trace[TraceKeys.ID], trace[TraceKeys.ID])
        for value in trace.values():
            if isinstance(value, dict):
                self._sign(value)
