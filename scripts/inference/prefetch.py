"""Preparation of the next cases in threads while the network processes the current one, and refused cases."""

import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import torch
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from monai.utils import TraceKeys

from scripts import distributed
from scripts.data.scan_checks import list_checks
from scripts.errors import InputError, input_error_message
from scripts.parallel import available_cores

MOST_AHEAD = 4  # cases; a prepared one of four channels at 1 mm takes 60 to 150 MB


def default_cases_ahead(device: str | torch.device, preprocessing_device: str | torch.device = "cpu") -> int:
    """How many cases are prepared at the same time, in a thread each.

    One where they are prepared on the device of the network, whose cores or memory it uses. A GPU is faster than one
    thread on the CPU: up to `MOST_AHEAD`, one core less than the process has.
    """
    cores = available_cores() // distributed.local_world_size()
    same = torch.device(device).type == torch.device(preprocessing_device).type
    return 1 if same else max(1, min(MOST_AHEAD, cores - 1))


class PrefetchedDataset(torch.utils.data.Dataset):
    """Prepares the next cases in threads while the network processes the current one.

    A case whose files are wrong, or whose entry has `refused`, is returned as `{"case": name, "refused": reason}`.

    Args:
        dataset: read in order. Each thread has a copy, since a MONAI transform cannot run in one thread and be inverted
            in another; the traces of the copies get the ids of the original transforms, which will invert them.
        ahead: how many cases are prepared ahead, and in how many threads.
    """

    def __init__(self, dataset: Dataset, ahead: int = 1) -> None:
        if isinstance(ahead, bool) or not isinstance(ahead, int) or ahead < 1:
            raise InputError(f"cases_ahead is {ahead}: give a whole number of cases, 1 or more.")
        self.originals: dict[int, int] = {}
        self.datasets = [self._copy(dataset) for _ in range(ahead)]
        self.free: SimpleQueue[Dataset] = SimpleQueue()
        for own in self.datasets:
            self.free.put(own)
        self.threads = ThreadPoolExecutor(max_workers=ahead)
        self.waiting: dict[int, Future] = {}
        self.refused: dict[str, str] = {}  # case to reason
        self.on_refused: Callable[[dict[str, Any]], None] | None = None  # gets case, image, reason and checks

    def _copy(self, dataset: Dataset) -> Dataset:
        copies: dict[int, Any] = {}
        own = copy.deepcopy(dataset, copies)
        self.originals |= {id(made): original for original, made in copies.items()}
        return own

    @property
    def cases(self) -> Sequence[dict[str, Any]]:
        """The cases that are read."""
        return self.datasets[0].data

    def replace_cases(self, cases: list[dict[str, Any]]) -> None:
        """Take these cases in place of the former ones."""
        for own in self.datasets:
            own.data = cases
        self.waiting, self.refused = {}, {}

    def __len__(self) -> int:
        return len(self.datasets[0])

    def __getitem__(self, index: int) -> Any:
        # the threads use the caller's GPU and its default stream, so the caller need not wait for the results
        gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
        wanted = range(index, min(index + 1 + len(self.datasets), len(self)))
        waiting = self.waiting
        self.waiting = {i: waiting.get(i) or self.threads.submit(self._prepare, i, gpu) for i in wanted}
        case = self.waiting.pop(index)
        prepared = case.result()
        if "refused" in prepared:
            self.refused[prepared["case"]] = prepared["refused"]
            if self.on_refused is not None:
                self.on_refused(prepared)
            return {name: prepared[name] for name in ("case", "refused")}  # checks cannot be made into a batch
        return prepared

    def _prepare(self, index: int, gpu: int | None) -> Any:
        if gpu is not None:
            torch.cuda.set_device(gpu)
        dataset = self.free.get()
        try:
            return self._read(dataset, index)
        finally:
            self.free.put(dataset)

    def _read(self, dataset: Dataset, index: int) -> Any:
        entry = dataset.data[index]
        if "refused" in entry:
            return _refusal(entry, entry["refused"])
        try:
            case = dataset[index]
        except Exception as error:
            if _lacks_gpu_memory(error):
                raise  # the card is too small, the case may be sound
            if (reason := input_error_message(error)) is None:
                raise
            return _refusal(entry, reason, error)
        for value in case.values():
            for operation in getattr(value, "applied_operations", ()):
                self._restore_ids(operation)
        return case

    def _restore_ids(self, trace: dict) -> None:
        """Replace the ids of copies in a trace and in nested ones: a crop's trace contains that of its padding."""
        if TraceKeys.ID in trace:
            trace[TraceKeys.ID] = self.originals.get(trace[TraceKeys.ID], trace[TraceKeys.ID])
        for value in trace.values():
            if isinstance(value, dict):
                self._restore_ids(value)


def _lacks_gpu_memory(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, says that a GPU has no memory left."""
    while error is not None and not isinstance(error, torch.OutOfMemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def _refusal(entry: Mapping[str, Any], reason: str, error: BaseException | None = None) -> dict[str, Any]:
    checks = [check.as_mapping() for check in list_checks(error, reason)]
    return {"case": entry["case"], "image": entry.get("image"), "refused": reason, "checks": checks}


class CaseEvaluator(SupervisedEvaluator):
    """MONAI's evaluator, which skips the refused cases of a `PrefetchedDataset`: their output is empty."""

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> dict[str, Any]:
        return {} if "refused" in batchdata else super()._iteration(engine, batchdata)
