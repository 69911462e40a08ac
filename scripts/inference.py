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

from scripts import datalist
from scripts.errors import InputError
from scripts.files import written_whole
from scripts.inputs import NIFTI, find_cases, require_channels


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
    """The cases of a data list, a folder of cases, the folder of one case, a folder of 4D files, or one 4D file.

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
        return [{"image": str(source), "case": _stem(source)}]
    if not source.exists():
        raise InputError(f"input {source} does not exist: give a folder of patients, one scan, or a data list.")
    found = [case for case in find_cases(source, channel_files) if case.images]
    if found:
        return [{"image": require_channels(case, channels, channel_files), "case": case.case} for case in found]
    files: dict[str, Path] = {}
    for path in sorted(source.iterdir()):
        if not path.name.endswith(NIFTI) or path.name.startswith("."):  # macOS leaves ._X.nii.gz beside X.nii.gz
            continue
        if (first := files.setdefault(_stem(path), path)) != path:
            raise InputError(f"{first} and {path} would both become {_stem(path)}.nii.gz: rename one of them.")
    if not files:
        patterns = ", ".join(pattern for several in channel_files.values() for pattern in several)
        raise InputError(f"input {source} holds no scan: expected files like {patterns}, or one 4D NIfTI a case.")
    return [{"image": str(path), "case": case} for case, path in files.items()]


def not_yet_done(
    cases: Sequence[Mapping[str, Any]], output_dir: str | os.PathLike, resume: bool
) -> list[dict[str, Any]]:
    """The cases whose mask is not in `output_dir` yet.

    Raises:
        InputError: masks are there and `resume` is off.
    """
    left = [dict(case) for case in cases if not mask_path(output_dir, case["case"]).exists()]
    done = len(cases) - len(left)
    if done and not resume:
        raise InputError(
            f"{output_dir} already holds masks of {done} of {len(cases)} cases: choose another output_dir, or skip"
            " them with --resume."
        )
    if done:
        print(f"{done} of {len(cases)} cases are already in {output_dir}")
    return left


def mask_path(output_dir: str | os.PathLike, case: str) -> Path:
    """Where the mask of a case is written."""
    return Path(output_dir) / f"{case}.nii.gz"


class MaskSaver:
    """Writes each case's label map, and its probabilities if they are there, on the grid of the input file.

    Args:
        output_dir: gets `<case>.nii.gz` (uint8, the scheme's own values) and `<case>_probabilities.nii.gz` (float32,
            one volume a region).

    Attach it to an evaluator whose postprocessed output holds `pred` [1, ...] and maybe `probabilities` [R, ...].

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, output_dir: str | os.PathLike) -> None:
        self.output_dir = Path(output_dir)

    def attach(self, engine: Engine) -> None:
        """Write after each case."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._save)

    def _save(self, engine: Engine) -> None:
        for batch, item in zip(engine.state.batch, engine.state.output, strict=True):
            case = batch["case"]
            source = nib.load(item["image"].meta["filename_or_obj"])
            if "probabilities" in item:
                probabilities = np.moveaxis(np.asarray(item["probabilities"].cpu(), dtype=np.float32), 0, -1)
                self._write(self.output_dir / "probabilities" / f"{case}.nii.gz", probabilities, source)
            # last, since the mask is the sign that a case is done
            self._write(mask_path(self.output_dir, case), np.asarray(item["pred"][0].cpu(), dtype=np.uint8), source)

    def _write(self, path: Path, array: np.ndarray, source: Any) -> None:
        image = nib.Nifti1Image(array, source.affine)
        image.header.set_xyzt_units(*source.header.get_xyzt_units())
        image.set_qform(source.affine, int(source.header["qform_code"]))
        image.set_sform(source.affine, int(source.header["sform_code"]))
        with written_whole(path) as temporary:
            nib.save(image, temporary)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
