"""How do files become one tensor a case? One file a channel, or one that holds all channels; volumes and pictures."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, PILReader
from monai.transforms import LoadImage, MapTransform
from monai.utils import ensure_tuple
from PIL import Image

from scripts import pages
from scripts.errors import InputError

AFFINE_TOLERANCE = 1e-3  # mm; scanners and converters round the header to about this


class PageReader(PILReader):
    """MONAI's reader of pictures, for what `scripts.pages` reads: TIFF and its pages too, and no number is changed.

    Hand it to `LoadImage` with each call: a reader given at its making is only the first of those that it tries.
    """

    def read(self, data: str | os.PathLike | Sequence[str | os.PathLike], **_: Any) -> Image.Image:
        """The page of one file.

        Raises:
            InputError: see `scripts.pages.open_page`.
        """
        (name,) = ensure_tuple(data)
        return pages.open_page(name)


class LoadImageChannelsd(MapTransform):
    """Load each key as a float32 `MetaTensor` [C, ...] with the affine of its first file; a picture's is the identity.

    The colours of a picture are channels. One that is grey in colours counts as one channel where one is expected.
    The name contains "LoadImage" because deployment tools leave out the transforms that load by that name.

    Args:
        keys: `image`, and `label` where there is one.
        channels: names of the image's channels; a list of files must have as many, in this order, and so must the
            channels of a single file. Every other key is loaded as one channel.
        image_key: the key that has several channels.
        axes: how many the network sees, 2 or 3; None: any.

    Raises:
        InputError: a file is missing, damaged, not finite, has other axes, or does not lie on the grid of the others.
    """

    def __init__(
        self, keys: KeysCollection, channels: Sequence[str], image_key: str = "image", axes: int | None = None
    ) -> None:
        super().__init__(keys)
        self.axes = axes
        self.channels = list(channels)
        self.image_key = image_key
        self.load = LoadImage(image_only=True, ensure_channel_first=True, dtype=np.float32)
        self.pictures = PageReader()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the file names of each key by the tensor."""
        loaded = dict(data)
        for key in self.key_iterator(loaded):
            files = loaded[key] if isinstance(loaded[key], list | tuple) else [loaded[key]]
            names = self.channels if key == self.image_key else [str(key)]
            loaded[key] = self._stack([Path(file) for file in files], names)
        image = loaded.get(self.image_key)
        for key in self.key_iterator(loaded):
            if image is not None:
                _require_same_grid(image, loaded[key], str(image.meta["filename_or_obj"]), str(data[key]))
        return loaded

    def _stack(self, files: Sequence[Path], names: Sequence[str]) -> MetaTensor:
        tensors = [self._read(file) for file in files]
        for file, tensor in zip(files[1:], tensors[1:], strict=True):
            _require_same_grid(tensors[0], tensor, str(files[0]), str(file))
        stacked = torch.cat([tensor.as_tensor() for tensor in tensors])
        if names == self.channels and len(names) == 1 and pages.is_picture(files[0]):
            stacked = stacked[:1] if bool((stacked == stacked[:1]).all()) else stacked  # a label has no such excuse
        if len(stacked) != len(names):
            raise InputError(
                f"{files[0]} and its siblings hold {len(stacked)} channels: expected {len(names)} ({', '.join(names)});"
                " check the task's channels."
            )
        if self.axes not in (None, stacked.dim() - 1):
            raise InputError(
                f"{files[0]} has {stacked.dim() - 1} axes where the network sees {self.axes}: give patch_size and"
                " window_size as many numbers as the images have axes, or take other images."
            )
        return MetaTensor(stacked, meta=tensors[0].meta)

    def _read(self, file: Path) -> MetaTensor:
        if not pages.file_of(file).is_file():
            raise InputError(f"{file} does not exist: check the path, and dataset_dir if it comes from a data list.")
        try:
            tensor = self.load(str(file), reader=self.pictures if pages.is_picture(file) else None)
        except InputError:
            raise
        except Exception as error:  # each reader has its own set of errors for a damaged file
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise InputError(
                f"{file} cannot be read as an image ({reason[:200]}): it may be damaged or cut short; copy it again."
            ) from error
        if not bool(torch.isfinite(tensor.as_tensor()).all()):
            raise InputError(f"{file} holds NaN or infinite voxels: expected finite intensities; convert it again.")
        return tensor


def _require_same_grid(first: MetaTensor, other: MetaTensor, name: str, other_name: str) -> None:
    if first.shape[1:] != other.shape[1:]:
        raise InputError(
            f"{other_name} has shape {tuple(other.shape[1:])} but {name} has {tuple(first.shape[1:])}: all files of"
            " a case must lie on one grid; register and resample them first."
        )
    if not np.allclose(first.affine, other.affine, atol=AFFINE_TOLERANCE):
        raise InputError(
            f"{other_name} has another affine than {name}: all files of a case must lie on one grid; register and"
            " resample them first."
        )
