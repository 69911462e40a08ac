"""Preparation of the next case in a thread while the network processes the current one, and refused cases."""

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from monai.utils import TraceKeys

from scripts.data.scan_checks import list_checks
from scripts.errors import input_error_message


class PrefetchedDataset(torch.utils.data.Dataset):
    """Prepares the next case in its own thread while the network processes the current one.

    A case whose files are wrong, or whose entry has `refused`, is returned as `{"case": name, "refused": reason}`.

    Args:
        dataset: read in order. It is copied, since a MONAI transform cannot run in one thread and be inverted in
            another; the traces of the copies get the ids of the original transforms, which will invert them.
    """

    def __init__(self, dataset: Dataset) -> None:
        copies: dict[int, Any] = {}
        self.dataset = copy.deepcopy(dataset, copies)
        self.originals = {id(made): original for original, made in copies.items()}
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.waiting: dict[int, Future] = {}
        self.refused: dict[str, str] = {}  # case to reason
        self.on_refused: Callable[[dict[str, Any]], None] | None = None  # gets case, image, reason and checks

    def replace_cases(self, cases: list[dict[str, Any]]) -> None:
        """Take these cases in place of the former ones."""
        self.dataset.data, self.waiting, self.refused = cases, {}, {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        # the thread uses the caller's GPU and its default stream, so the caller need not wait for the results
        gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
        case = self.waiting.pop(index, None) or self.thread.submit(self._prepare, index, gpu)
        following = [index + 1] if index + 1 < len(self) else []
        self.waiting = {number: self.thread.submit(self._prepare, number, gpu) for number in following}
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
        entry = self.dataset.data[index]
        if "refused" in entry:
            return _refusal(entry, entry["refused"])
        try:
            case = self.dataset[index]
        except Exception as error:
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


def _refusal(entry: Mapping[str, Any], reason: str, error: BaseException | None = None) -> dict[str, Any]:
    checks = [check.as_mapping() for check in list_checks(error, reason)]
    return {"case": entry["case"], "image": entry.get("image"), "refused": reason, "checks": checks}


class CaseEvaluator(SupervisedEvaluator):
    """MONAI's evaluator, which skips the refused cases of a `PrefetchedDataset`: their output is empty."""

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> dict[str, Any]:
        return {} if "refused" in batchdata else super()._iteration(engine, batchdata)
