"""Export of a network as TorchScript, torch.export program and ONNX."""

import io
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from scripts.errors import InputError

FORMATS = ("ts", "pt2", "onnx")
OPSET = 20
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime")}


def require_formats(formats: Sequence[str]) -> None:
    """Refuse formats that are unknown, or that need packages that are not installed."""
    for name in formats:
        if name not in FORMATS:
            raise InputError(
                f"there is no format '{name}': choose from {', '.join(FORMATS)}; model.pt is always written."
            )
        for package in NEEDED.get(name, ()):
            if find_spec(package) is None:
                raise InputError(
                    f"format {name} needs {package}: pip install -r requirements-dev.txt, or leave the format out."
                )


def write_formats(
    package: Path, network: nn.Module, example: torch.Tensor, formats: Sequence[str], multiple: Sequence[int]
) -> None:
    """Write models/model.<format> of the network at inference for each of `formats`, into a package's folder.

    `example` is an input [B, C, ...] with B of 2, since a size of one would be fixed; sizes can be any multiple of
    `multiple`, by axis, or only that of the example if it is None.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # or it warns that torchvision is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each converter warns about its own internals
        if "ts" in formats:
            _torchscript(package)
        if {"pt2", "onnx"} & set(formats):
            program = _program(network, example, multiple)
        if "pt2" in formats:
            buffer = io.BytesIO()  # a path would be stored in the archive
            torch.export.save(program, buffer)
            (package / "models" / "model.pt2").write_bytes(buffer.getvalue())
        if "onnx" in formats:
            torch.onnx.export(
                program,
                (),
                package / "models" / "model.onnx",
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["pred"],
                external_data=False,
                verbose=False,
            )


# MONAI's own export, as the Model Zoo's checks run it, with metadata and the inference config inside; seeded, since
# DynUNet stores a random number in place of its coarse heads
TORCHSCRIPT = """
import torch
from monai.bundle import ckpt_export
torch.manual_seed(0)
ckpt_export("network_def", filepath="models/model.ts", ckpt_file="models/model.pt",
            meta_file="configs/metadata.json", config_file="configs/inference.yaml")
"""


def _torchscript(package: Path) -> None:
    # TorchScript orders its content by hashes of strings, which differ between processes without a fixed seed
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", TORCHSCRIPT]
    done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"the network cannot be exported as TorchScript ({last}): leave out the format ts.")


def _program(network: nn.Module, example: torch.Tensor, multiple: Sequence[int] | None) -> torch.export.ExportedProgram:
    """A program for any batch and any such multiple, or for the shape of the example without one."""
    if multiple is None:
        return torch.export.export(network, (example,))
    sizes = {2 + axis: step * torch.export.Dim(f"size{axis}", min=2) for axis, step in enumerate(multiple)}
    return torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch"), **sizes},))
