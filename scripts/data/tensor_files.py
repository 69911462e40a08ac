"""Dictionaries of tensors, as `torch.save` writes them to `.pt` files: {image: [C, ...], label: [...]}.

Both may lie in one file, or each in its own. The grid is that of `affine` (4 x 4, voxels to mm, RAS+ as in MONAI and
nibabel) or else of `spacing` (mm, one number per axis); without both, sizes are in pixels, as those of pictures. Other
keys are ignored. A file is loaded with `weights_only=True`, which runs no code of it, once its checksums agree.
"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from scripts.data.nifti import file_content, require_box
from scripts.errors import InputError
from scripts.files import is_sound_zip

SUFFIX = ".pt"


def is_tensor_file(name: str | os.PathLike) -> bool:
    """Whether this is the name of a file of tensors."""
    return Path(name).name.lower().endswith(SUFFIX)


def read_tensor(path: str | os.PathLike, key: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The array and affine of one key of a file (see `decode_tensor`).

    Raises:
        InputError: the file is missing; or see `decode_tensor`.
    """
    return decode_tensor(Path(path), file_content(Path(path)), key)


def decode_tensor(path: Path, content: bytes, key: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Decode one key of the bytes of the file at `path`.

    Args:
        path: for messages.
        content: the bytes of the file.
        key: `image` or `label`.

    Returns:
        the array, [C, H, W, D] or [C, H, W] of the image, without C of the label; and the affine (4 x 4), if any.

    Raises:
        InputError: the bytes are damaged or not of `torch.save`, hold other objects than tensors and numbers, or lack
            the key; its tensor has another shape or no real numbers; or the affine or spacing has no boxes as voxels.
    """
    return _pick(path, _load(path, content), key)


def read_affine(path: str | os.PathLike) -> np.ndarray | None:
    """The affine (4 x 4) of a file, if it has one.

    Raises:
        InputError: as for `read_tensor`, of its image or else its label.
    """
    content = _load(Path(path), file_content(Path(path)))
    return _pick(Path(path), content, "image" if isinstance(content, dict) and "image" in content else "label")[1]


def encode_label(voxels: np.ndarray, affine: np.ndarray | None) -> bytes:
    """The bytes of a file of a label alone, with its affine if there is one."""
    import torch

    buffer = io.BytesIO()
    grid = {} if affine is None else {"affine": torch.tensor(affine, dtype=torch.float64)}
    torch.save({"label": torch.from_numpy(np.ascontiguousarray(voxels)), **grid}, buffer)
    return buffer.getvalue()


def _pick(path: Path, content: Any, key: str) -> tuple[np.ndarray, np.ndarray | None]:
    if not isinstance(content, dict) or key not in content:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"{path} has no key {key}, but {found or 'nothing'}: expected a dictionary {{image: [C, ...], label:"
            " [...]}; save it as that."
        )
    array = _to_array(path, key, content[key])
    whole = getattr(content.get("image"), "ndim", None)
    if key == "label" and array.ndim == whole and len(array) == 1:
        array = array[0]
    axes = array.ndim - (key == "image")
    if axes not in (2, 3) or (key == "label" and whole not in (None, axes + 1)):
        expected = "[C, H, W, D] or [C, H, W]" if key == "image" else "[H, W, D] or [H, W], the image's without C,"
        raise InputError(f"{path} holds the {key} as {list(array.shape)}: expected {expected}; save it again.")
    return array, _affine(path, content, axes)


def _load(path: Path, content: bytes) -> Any:
    import torch

    if content.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a pointer of Git LFS, not the image: fetch it with `git lfs pull`.")
    if not is_sound_zip(content):
        raise InputError(f"{path} is damaged or not a file of torch.save: copy it, or save it, again.")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, whose texts advise to run the code in the file
        raise _objects(path) from error


def _to_array(path: Path, key: str, tensor: Any) -> np.ndarray:
    import torch

    if type(tensor) is not torch.Tensor:  # MONAI's MetaTensor can be loaded only where MONAI is imported
        raise _objects(path)
    if tensor.is_complex() or tensor.is_quantized or tensor.layout != torch.strided:
        raise InputError(f"{path} holds the {key} as {tensor.dtype}, {tensor.layout}: expected plain real numbers.")
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()


def _objects(path: Path) -> InputError:
    return InputError(
        f"{path} holds objects other than tensors and numbers, which could run code when loaded: save a dictionary"
        " {image: tensor, label: tensor}, with .as_tensor() for a MetaTensor and torch.as_tensor() for an array."
    )


def _affine(path: Path, content: dict, axes: int) -> np.ndarray | None:
    name, shape = ("affine", (4, 4)) if content.get("affine") is not None else ("spacing", (axes,))
    if content.get(name) is None:
        return None
    try:
        values = np.asarray(content[name], dtype=float)
    except (TypeError, ValueError, RuntimeError):
        values = np.empty(0)
    if values.shape != shape:
        raise InputError(f"{path} has the {name} {list(values.shape)}: expected numbers {list(shape)}, in mm.")
    affine = values if name == "affine" else np.diag([*values, *[1.0] * (4 - axes)])
    require_box(path, name, affine)
    return affine
