"""Comparison of an exported package, loaded in a separate process, with the trained network.

    python -m bundle.packaging.parity PACKAGE PATCHES.npz

builds all components of the package's workflows and prints, as JSON, the difference between the logits of each file in
models/ and those in PATCHES.npz.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from safetensors.torch import load_file

from scripts.config_names import refuse_unresolved_names
from scripts.errors import InputError, install_excepthook

LARGEST = 1e-3  # of logits; larger differences are another network
SMALLEST_AGREEMENT = 0.9999  # of voxels with the same regions; a logit within rounding of 0 may fall on either side
# of each workflow, the component that contains all others, and the keys of its cases, as MONAI Label sets them
WORKFLOWS = {
    "train": ("train::trainer", ["train::dataset::data", "validate::dataset::data"]),
    "evaluate": ("evaluator", ["dataset::data"]),
    "inference": ("evaluator", ["dataset::data"]),
}


def compare_formats(package: Path, patches: np.ndarray, logits: np.ndarray) -> dict[str, dict[str, float]]:
    """Compare the logits of each file in models/ with `logits` [N, R, ...] on `patches` [N, C, ...], float32.

    Returns:
        file name to `largest_logit_difference` and `label_agreement` (the share of voxels with the same regions).

    Raises:
        InputError: a file differs or cannot be loaded alone, or a config needs something outside the package.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "patches.npz")
        np.savez(data, patches=patches, logits=logits)
        root = Path(__file__).parents[2]
        command = [sys.executable, "-m", "bundle.packaging.parity", str(package.resolve()), str(data)]
        # the package comes first on the path, so that `scripts` is its own
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package.resolve()), str(root)])}
        done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        reason = last.removeprefix("error: ").removesuffix(".")
        raise InputError(f"the package cannot be loaded alone ({reason}); nothing was written.")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    for name, far in found.items():
        if far["largest_logit_difference"] > LARGEST or far["label_agreement"] < SMALLEST_AGREEMENT:
            raise InputError(
                f"models/{name} differs from the network that was trained: its logits by up to"
                f" {far['largest_logit_difference']:.2g} (at most {LARGEST:g}), {far['label_agreement']:.4%} of the"
                " voxels equal; nothing was written."
            )
    return found


def read_config(source: Path | dict[str, Any]) -> ConfigParser:
    """A workflow's config, from its file or a run's settings, on the CPU."""
    parser = ConfigParser()
    parser.read_config(source)
    parser["device"] = "cpu"
    return parser


def _main(package: str, data: str) -> None:
    for name, (component, cases) in WORKFLOWS.items():
        _build(Path(package, "configs", f"{name}.yaml"), component, cases)
    with np.load(data) as file:
        patches, logits = file["patches"], file["logits"]
    decision = read_config(Path(package, "configs", "inference.yaml")).get_parsed_content("region_decision")
    decision.threshold, found = 0.0, {}  # of logits
    regions = decision.masks(torch.from_numpy(logits), axis=1)
    for path in sorted(path for path in Path(package, "models").iterdir() if path.suffix != ".json"):
        run = _load(path)
        with torch.no_grad():
            own = np.concatenate([run(patch[None]) for patch in patches])
        found[path.name] = {
            "largest_logit_difference": float(np.abs(own - logits).max()),
            "label_agreement": float((decision.masks(torch.from_numpy(own), axis=1) == regions).all(1).double().mean()),
        }
    print(json.dumps(found))


def _build(config: Path, component: str, cases: Sequence[str]) -> None:
    """Build all components of a workflow, with the name of a case as data, which are not read."""
    parser = read_config(config)
    for dataset in cases:
        parser[dataset] = [{"image": "case.nii.gz", "label": "case_label.nii.gz"}]
    parser.parse()
    refuse_unresolved_names(parser.config)
    with contextlib.redirect_stdout(sys.stderr):  # the last line of the standard output is the result
        parser.get_parsed_content(component)


def _load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a patch [1, C, ...] to the logits of a file in models/; weights use the package's config."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda patch: session.run(["pred"], {"image": patch})[0]
    if path.suffix == ".pt2":
        network = torch.export.load(path).module()
    elif path.suffix == ".ts":
        network = torch.jit.load(str(path), map_location="cpu").eval()
    else:
        network = read_config(path.parents[1] / "configs" / "inference.yaml").get_parsed_content("network").eval()
        if path.suffix == ".safetensors":
            network.load_state_dict(load_file(path))
    return lambda patch: network(torch.from_numpy(patch)).numpy()


if __name__ == "__main__":
    install_excepthook()
    _main(*sys.argv[1:])
