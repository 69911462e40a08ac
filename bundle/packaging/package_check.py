"""Checks of a package's files, metadata, trust and weights before it is used, served or published."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.packaging.metadata import VERSION, check_metadata
from bundle.packaging.networks import load_inference_network
from scripts.errors import InputError
from scripts.inference.package_manifest import check_manifest, hash_files, hash_package
from scripts.inference.package_trust import Ask, require_trust

WORKFLOWS = ("inference", "train", "evaluate", "multi_gpu_train")
FILES = ["LICENSE", "configs/metadata.json", *(f"configs/{name}.yaml" for name in WORKFLOWS), "configs/logging.conf"]
FILES += ["docs/README.md", "models/model.pt", "scripts/__init__.py"]


def check_package(folder: str | os.PathLike, trust: bool = False, ask: Ask = lambda question: None) -> dict[str, Any]:
    """`check_trusted_files`, then load the network by the package's config, with its weights; returns the metadata."""
    metadata = check_trusted_files(folder, trust, ask)
    load_inference_network(Path(folder))  # MONAI Label would serve random weights if the names differ
    return metadata


def check_trusted_files(
    folder: str | os.PathLike, trust: bool = False, ask: Ask = lambda question: None
) -> dict[str, Any]:
    """Check a package's files and metadata, then that its user trusts it, and return its metadata; nothing in it runs.

    Args:
        folder: the package.
        trust: whether the user has agreed already.
        ask: asks the user about a package that is not trusted yet.

    Raises:
        InputError: a file is missing, changed, added or a link, the metadata are invalid, or the user does not agree.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file: unzip it and give its folder" if folder.is_file() else "does not exist"
        raise InputError(f"package {folder} {what}; `python -m bundle export runs/X` makes one.")
    try:
        hashes = hash_files(folder)
    except OSError as error:
        raise InputError(f"package {folder} cannot be read ({error}): copy it again, or change permissions.") from error
    for name in FILES:
        if name not in hashes:
            raise InputError(f"package {folder} lacks {name}: export it again.")
    metadata = check_metadata(folder / "configs" / "metadata.json")  # says which format of packages it is
    check_manifest(folder, hashes)
    require_trust(folder, hash_package(hashes), metadata, trust, ask)
    return metadata


def read_name_and_version(folder: Path, metadata: Mapping[str, Any]) -> tuple[str, str]:
    """Name and version in a package folder's name, checked against its metadata."""
    name, _, version = folder.resolve().name.rpartition("-")
    if not name or not VERSION.match(version):
        raise InputError(f"{folder} is not called NAME-VERSION: give the folder that `python -m bundle export` wrote.")
    if version != metadata["version"]:
        raise InputError(f"{folder} has version {metadata['version']} in its metadata: export it again.")
    return name, version
