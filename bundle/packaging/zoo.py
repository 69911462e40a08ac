"""The Model Zoo's layout of a package: models/NAME without its large files, and an entry in model_info.json."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bundle.packaging import archive
from scripts.data.datalist import file_hash
from scripts.errors import InputError
from scripts.files import unfinished_prefix, write_json, write_text

LARGE = 25 * 10**6  # bytes; the Model Zoo keeps larger files outside its repository
ADDRESS = "URL of {path}: upload the file, then put its address here"


class ZooEntry(NamedTuple):
    """The place of a package in a Model Zoo: its folder, the zoo's model_info.json, its key there, and its zip."""

    target: Path
    index: Path
    key: str
    zipped: Path


def find_large_files(package: Path) -> list[Path]:
    """The files of a package that are too large for the zoo's repository."""
    return [path for path in archive.list_files(package) if path.stat().st_size > LARGE]


def plan_entry(zoo: Path, name: str, version: str) -> ZooEntry:
    """The place of a package in a zoo, which is a folder such as a clone of the Model Zoo.

    Raises:
        InputError: the zoo's index is damaged, or has this version already.
    """
    key = f"{name}_v{version}"
    entry = ZooEntry(zoo / "models" / name, zoo / "models" / "model_info.json", key, zoo / f"{key}.zip")
    if key in _read_index(entry.index):
        raise InputError(f"{entry.index} already has {key}: export a higher version.")
    return entry


def write_entry(entry: ZooEntry, package: Path, url: str | None) -> None:
    """Write a package into the zoo in place of an earlier version, its zip, and its entry in model_info.json.

    `url` is the address of the large files, without their names; without it, a note is written for each address.
    """
    large = find_large_files(package)
    try:
        entry.target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.target.parent, prefix=unfinished_prefix()) as unfinished:
            copy = Path(unfinished, entry.target.name)
            shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
            if large:
                write_text(copy / "large_files.yml", _large_files(package, large, url))
                for path in large:
                    (copy / path.relative_to(package)).unlink()
            if entry.target.exists():  # an earlier version, which git keeps
                entry.target.rename(Path(unfinished, "earlier"))
            copy.rename(entry.target)
        archive.zip_folder(package, entry.zipped, top=entry.target.name)
        checksum = hashlib.sha1(entry.zipped.read_bytes(), usedforsecurity=False).hexdigest()  # as in the zoo
        added = {entry.key: {"checksum": checksum, "source": _address(entry.zipped, url)}}
        write_json(entry.index, _read_index(entry.index) | added)
    except OSError as error:
        zoo = entry.zipped.parent
        raise InputError(f"{zoo} cannot be written ({error.strerror or error}): give another folder.") from error


def _read_index(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON: restore it from the zoo's repository.") from error
    if not isinstance(entries, dict):
        raise InputError(f"{path} is not an object with one entry per model: restore it from the zoo's repository.")
    return entries


def _large_files(package: Path, large: list[Path], url: str | None) -> str:
    """large_files.yml, which the zoo's checks download first, with the sha256 of each file."""
    listed = []
    for path in large:
        own = {"path": path.relative_to(package).as_posix(), "url": _address(path, url)}
        listed.append({**own, "hash_val": file_hash(path), "hash_type": "sha256"})
    return yaml.safe_dump({"large_files": listed}, sort_keys=False, width=200)


def _address(file: Path, url: str | None) -> str:
    return f"{url.rstrip('/')}/{file.name}" if url else ADDRESS.format(path=file.name)
