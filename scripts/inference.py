"""How does a whole scan become a mask on disk? The scans to segment, the windows over them, the files written."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.inferers import SlidingWindowInferer

from scripts import datalist, pages
from scripts.errors import InputError
from scripts.files import written_whole
from scripts.inputs import NIFTI, find_cases, image_entry, require_channels


class MirroringSlidingWindowInferer(SlidingWindowInferer):
    """Sliding windows over a scan and, if asked, over its mirror images, whose logits are averaged.

    Args:
        tta: average over all combinations of mirrored spatial axes: 8 passes in three dimensions, 4 in two.
        others: arguments of MONAI's `SlidingWindowInferer`.
    """

    def __init__(self, *args: Any, tta: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tta = tta

    def __call__(self, inputs: torch.Tensor, network: Callable, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Logits [B, R, ...] of inputs [B, C, ...]."""
        result = super().__call__(inputs, network, *args, **kwargs)
        if not self.tta:
            return result
        axes = range(2, inputs.dim())
        mirrors = [m for count in range(1, len(axes) + 1) for m in itertools.combinations(axes, count)]
        for mirror in mirrors:
            flipped = super().__call__(inputs.flip(mirror), network, *args, **kwargs)
            result = result + flipped.flip(mirror)
        return result / (len(mirrors) + 1)


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

    Attach it to an evaluator whose postprocessed output holds `pred` [1, ...] and maybe `probabilities` [R, ...].

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, output_dir: str | os.PathLike, stacks: bool = False) -> None:
        self.output_dir = Path(output_dir)
        self.stacks = stacks
        self.saved: dict[Path, tuple[str, str]] = {}  # a case and page of each stack

    def attach(self, engine: Engine) -> None:
        """Write after each case."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._save)
        if self.stacks:
            engine.add_event_handler(Events.COMPLETED, self._gather)

    def _save(self, engine: Engine) -> None:
        for batch, item in zip(engine.state.batch, engine.state.output, strict=True):
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
