"""Writing of masks and probabilities on the grid and in the format of the image."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils import convert_to_tensor

from scripts import stopping
from scripts.data import pictures, tensor_files
from scripts.data.check_results import list_warnings
from scripts.data.images import write_like
from scripts.inference.mask_records import MaskRecords
from scripts.inference.predicted_dice import describe_prediction


def mask_path(output_dir: str | os.PathLike, case: str, image: str | Sequence[str]) -> Path:
    """The file for the mask of a case: in the format of its image, or of the first of several.

    The mask of a JPEG is a PNG, since JPEG compression would change its values.
    """
    file = pictures.file_of_page(image if isinstance(image, str) else image[0])
    ending = file.suffix.lower() if pictures.is_picture(file) or tensor_files.is_tensor_file(file) else ".nii.gz"
    return Path(output_dir) / f"{case}{'.png' if ending in pictures.LOSSY else ending}"


def stack_path(output_dir: str | os.PathLike, case: str, image: str | Sequence[str]) -> Path | None:
    """The file for the masks of all pages of a TIFF; None if the image is not one page of several."""
    name = image if isinstance(image, str) else image[0]
    page = pictures.file_and_page(name)[1]
    return None if page is None else mask_path(output_dir, case.removesuffix(f"_{page}"), name)


class MaskSaver:
    """Writes the label map of each case, and its probabilities if there are any, on the grid of its image.

    Args:
        output_dir: gets the masks (`mask_path`; uint8, the scheme's own values), and `probabilities/<case>.nii.gz`
            (float32, one map per region along the last axis; NIfTI for pictures too, which cannot hold fractions).
        stacks: combine the masks of all pages of a TIFF into one TIFF.
        records: gets a record of each finished case.
        entries: the cases with their `image`, for the records.
        predict: the Dice predicted from the numbers of a mask, which is printed; None: it is not.

    Attach it to an evaluator whose postprocessed output has `pred` [1, ...] and optionally `probabilities` [R, ...], or
    is empty, for a refused case. One case is measured (`measure_numbers`, a call) and written while the next is
    computed; copies from a GPU start before the next case's kernels. When SIGTERM comes, the current case is written
    and the process ends (`scripts.stopping`).

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        stacks: bool = False,
        records: MaskRecords | None = None,
        entries: Sequence[Mapping[str, Any]] = (),
        predict: Callable[[Mapping[str, Any]], dict[str, dict[str, Any]]] | None = None,
    ) -> None:
        self.output_dir, self.records, self.predict = Path(output_dir), records, predict
        self.images = {entry["case"]: entry["image"] for entry in entries if {"case", "image"} <= {*entry}}
        self.stacks = stacks
        self.on_saved: Callable[[dict[str, Any]], None] | None = None  # gets what the records say of a written case
        self.saved: dict[Path, tuple[str, str]] = {}  # a case and page of each stack
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.beside: torch.cuda.Stream | None = None  # of the writing thread, apart from the next case's network
        self.writing: Future | None = None

    def attach(self, engine: Engine) -> None:
        """Write after each case."""
        engine.add_event_handler(Events.STARTED, stopping.defer_sigterm, True)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._stop_if_requested)
        engine.add_event_handler(Events.COMPLETED, self.finish)
        engine.add_event_handler(Events.COMPLETED, stopping.defer_sigterm, False)

    def _stop_if_requested(self, engine: Engine) -> None:
        if stopping.is_requested():
            self.finish()
            engine.logger.disabled = True  # it would report the exit as an error
            stopping.exit_saved()

    def _start(self, engine: Engine) -> None:
        self._wait()  # at most one case is waiting to be written
        if not engine.state.output:
            return
        kinds = {"pred": torch.uint8, "probabilities": torch.float32}
        cases, devices = [], set()
        for batch, item in zip(engine.state.batch, engine.state.output, strict=True):
            maps = {key: _on_host(item[key], kind) for key, kind in kinds.items() if key in item}
            checks = json.loads(batch.get("checks", "[]"))
            image = str(item["image"].meta["filename_or_obj"])
            cases.append((batch["case"], image, maps, checks, item.get("measure_numbers")))
            devices |= {item[key].device for key in maps if item[key].is_cuda}
        copied = [torch.cuda.current_stream(device).record_event() for device in devices]
        self.writing = self.thread.submit(self._save, cases, copied, next(iter(devices), None))

    def _wait(self) -> None:
        if self.writing is not None:
            self.writing.result()

    def _save(
        self,
        cases: Sequence[tuple[str, str, dict[str, np.ndarray], list, Callable[[], Any] | None]],
        copied: Sequence[torch.Event],
        gpu: torch.device | None,
    ) -> None:
        for event in copied:
            event.synchronize()
        if gpu is not None and self.beside is None:
            self.beside = torch.cuda.Stream(gpu)
        for case, image, maps, checks, measure in cases:
            with torch.cuda.stream(self.beside):  # on the default stream each number waits for the next case's network
                numbers = measure() if measure is not None else None
            self.save_case(case, image, maps, checks, numbers)

    def save_case(
        self,
        case: str,
        image: str,
        maps: Mapping[str, np.ndarray],
        checks: Sequence[Mapping[str, Any]] = (),
        numbers: Mapping[str, Any] | None = None,
    ) -> None:
        """Write one case: `pred` [..., 1] and optionally `probabilities` [..., R], on the grid of the file `image`."""
        soft = self._probabilities(case)
        if "probabilities" in maps:
            write_like(soft, maps["probabilities"], like=image)
        elif soft.is_file():  # of an earlier mask
            soft.unlink()
        path = mask_path(self.output_dir, case, image)
        write_like(path, maps["pred"][..., 0], like=pictures.file_of_page(image))
        self._record(case, self.images.get(case, image), path, checks, numbers)
        if stack := stack_path(self.output_dir, case, image):
            self.saved[stack] = case, image

    def _probabilities(self, case: str) -> Path:
        return self.output_dir / "probabilities" / f"{case}.nii.gz"

    def _record(
        self,
        case: str,
        image: str | Sequence[str],
        mask: Path,
        checks: Sequence[Mapping[str, Any]],
        numbers: Mapping[str, Any] | None = None,
    ) -> None:
        if self.records is not None:
            soft = self._probabilities(case)
            written = self.records.write(case, image, [mask, soft] if soft.is_file() else [mask], checks, numbers)
            if self.on_saved is not None:
                self.on_saved({**written, "image": image})
            else:
                for warning in list_warnings(checks):
                    print(f"note: {case}: {warning}", file=sys.stderr)
                if self.predict is not None and numbers is not None:
                    print(f"{case}: {describe_prediction(self.predict(numbers))}")

    def finish(self) -> None:
        """Wait for the last case, and combine the masks of pages."""
        self._wait()
        for stack, (case, image) in self.saved.items() if self.stacks else ():
            file, page = pictures.file_and_page(image)
            names = [f"{case.removesuffix(f'_{page}')}_{k}" for k in range(pictures.count_pages(file))]
            single = [mask_path(self.output_dir, name, image) for name in names]
            if all(path.exists() for path in single):
                pictures.write_picture(stack, *map(pictures.read_picture, single))
                for number, name in enumerate(names):
                    self._record(name, str(pictures.page_name(file, number)), stack, [])
                for path in single:
                    path.unlink()


def _on_host(maps: torch.Tensor, kind: torch.dtype) -> np.ndarray:
    """Maps [R, ...] as an array [..., R] in a NIfTI file's order; a copy from a GPU may still be running."""
    turned = maps.to(kind).permute(0, *range(maps.dim() - 1, 0, -1)).contiguous()
    return convert_to_tensor(turned, track_meta=False).to("cpu", non_blocking=True).numpy().T
