"""The `prompt` command: the mask of what is clicked or boxed, by a public promptable model."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bundle.commands.arguments import Optional, check_arguments
from bundle.commands.shared import Outcome
from bundle.commands.workflows import find_config, require_root
from scripts.data.images import NIFTI, write_like
from scripts.errors import InputError
from scripts.files import read_mapping

FOLDER_TASK = "brats"  # whose file names a patient's folder has, unless --task says otherwise
MASK = "the mask"  # the name of the region, in messages


@check_arguments
def prompt(
    image: Path,
    *,
    with_: Literal["nninteractive", "sam2", "medsam"],
    out: Path,
    channel: Optional[str] = None,
    points: Optional[str] = None,
    background: Optional[str] = None,
    box: Optional[str] = None,
    plane: Optional[Literal["axial", "coronal", "sagittal"]] = None,
    weights: Optional[Path] = None,
    task: Optional[str] = None,
    device: Optional[str] = None,
    overwrite: bool = False,
) -> Outcome:
    """Segment what is clicked or boxed on one channel of a scan, by nnInteractive, SAM 2 or MedSAM.

    The packages are optional, and their weights have terms of their own, which are printed before they are loaded:
    docs/prompt.md. Voxels are indices from 0, in the order of nibabel. The mask is on the grid of the file.

    Examples:
        python -m bundle prompt FLAIR.nii.gz --with nninteractive --points "[[120, 96, 71]]" --out mask.nii.gz
        python -m bundle prompt BRATS_001.nii.gz --task msd_brain --channel FLAIR --with sam2 --points 120,96,71 \\
            --background "[[88, 101, 64], [90, 80, 71]]" --weights sam2.1-hiera-tiny --out mask.nii.gz
        python -m bundle prompt /data/A --channel FLAIR --with medsam --box 90,70,60,150,130,85 --out mask.nii.gz

    Args:
        image: a file of one channel or of all of them, or the folder of a patient.
        with_: the model: nninteractive (3D), sam2 (slices, tracked as a video) or medsam (slices, best with a box).
        out: the mask to write, .nii or .nii.gz: 1 inside, 0 outside.
        channel: the one that the model sees; its name, or its number in the file, from 0.
        points: voxels inside, "[[i, j, k], ...]", or one as i,j,k.
        background: voxels outside, likewise.
        box: the indices of its first voxel, then of its last: i,j,k,i,j,k.
        plane: of the slices for sam2 and medsam, axial, coronal or sagittal; by default that of the finest pixels.
        weights: the folder or file of the weights; without it the model's library fetches them, if it has a network.
        task: whose channels and file names the image has; brats for a folder.
        device: cpu, cuda or cuda:1; the GPU if there is one.
        overwrite: replace an existing file.

    Raises:
        InputError: a package or the weights are missing, an option is wrong, or a prompt is outside the scan.
    """
    inside, outside = _read_voxels("points", points), _read_voxels("background", background)
    _check_out(out, image, overwrite)
    if not inside and box is None:
        raise InputError("nothing says what to segment: give --points inside it, or a --box around it.")
    from scripts.inference.promptable import channel as channels
    from scripts.inference.promptable import models
    from scripts.inference.promptable.planes import choose_plane
    from scripts.inference.promptable.prompts import read_box
    from scripts.inference.promptable.session import PromptSession, read_prompts
    from scripts.workflow import check_device, default_device

    model = models.require_promptable(with_)
    device = device or default_device()
    check_device(device)
    scan = channels.read_channel(image, channel, *_read_task(task, image.is_dir()))
    edges = None if box is None else read_box(_numbers("box", box), scan.voxels.shape)
    read_prompts(MASK, inside, outside, edges, scan.voxels.shape)  # refuses wrong ones before the weights are loaded
    print(f"terms: {model.licence}")
    network = model.load(weights, device)
    segmenter = models.open_scan(model, network, scan.voxels, scan.affine, plane)
    mask, notes, runs = PromptSession(segmenter, scan.voxels.shape).click(MASK, inside, outside, box=edges)
    write_like(out, mask.astype(np.uint8), scan.file)

    volume = mask.sum() * abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    seen = "in three dimensions" if with_ == "nninteractive" else f"in {plane or choose_plane(scan.affine)} slices"
    lines = [*notes, *(["the mask is empty: give other points, or a box."] if not mask.any() else [])]
    print(*lines, f"{with_} ran {runs} times {seen} of {scan.file}", sep="\n")
    print(f"{out}: {mask.sum()} voxels, {volume:.2f} ml")
    numbers = {
        "mask": str(out), "voxels": int(mask.sum()), "volume_ml": float(volume), "runs": runs, "notes": notes,
        "model": with_, "terms": model.licence, "image": str(scan.file),
    }  # fmt: skip
    return Outcome(lambda: numbers)


def _read_task(task: str | None, folder: bool) -> tuple[list[str] | None, dict[str, list[str]] | None]:
    """The channels of a task and the patterns of their files; None where no task is needed."""
    if task is None and not folder:
        return None, None
    require_root()
    settings = read_mapping(find_config("task", task or FOLDER_TASK))
    return settings.get("channels"), settings.get("channel_files")


def _check_out(out: Path, image: Path, overwrite: bool) -> None:
    if not out.name.lower().endswith(NIFTI):
        raise InputError(f"--out is {out}: expected a file that ends in .nii or .nii.gz.")
    if out.resolve() == image.resolve():
        raise InputError(f"--out is the scan itself, {image}: give another file for the mask.")
    if out.exists() and not overwrite:
        raise InputError(f"{out} is there already: give another --out, or --overwrite to replace it.")


def _read_voxels(option: str, text: str | None) -> list[Any]:
    found = [] if text is None else _numbers(option, text)
    return [found] if found and not isinstance(found[0], list) else found


def _numbers(option: str, text: str) -> list[Any]:
    try:
        found = json.loads(text if text.strip().startswith("[") else f"[{text}]")
    except ValueError:
        found = None
    if not isinstance(found, list):
        expected = "90,70,60,150,130,85" if option == "box" else '"[[120, 96, 71], [118, 90, 70]]"'
        raise InputError(f"--{option} is {text!r}: expected indices of voxels, such as {expected}.")
    return found
