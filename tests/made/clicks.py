"""A prepared scan to click on, and networks that take clicks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from scripts.inference.click_session import ClickSession
from tests.made.masks import oblique

REGIONS = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
SHAPE = (20, 18, 14)
CHANNELS = {"_target_": "scripts.data.click_channels.ClickChannels", "patch_size": "@patch_size",
            "regions": "$list(@regions)", "radius": 2}  # fmt: skip


def towards(axes: str, sizes: tuple[float, float, float] = (1.0, 1.5, 3.0)) -> np.ndarray:
    """The affine of voxels of these sizes in mm whose axes run to these sides."""
    affine = np.zeros((4, 4))
    affine[3, 3], affine[:3, 3] = 1, [-7, 11, 5]
    for axis, ((side, sign), size) in enumerate(zip(nib.orientations.axcodes2ornt(axes), sizes, strict=True)):
        affine[int(side), axis] = sign * size
    return affine


AFFINES = {
    "RAS": towards("RAS", (1.0, 1.0, 1.0)),
    "LPS": towards("LPS", (1.0, 1.0, 1.0)),
    "permuted": towards("ASR", (1.0, 1.0, 1.0)),
    "permuted and anisotropic": towards("SLP"),
    "oblique": oblique(12.0),
    "oblique and permuted": oblique(30.0)[:, [2, 0, 1, 3]],
}


def write_head(folder: Path, affine: np.ndarray, marked: tuple[int, ...] | None = None) -> list[str]:
    """The files of the four channels: a head that fills a part of the scan, bright around one voxel in the first."""
    inside = (slice(3, 18), slice(2, 15), slice(2, 13))
    rng, files = np.random.default_rng(0), []
    for name in ("t1", "t1ce", "t2", "flair"):
        voxels = np.zeros(SHAPE, np.float32)
        voxels[inside] = 100 + rng.random(voxels[inside].shape)
        if marked is not None and not files:
            away = np.linalg.norm(np.indices(SHAPE).T - np.array(marked), axis=-1).T
            voxels += np.where(away < 3, 1000 - 200 * away, 0)  # wide enough to be seen in a coarser grid
        files.append(str(folder / f"X_{name}.nii.gz"))
        nib.save(nib.Nifti1Image(voxels, affine), files[-1])
    return files


class Obedient(torch.nn.Module):
    """In a region is what is bright in the first channel, or near a foreground click, but not near a background one."""

    def __init__(self, obeys: float = 40.0, channels: int = 4) -> None:
        super().__init__()
        self.obeys, self.first = obeys, channels + 1
        self.inputs: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.inputs += list(images)
        given = images[:, self.first :: 2] - images[:, self.first + 1 :: 2]
        return images[:, :1] - 4 + self.obeys * given


def open_session(
    read_config: Callable, folder: Path, network: torch.nn.Module, affine: np.ndarray | None = None, **settings
) -> ClickSession:
    """A session on `write_head`, of windows of 8 voxels, with a bright voxel at [10, 9, 7]."""
    affine = AFFINES["RAS"] if affine is None else affine
    given = {"device": "cpu", "profile": "$None", "patch_size": [8] * 3, "window_channels": CHANNELS, **settings}
    config = read_config("configs/inference.yaml", "configs/tasks/phantom.yaml", **given)
    prepare = config.get_parsed_content("preprocessing")
    case = prepare({"image": write_head(folder, affine, (10, 9, 7)), "case": "X"})
    parts = (config.get_parsed_content(name) for name in ("inferer", "preprocessing", "region_decision"))
    return ClickSession(case, network, *parts)
