"""Export of a network as TorchScript, torch.export program and ONNX."""

import contextlib
import io
import logging
import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from scripts.errors import InputError
from scripts.files import atomic_write

FORMATS = ("ts", "pt2", "onnx")
OPSET = 20
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime")}


def write_safetensors(package: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write models/model.safetensors, the weights of model.pt in a format that holds no code."""
    plain = {name: weight.detach().contiguous().clone() for name, weight in weights.items()}
    save_file(plain, package / "models" / "model.safetensors", metadata={"format": "pt"})


def require_formats(formats: Sequence[str]) -> None:
    """Refuse formats that are unknown, or that need packages that are not installed."""
    for name in formats:
        if name not in FORMATS:
            raise InputError(
                f"there is no format '{name}': choose from {', '.join(FORMATS)}; model.pt and model.safetensors are"
                " always written."
            )
        for package in NEEDED.get(name, ()):
            if find_spec(package) is None:
                raise InputError(
                    f"format {name} needs {package}: pip install -r requirements-dev.txt, or leave the format out."
                )


def write_formats(
    package: Path, network: nn.Module, example: torch.Tensor, formats: Sequence[str], divisor: Sequence[int] | None
) -> list[str]:
    """Write models/model.<format> of the network at inference for each of `formats`, into a package's folder.

    `example` is an input [B, C, ...] with B of 2, since a size of one would be fixed; sizes can be any multiple of
    `multiple`, by axis, or only that of the example if it is None. model.pt2 stores the example, so it must not be of a
    patient; paths of this machine's source files, which all formats store for debugging, are removed.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # or it warns that torchvision is missing
    programs, any_size = [name for name in ("pt2", "onnx") if name in formats], True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each converter warns about its own internals
        if "ts" in formats:
            _torchscript(package)
        if programs:
            program, any_size = _program(network, example, divisor)
        if "pt2" in formats:
            buffer = io.BytesIO()  # a path would be stored in the archive
            torch.export.save(program, buffer)
            (package / "models" / "model.pt2").write_bytes(buffer.getvalue())
        if "onnx" in formats:
            converted = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, input_names=["image"], output_names=["pred"], verbose=False
            )
            for node in converted.model.graph.all_nodes():
                node.metadata_props.clear()
            converted.save(package / "models" / "model.onnx", external_data=False)
    return programs if divisor and not any_size else []


# MONAI's own export, as the Model Zoo's checks run it, with metadata and the inference config inside; seeded, since
# DynUNet stores a random number in place of its coarse heads
TORCHSCRIPT = """
import torch
from safetensors.torch import save_file
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
    path = package / "models" / "model.ts"
    with atomic_write(path) as temporary, zipfile.ZipFile(path) as source, zipfile.ZipFile(temporary, "w") as target:
        for member in source.infolist():
            if not member.filename.endswith(".debug_pkl"):
                target.writestr(member, source.read(member))


def _program(
    network: nn.Module, example: torch.Tensor, divisor: Sequence[int] | None
) -> tuple[torch.export.ExportedProgram, bool]:
    """A program for any batch and any such multiple, and true; or for the shape of the example, and false."""
    program, any_size = None, divisor is not None
    if divisor is not None:
        sizes = {2 + axis: step * torch.export.Dim(f"size{axis}", min=2) for axis, step in enumerate(divisor)}
        with contextlib.suppress(Exception):  # of many kinds, where a size decides what is computed
            dynamic = ({0: torch.export.Dim("batch"), **sizes},)
            program = torch.export.export(network, (example,), dynamic_shapes=dynamic)
    if program is None:
        program, any_size = torch.export.export(network, (example,)), False
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program, any_size
