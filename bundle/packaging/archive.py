"""Reproducible zips of folders, and comparison of two folders."""

import zipfile
from pathlib import Path

from scripts.files import atomic_write

STORED = {".pt", ".ts", ".pt2", ".safetensors"}  # weights, which hardly become smaller
BEGINNING = (1980, 1, 1, 0, 0, 0)  # the earliest date of a zip: the time of packing is not stored


def list_files(folder: Path) -> list[Path]:
    """All files below `folder`, sorted by name, without `__pycache__`."""
    found = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def zip_folder(folder: Path, path: Path, top: str | None = None) -> None:
    """Write `folder` to a zip with one top folder, named `top` or like `folder`."""
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for file in list_files(folder):
            entry = zipfile.ZipInfo(f"{top or folder.name}/{file.relative_to(folder).as_posix()}", BEGINNING)
            entry.compress_type = zipfile.ZIP_STORED if file.suffix in STORED else zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes())


def same_files(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    names = [[path.relative_to(folder).as_posix() for path in list_files(folder)] for folder in (one, other)]
    return names[0] == names[1] and all((one / n).read_bytes() == (other / n).read_bytes() for n in names[0])
