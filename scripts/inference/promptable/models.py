"""The promptable models by name: what they need, the terms of their weights, how they are loaded and put on a scan."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from scripts.errors import InputError
from scripts.inference.promptable.medsam import MedSamSegmenter
from scripts.inference.promptable.nninteractive import NnInteractiveSegmenter
from scripts.inference.promptable.planes import choose_plane
from scripts.inference.promptable.sam2 import Sam2Segmenter
from scripts.inference.promptable.session import PromptSegmenter
from scripts.inference.promptable.weights import load_nninteractive, load_transformers

TRANSFORMERS = "pip install transformers==5.24.0"
NNINTERACTIVE = (
    "pip install --no-deps nninteractive==2.6.0 nnunetv2==2.8.1 acvl-utils==0.2.6 batchgenerators==0.25.5"
    " batchgeneratorsv2==0.3.6 dynamic-network-architectures==0.4.4 && pip install blosc2==4.3.3"
    " connected-components-3d==4.1.1 seaborn==0.13.2 huggingface_hub==2.4.0"
)


class PromptableModel(NamedTuple):
    """A promptable model.

    Attributes:
        licence: who made it, and the terms of its code and weights.
        install: how its packages are installed.
        modules: that must be there.
        load: the network from the file or folder of its weights, or None, and a device.
        open: the model on a scan, from network, voxels [H, W, D], affine and plane.
    """

    licence: str
    install: str
    modules: tuple[str, ...]
    load: Callable[[Path | None, str | torch.device], Any]
    open: Callable[[Any, np.ndarray, np.ndarray, str], PromptSegmenter]


MODELS = {
    "nninteractive": PromptableModel(
        "nnInteractive (Isensee et al. 2025): code Apache-2.0, weights CC BY-NC-SA 4.0, which allows no commercial use",
        NNINTERACTIVE,
        ("nnInteractive.inference", "nnunetv2", "acvl_utils", "batchgenerators", "batchgeneratorsv2", "blosc2", "cc3d",
         "dynamic_network_architectures", "seaborn", "huggingface_hub"),
        load_nninteractive,
        NnInteractiveSegmenter,
    ),
    "sam2": PromptableModel(
        "SAM 2.1 (Ravi et al. 2024): code and weights Apache-2.0",
        TRANSFORMERS,
        ("transformers",),
        partial(load_transformers, "Sam2VideoModel", "facebook/sam2.1-hiera-tiny"),
        Sam2Segmenter,
    ),
    "medsam": PromptableModel(
        "MedSAM (Ma et al. 2024): code and weights Apache-2.0",
        TRANSFORMERS,
        ("transformers",),
        partial(load_transformers, "SamModel", "wanglab/medsam-vit-base"),
        MedSamSegmenter,
    ),
}  # fmt: skip


def require_promptable(name: str) -> PromptableModel:
    """The promptable model of a name.

    Raises:
        InputError: there is none, or a package that it needs is not installed.
    """
    if name not in MODELS:
        raise InputError(f"there is no promptable model {name}: expected {', '.join(MODELS)}.")
    model = MODELS[name]
    if lacking := next((module for module in model.modules if not _is_installed(module)), None):
        raise InputError(f"{name} needs a package that is not installed ({lacking}): {model.install}.")
    return model


def open_scan(
    model: PromptableModel, network: Any, voxels: np.ndarray, affine: np.ndarray, plane: str | None = None
) -> PromptSegmenter:
    """A promptable model on one channel of a scan.

    Args:
        model: of `MODELS`.
        network: with its weights, as its `load` returns it.
        voxels: of the channel, [H, W, D].
        affine: of the scan, from voxels to mm.
        plane: of the slices, of `scripts.inference.promptable.planes.PLANES`; by default that of the finest pixels.

    Raises:
        InputError: the channel is empty, or is not a volume.
    """
    if voxels.ndim != 3:
        raise InputError(f"the channel has {voxels.ndim} axes: expected a volume [H, W, D] of one channel.")
    if not voxels.any():
        raise InputError("the channel is 0 in every voxel: choose another one.")
    return model.open(network, voxels.astype(np.float32), affine, plane or choose_plane(affine))


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False
