"""Checks of a package's files, metadata, hashes and weights before it is served or published."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.packaging.metadata import VERSION
from bundle.packaging.metadata import check_metadata as check_metadata
from bundle.packaging.networks import load_inference_network
from scripts.data.datalist import file_hash
from scripts.errors import InputError

WORKFLOWS = ("inference", "train", "evaluate", "multi_gpu_train")
FILES = ["LICENSE", "configs/metadata.json", *(f"configs/{name}.yaml" for name in WORKFLOWS), "configs/logging.conf"]
FILES += ["docs/README.md", "models/model.pt", "scripts/__init__.py"]


def check_package(folder: str | os.PathLike) -> dict[str, Any]:
    """Check a package's files, metadata, hashes and weights, and return its metadata."""
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file: unzip it and give its folder" if folder.is_file() else "does not exist"
        raise InputError(f"package {folder} {what}; `python -m bundle export runs/X` makes one.")
    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(f"package {folder} lacks {name}: export it again.")
    metadata = check_metadata(folder / "configs" / "metadata.json")
    check_weights(folder, metadata)
    load_inference_network(folder)  # MONAI Label would serve random weights if the names differ
    return metadata


def check_weights(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Check that the files of a package's weights are those that were exported; nothing in them is used."""
    for name, sha256 in metadata.get("weights", {}).items():
        if not (folder / name).is_file():
            raise InputError(f"package {folder} lacks {name}: export it again.")
        if file_hash(folder / name) != sha256:
            raise InputError(
                f"{folder / name} is not the file that was exported (its sha256 differs from configs/metadata.json):"
                " copy the package again, or export it again."
            )


def read_name_and_version(folder: Path, metadata: Mapping[str, Any]) -> tuple[str, str]:
    """Name and version in a package folder's name, checked against its metadata."""
    name, _, version = folder.resolve().name.rpartition("-")
    if not name or not VERSION.match(version):
        raise InputError(f"{folder} is not called NAME-VERSION: give the folder that `python -m bundle export` wrote.")
    if version != metadata["version"]:
        raise InputError(f"{folder} has version {metadata['version']} in its metadata: export it again.")
    return name, version
