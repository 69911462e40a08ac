"""Checkpoint files: written whole with their own hash inside, and verified before use.

`torch.load` verifies no checksum. A file of `save_state` ends with the sha256 of everything before it, as the comment
of the zip archive that `torch.save` writes, so that other programs can read it.
"""

import hashlib
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scripts.errors import InputError
from scripts.files import atomic_write, is_sound_zip

SEAL = b"sha256:"
LENGTH = 71  # of the comment: the prefix, and the hash in hexadecimal
OTHER_FILES = {  # beginnings of files that are not checkpoints, and what to do with them
    b"version https://git-lfs": "is a pointer of Git LFS, not the weights: fetch them with `git lfs pull`",
    b"<": "is a web page, not weights: the download went wrong; download the file again",
    b"{": "is JSON, not weights: give the checkpoint file",
    b"\x1f\x8b": "is compressed by gzip: unpack it",
}
UNSAFE = re.compile(r"GLOBAL ([\w.]+)")  # in torch's message


def save_state(path: str | os.PathLike, state: Mapping[str, Any]) -> None:
    """Write a state whole or not at all, with its hash inside.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    with atomic_write(path) as temporary:
        try:
            with temporary.open("w+b") as stream:  # given a path, torch would write its random name into the file
                torch.save(dict(state), stream)
                _seal(stream)
        except RuntimeError as error:  # raised by torch on a full disk
            raise OSError(str(error.__context__ or error).strip().splitlines()[0]) from error


def read_state(path: str | os.PathLike) -> dict[str, Any]:
    """The verified content of a checkpoint file, on the CPU, tensors and plain values only.

    Raises:
        InputError: the file does not exist, is damaged, or is not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}: train first, or give the path with --checkpoint.")
    content = path.read_bytes()
    _require_checkpoint(path, content)
    damaged = InputError(f"{path} is not a readable checkpoint: it may be damaged or truncated; copy it again.")
    if not _is_sound(content):
        raise damaged
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch raise their own errors for a damaged file
        if found := UNSAFE.search(str(error)):
            raise InputError(
                f"{path} is not a readable checkpoint: it holds the Python object {found[1]}, which could run code when"
                " it is loaded; save its weights alone, by torch.save(network.state_dict(), path)."
            ) from error
        raise damaged from error
    if not isinstance(state, dict):
        raise InputError(f"{path} holds a {type(state).__name__}: expected a dictionary of weights.")
    return state


def _seal(stream: Any) -> None:
    """Append the hash as the comment of the archive; its length goes into the two bytes before."""
    stream.seek(-2, os.SEEK_END)
    stream.write(LENGTH.to_bytes(2, "little"))
    stream.seek(0)
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    stream.write(SEAL + digest.hexdigest().encode())


def _is_sound(content: bytes) -> bool:
    """Whether a file is intact: by its hash or, without one, by the checksums of the archive's members."""
    seal = content[-LENGTH:]
    if seal.startswith(SEAL):
        return hashlib.sha256(memoryview(content)[:-LENGTH]).hexdigest().encode() == seal[len(SEAL) :]
    if not content.startswith(b"PK"):
        return True  # from torch before 1.6, without a checksum
    return is_sound_zip(content)


def _require_checkpoint(path: Path, content: bytes) -> None:
    """Refuse files that are often mistaken for a checkpoint, with a message for each kind."""
    if not content:
        raise InputError(f"{path} is not a readable checkpoint: it is empty (0 bytes); copy it again.")
    start = content[:64].lstrip().lower()
    for beginning, reason in OTHER_FILES.items():
        if start.startswith(beginning):
            raise InputError(f"{path} {reason}.")
    if content[8:9] == b"{" and not content.startswith(b"PK"):
        raise InputError(f"{path} is a file of safetensors: save its weights by torch.save(weights, path).")
    if content.startswith(b"PK") and b"/constants.pkl" in content and b"/code/" in content:
        raise InputError(f"{path} is a TorchScript program, not weights: give model.pt, the state_dict of the network.")
