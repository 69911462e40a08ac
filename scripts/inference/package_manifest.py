"""The files of a package, their sha256 in its manifest.json, and their comparison with what was exported."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from scripts.data.datalist import file_hash
from scripts.errors import InputError
from scripts.files import read_mapping, write_json

MANIFEST = "manifest.json"
FOLDERS = ("configs", "docs", "models", "scripts")  # each file in these is part of the package
PROGRAMS = (".py", ".pyw", ".pyc", ".pyd", ".so")  # and what Python can import, wherever it is
ON_PURPOSE = f"if it was changed on purpose, delete {MANIFEST}, and the package counts as a new one, to be trusted anew"


def is_part(name: str) -> bool:
    """Whether a file, by its path in the package, is part of it: masks and runs that were written there are not."""
    return name == "LICENSE" or name.split("/")[0].lower() in FOLDERS or Path(name).suffix.lower() in PROGRAMS


def hash_files(package: Path) -> dict[str, str]:
    """The sha256 of each file that is part of a package, by its path; compiled Python is removed first.

    Raises:
        InputError: the package holds a link, which could lead anywhere, or a device.
    """
    hashes = {}
    for path in package.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InputError(
                f"{printable(path)} is a link or a device, and a package holds only files: copy the package with the"
                " files in place of links (cp -rL), or remove it."
            )
        if path.parent.name == "__pycache__" and path.suffix == ".pyc":
            with suppress(OSError):  # Python would run it in place of the source, which alone is hashed
                path.unlink()
        if path.is_file() and is_part(name := path.relative_to(package).as_posix()):
            hashes[name] = file_hash(path)
    return dict(sorted(hashes.items()))


def hash_package(hashes: Mapping[str, str]) -> str:
    """The sha256 of a package, from those of its files (`hash_files`)."""
    return hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()


def write_manifest(package: Path) -> None:
    """Write manifest.json, the sha256 of each file by its path."""
    write_json(package / MANIFEST, hash_files(package))


def check_manifest(package: Path, hashes: Mapping[str, str]) -> None:
    """Compare the files of a package with its manifest.json, if there is one; an `InputError` names what differs."""
    if not (package / MANIFEST).is_file():
        return
    exported = read_mapping(package / MANIFEST)
    for name in sorted({*exported, *hashes}):
        shown = printable(package / name)
        if name not in hashes:
            raise InputError(f"package {package} lacks {printable(name)}: copy it again, or export it again.")
        if name not in exported:
            raise InputError(f"{shown} is not part of the exported package: remove it; {ON_PURPOSE}.")
        if exported[name] != hashes[name]:
            raise InputError(
                f"{shown} is not the file that was exported (its sha256 differs from {MANIFEST}): copy the package"
                f" again; {ON_PURPOSE}."
            )


def printable(text: object) -> str:
    """Text from a package as one line, without characters that control a terminal."""
    return text if (text := str(text)).isprintable() else ascii(text)
