"""How does a whole scan become a mask on disk? The scans to segment, the windows over them, the files written."""

from __future__ import annotations

import copy
import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.inferers import SlidingWindowInfererAdapt
from monai.utils import TraceKeys
from torch.utils.data import Dataset

from scripts import datalist, hardware, pages
from scripts.errors import InputError
from scripts.files import written_whole
from scripts.inputs import NIFTI, find_cases, image_entry, require_channels

AIR = -20.0  # logit of every region in a window of air: a probability of 2e-9
FLAT = 1e-3  # a channel that varies less in a window is constant; brain varies by about 1
BUFFERS = 8  # feature maps of the first level that live at once: a DynUNet on a CPU peaked at 6.9 to 9.5 of them


class MirroringSlidingWindowInferer(SlidingWindowInfererAdapt):
    """Sliding windows over a scan, only where there is something to see; mirrored, if asked, and averaged.

    Where a window holds nothing but one value a channel, which is air, every logit is `AIR`. Where a GPU cannot hold
    the result, it is put together in the machine's memory (MONAI's `SlidingWindowInfererAdapt`).

    Args:
        roi_size: of a window in voxels; -1: the whole axis; `auto`: as few and as large ones as memory allows.
        divisor: what each axis of an `auto` window must be a multiple of, by axis: the network halves it that often.
        regions: how many logits the network gives for a voxel; None: air is shown to it like everything else.
        tta: average the logits over all combinations of mirrored axes: 8 in three dimensions, 4 in two.
        half: `bfloat16` or `float16`; None: single precision. Logits are put together in the scan's own.
        others: arguments of MONAI's `SlidingWindowInferer`; `sw_batch_size` counts mirrored windows, too.
    """

    def __init__(
        self,
        roi_size: Sequence[int] | int | str,
        *args: Any,
        divisor: Sequence[int] | int = 1,
        regions: int | None = None,
        tta: bool = False,
        half: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(roi_size, *args, **kwargs)
        self.auto, self.divisor = roi_size == "auto", divisor
        self.regions, self.tta, self.half = regions, tta, half

    def __call__(self, inputs: torch.Tensor, network: Callable, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Logits [B, R, ...] of inputs [B, C, ...]."""
        if self.auto:
            self.roi_size = largest_window(inputs.shape[2:], self.divisor, voxels_in_memory(network, inputs.device))
        return super().__call__(inputs, partial(self._seen, network), *args, **kwargs)

    def _seen(self, network: Callable, windows: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        axes = _spatial(windows)
        brain = (windows.amax(axes) - windows.amin(axes) > FLAT).any(1)
        if self.regions is None or bool(brain.all()):
            return self._mirrored(network, windows, *args, **kwargs)
        logits = windows.new_full((len(windows), self.regions, *windows.shape[2:]), AIR)
        if bool(brain.any()):
            logits[brain] = self._mirrored(network, windows[brain], *args, **kwargs)
        return logits

    def _mirrored(self, network: Callable, windows: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        axes = _spatial(windows) if self.tta else ()
        mirrors = [m for count in range(len(axes) + 1) for m in itertools.combinations(axes, count)]
        images = torch.cat([windows.flip(mirror) for mirror in mirrors]) if self.tta else windows
        images = hardware.laid_out(images, network)
        with hardware.autocast(windows.device, self.half):
            parts = [network(part, *args, **kwargs).to(windows.dtype) for part in images.split(self.sw_batch_size)]
        if len(mirrors) == 1:
            return torch.cat(parts) if len(parts) > 1 else parts[0]
        mirrored = torch.cat(parts).split(len(windows))
        return sum(logits.flip(mirror) for logits, mirror in zip(mirrored, mirrors, strict=True)) / len(mirrors)


def _spatial(windows: torch.Tensor) -> tuple[int, ...]:
    return tuple(range(2, windows.dim()))


def divisor(strides: Sequence[int | Sequence[int]], axes: int) -> list[int]:
    """What each axis of an image must be a multiple of, for the network to halve it on every level."""
    return [math.prod(s if isinstance(s, int) else s[axis] for s in strides) for axis in range(axes)]


def largest_window(size: Sequence[int], divisor: Sequence[int] | int, voxels: float) -> list[int]:
    """The window that covers a scan in the fewest equal parts of at most so many voxels; the longest axis is cut first.

    Args:
        size: of the scan, in voxels.
        divisor: each axis of the window is a multiple of it, and may reach beyond the scan.
        voxels: at most, in a window; it has at least `divisor` on each axis.
    """
    steps = [divisor] * len(size) if isinstance(divisor, int) else list(divisor)
    window = [-(-n // step) * step for n, step in zip(size, steps, strict=True)]
    while math.prod(window) > voxels and window != steps:
        axis = max((a for a in range(len(window)) if window[a] > steps[a]), key=lambda a: window[a])
        window[axis] -= steps[axis]
    return window


def voxels_in_memory(network: Callable, device: torch.device) -> float:
    """Voxels of the largest window that a network can be shown with half of the free memory; an estimate.

    A U-Net is widest on its first level, where some `BUFFERS` feature maps of float32 live at once.
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    features = next((p.shape[0] for p in network.parameters() if p.dim() > 2), 1)
    return free / 2 / (BUFFERS * features * 4)


class OneAhead(Dataset):
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
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        case = self.waiting.pop(index, None) or self.thread.submit(self._prepare, index)
        following = [index + 1] if index + 1 < len(self) else []
        self.waiting = {number: self.thread.submit(self._prepare, number) for number in following}
        return case.result()

    def _prepare(self, index: int) -> Any:
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


def scans(
    source: str | os.PathLike | None,
    channels: Sequence[str],
    channel_files: Mapping[str, Sequence[str]],
    dataset_dir: str | os.PathLike = ".",
) -> list[dict[str, Any]]:
    """The cases of a data list, a folder of cases, the folder of one case, a folder of single files, or one file.

    A single file is a 4D NIfTI or a picture with all channels; a TIFF of several pages is as many slices.

    Args:
        source: what the user gave; None: no case, for those who only load the bundle.
        channels: the network's channels, in order.
        channel_files: the file name patterns of each channel (`scripts.inputs`).
        dataset_dir: where a data list's paths start; its unlabelled cases are taken, or all if every case has a label.

    Raises:
        InputError: there is no case, a case lacks a channel, or two masks would have the same name.
    """
    if source is None:
        return []
    source = Path(source)
    if source.suffix == ".json":
        content = datalist.read(source)
        entries = datalist.select(content, dataset_dir, "testing" if content.get("testing") else "labelled")
        return [{"image": entry["image"], "case": entry["case"]} for entry in entries]
    if source.is_file():
        return _slices_or_scan(source)
    if not source.exists():
        raise InputError(f"input {source} does not exist: give a folder of patients, one scan, or a data list.")
    found = [case for case in find_cases(source, channel_files) if case.images]
    if found:
        images = [require_channels(case, channels, channel_files) for case in found]
        return [{"image": image_entry(i), "case": case.case} for case, i in zip(found, images, strict=True)]
    visible = sorted(path for path in source.iterdir() if not path.name.startswith("."))  # macOS leaves ._X beside X
    single = [path for path in visible if path.name.endswith(NIFTI)] or [p for p in visible if pages.is_picture(p)]
    files: dict[str, Path] = {}
    for path in single:
        if (first := files.setdefault(_stem(path), path)) != path:
            raise InputError(f"{first} and {path} would both give the mask of case {_stem(path)}: rename one of them.")
    if not files:
        patterns = ", ".join(pattern for several in channel_files.values() for pattern in several)
        raise InputError(
            f"input {source} holds no scan: expected files like {patterns}, or one 4D NIfTI or picture a case."
        )
    return [case for path in files.values() for case in _slices_or_scan(path)]


def _slices_or_scan(file: Path) -> list[dict[str, Any]]:
    number = pages.count(file)
    if number == 1:
        return [{"image": str(file), "case": _stem(file)}]
    return [{"image": str(pages.page_of(file, k)), "case": f"{_stem(file)}_{k}"} for k in range(number)]


def not_yet_done(
    cases: Sequence[Mapping[str, Any]],
    output_dir: str | os.PathLike,
    resume: bool,
    checkpoint: str | os.PathLike | None = None,
) -> list[dict[str, Any]]:
    """The cases whose mask is not in `output_dir` yet.

    Args:
        cases: entries with `case` and `image`.
        output_dir: the folder of masks.
        resume: leave out what is done.
        checkpoint: the weights; a mask older than they are is another network's and made anew.

    Raises:
        InputError: masks are there and `resume` is off.
    """
    made = Path(checkpoint).stat().st_mtime if checkpoint and Path(checkpoint).is_file() else 0.0
    left = [dict(case) for case in cases if not _is_done(output_dir, case, made if resume else 0.0)]
    done = len(cases) - len(left)
    if done and not resume:
        raise InputError(
            f"{output_dir} already holds masks of {done} of {len(cases)} cases: choose another output_dir, or skip"
            " them with --resume."
        )
    if done:
        print(f"{done} of {len(cases)} cases are already in {output_dir}")
    return left


def mask_path(output_dir: str | os.PathLike, case: str, image: str | Sequence[str]) -> Path:
    """Where the mask of a case is written: in the format of its image, the first one of several.

    A JPEG would change the values of a mask, so that of a JPEG is a PNG.
    """
    file = pages.file_of(image if isinstance(image, str) else image[0])
    ending = file.suffix.lower() if pages.is_picture(file) else ".nii.gz"
    return Path(output_dir) / f"{case}{'.png' if ending in pages.LOSSY else ending}"


def stack_path(output_dir: str | os.PathLike, case: str, image: str | Sequence[str]) -> Path | None:
    """Where the masks of all pages of a TIFF are written, None for the mask of what is no page of several."""
    name = image if isinstance(image, str) else image[0]
    page = pages.split(name)[1]
    return None if page is None else mask_path(output_dir, case.removesuffix(f"_{page}"), name)


def _is_done(output_dir: str | os.PathLike, case: Mapping[str, Any], since: float) -> bool:
    masks = mask_path(output_dir, case["case"], case["image"]), stack_path(output_dir, case["case"], case["image"])
    return any(mask is not None and mask.exists() and mask.stat().st_mtime >= since for mask in masks)


class MaskSaver:
    """Writes each case's label map in the format and on the grid of its image, and its probabilities if they are there.

    Args:
        output_dir: gets the masks (`mask_path`; uint8, the scheme's own values), and `probabilities/<case>.nii.gz`
            (float32, one map a region along the last axis; NIfTI for pictures too, which hold no fractions).
        stacks: gather the masks of the pages of a TIFF in one TIFF, when all of them are there.

    Attach it to an evaluator whose postprocessed output holds `pred` [1, ...] and maybe `probabilities` [R, ...]. One
    case is written while the next is computed.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, output_dir: str | os.PathLike, stacks: bool = False) -> None:
        self.output_dir = Path(output_dir)
        self.stacks = stacks
        self.saved: dict[Path, tuple[str, str]] = {}  # a case and page of each stack
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.writing: Future | None = None

    def attach(self, engine: Engine) -> None:
        """Write after each case."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._wait)
        if self.stacks:
            engine.add_event_handler(Events.COMPLETED, self._gather)

    def _start(self, engine: Engine) -> None:
        self._wait()  # so that one case waits to be written, not all of them
        self.writing = self.thread.submit(self._save, engine.state.batch, engine.state.output)

    def _wait(self) -> None:
        if self.writing is not None:
            self.writing.result()

    def _save(self, batches: Sequence[Mapping[str, Any]], items: Sequence[Mapping[str, Any]]) -> None:
        for batch, item in zip(batches, items, strict=True):
            case, image = batch["case"], str(item["image"].meta["filename_or_obj"])
            source = None if pages.is_picture(image) else nib.load(image)
            if "probabilities" in item:
                probabilities = np.moveaxis(np.asarray(item["probabilities"].cpu(), dtype=np.float32), 0, -1)
                _write_nifti(self.output_dir / "probabilities" / f"{case}.nii.gz", probabilities, source)
            # last, since the mask is the sign that a case is done
            mask, path = np.asarray(item["pred"][0].cpu(), dtype=np.uint8), mask_path(self.output_dir, case, image)
            if source is None:
                pages.write(path, mask)
            else:
                _write_nifti(path, mask, source)
            if stack := stack_path(self.output_dir, case, image):
                self.saved[stack] = case, image

    def _gather(self) -> None:
        for stack, (case, image) in self.saved.items():
            file, page = pages.split(image)
            names = [f"{case.removesuffix(f'_{page}')}_{k}" for k in range(pages.count(file))]
            single = [mask_path(self.output_dir, name, image) for name in names]
            if all(path.exists() for path in single):
                pages.write(stack, *map(pages.read, single))
                for path in single:
                    path.unlink()


def _write_nifti(path: Path, array: np.ndarray, source: Any) -> None:
    """On the grid of `source`, an image of nibabel; None: of a picture, which knows none."""
    image = nib.Nifti1Image(array, np.eye(4) if source is None else source.affine)
    if source is not None:
        image.header.set_xyzt_units(*source.header.get_xyzt_units())
        image.set_qform(source.affine, int(source.header["qform_code"]))
        image.set_sform(source.affine, int(source.header["sform_code"]))
    with written_whole(path) as temporary:
        nib.save(image, temporary)


def _stem(path: Path) -> str:
    return path.stem if pages.is_picture(path) else path.name.removesuffix(".gz").removesuffix(".nii")
