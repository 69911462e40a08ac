"""Reading and atomic writing of small files: a killed run or a full disk leaves the old file or none, never a part."""

import io
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from scripts.errors import InputError

UNFINISHED = re.compile(r"\.writing-(?:(?P<host>.+)-(?P<pid>\d+)-)?[^-]*")
FOREIGN = 24 * 3600  # seconds after which an unfinished file of another machine counts as a leftover


def unfinished_prefix() -> str:
    """The prefix of temporary files and folders, which names the process for `remove_leftovers`."""
    return f".writing-{platform.node()}-{os.getpid()}-"


def remove_leftovers(folder: str | os.PathLike, locked: bool = False) -> None:
    """Remove the temporary files and folders of killed processes from a folder.

    Those of running processes stay, and those of another machine for a day, unless the folder is `locked` by this
    process.
    """
    for path in Path(folder).glob(".writing-*"):
        found = UNFINISHED.fullmatch(path.name)
        host, pid = (found["host"], found["pid"]) if found else (None, None)
        with suppress(OSError):  # removed meanwhile
            young = time.time() - path.stat().st_mtime < FOREIGN
            if locked or not pid or not (is_alive(int(pid), host) if host == platform.node() else young):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_alive(pid: int | None = None, host: str | None = None, **_: object) -> bool:
    """Whether a process is alive; assumed for a process of another machine."""
    if pid is None or host != platform.node() or sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def is_sound_zip(content: bytes) -> bool:
    """Whether the bytes are a ZIP archive, such as a file of torch.save, whose members match their checksums.

    `torch.load` compares none.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return content.endswith(b"\0\0") and archive.testzip() is None  # a comment of length 0
    except Exception:  # zipfile and its decompressors raise errors of many kinds for damaged bytes
        return False


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`, with the same ending; renamed to it if all goes well.

    Raises:
        InputError: the folder cannot be made or written, or the disk is full; nothing is left behind.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix
        handle, name = tempfile.mkstemp(prefix=unfinished_prefix(), suffix=suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp gives 0600; use the permissions of any other new file
        temporary.replace(path)
    except OSError as error:
        not_space = isinstance(error, FileExistsError | NotADirectoryError | PermissionError)
        remedy = "choose another folder" if not_space else "free space there, or choose another folder"
        raise InputError(f"{path} cannot be written ({error.strerror or error}): {remedy}.") from error
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                temporary.unlink()


def make_folder(path: str | os.PathLike) -> None:
    """Make a folder and those above it.

    Raises:
        InputError: it cannot be made, or nothing can be written there.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=str(path), prefix=unfinished_prefix()):
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}): choose another folder.") from error


def walk_files(root: str | os.PathLike) -> Iterator[Path]:
    """The files below a folder, without hidden ones and those in hidden folders: macOS leaves ._X next to X.

    Links to folders are followed, since cohorts are often linked together. Each folder is visited once, by its own path
    where it is below `root`, else by its first link: links in a circle end.

    Raises:
        InputError: a folder cannot be read.
    """
    visited: set[tuple[int, int]] = set()
    folders, links = [Path(root)], []
    while folders:
        folder = folders.pop()
        try:
            status = folder.stat()
            inside = sorted(folder.iterdir()) if (status.st_dev, status.st_ino) not in visited else []
        except OSError as error:
            raise InputError(f"{folder} cannot be read ({error.strerror}): change its permissions.") from error
        visited.add((status.st_dev, status.st_ino))
        for path in (path for path in inside if not path.name.startswith(".") and path.name != "lost+found"):
            if not path.is_dir():
                yield path
            elif path.is_symlink():
                links.append(path)
            else:
                folders.append(path)
        if not folders:
            folders, links = sorted(links, reverse=True), []


def read_mapping(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a YAML or JSON file that holds a mapping, such as settings.yaml and environment.json of a run.

    Raises:
        InputError: the file cannot be read, is damaged or empty, or holds something else.
    """
    path, advice = Path(path), "correct it, or take the file that the program wrote"
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" and text.strip() else yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    except (ValueError, yaml.YAMLError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise InputError(
            f"{path} cannot be read as {kind} ({' '.join(str(error).split())[:120]}): {advice}."
        ) from error
    if not isinstance(content, dict) or not content:
        found = "is empty" if not content else f"holds a {type(content).__name__}"
        raise InputError(f"{path} {found}, expected names and values: {advice}.")
    return content


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
