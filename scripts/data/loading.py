"""Loading of a case as one tensor: one file per channel or one of them all, named or found; volumes and pictures."""

import os
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, NibabelReader, PILReader
from monai.data.utils import correct_nifti_header_if_necessary, is_no_channel
from monai.transforms import MapTransform
from monai.transforms.io.array import switch_endianness
from monai.utils import ensure_tuple
from monai.utils.enums import MetaKeys
from PIL import Image

from scripts.data import pictures
from scripts.data.case_files import channels_of_file, image_of_case
from scripts.data.images import corner_distance, grid_tolerance, open_nifti
from scripts.errors import InputError

INTEGER_TYPES = (np.uint8, np.int8, np.int16, np.int32)  # numbers that travel to the device as they are in the file


class WholeFileReader(NibabelReader):
    """MONAI's reader of NIfTI files, for files that `scripts.data.images` has read and verified to their end."""

    def read(self, data: str | os.PathLike | Sequence[str | os.PathLike], **_: Any) -> nib.Nifti1Image:
        """The image in one file.

        Raises:
            InputError: see `scripts.data.images.open_nifti`.
        """
        self.filenames = (name,) = ensure_tuple(data)
        return correct_nifti_header_if_necessary(open_nifti(name))


class PageReader(PILReader):
    """MONAI's reader of pictures, for what `scripts.data.pictures` reads: TIFF and its pages, numbers unchanged."""

    def read(  # type: ignore[override]  # MONAI's takes arrays too
        self, data: str | os.PathLike | Sequence[str | os.PathLike], **_: Any
    ) -> Image.Image:
        """The page of one file.

        Raises:
            InputError: see `scripts.data.pictures.open_page`.
        """
        (name,) = ensure_tuple(data)
        return pictures.open_page(name)


class LoadImageChannelsd(MapTransform):
    """Load each key as a float32 `MetaTensor` [C, ...] with the affine of its first file; a picture's is the identity.

    An image is a list of files, one a channel; a file of all channels; a folder with the files of one case; or the
    file of one channel, beside which the others lie. The colours of a picture are channels. One that is grey in
    colours counts as one channel where one is expected. Files are read side by side, and whole numbers become float32
    only on the device.
    The name contains "LoadImage" because deployment tools leave out the transforms that load by that name.

    Args:
        keys: `image`, and `label` where there is one.
        channels: names of the image's channels; a list of files must have as many, in this order, and so must the
            channels of a single file. Every other key is loaded as one channel.
        image_key: the key that has several channels.
        axes: how many the network sees, 2 or 3; None: any.
        channel_files: for each channel its file patterns (`scripts.data.case_files`), by which files are found, and a
            list is refused whose names tell another order; None: neither.
        device: where the tensors go, and with them the transforms that follow.

    Raises:
        InputError: a file is missing, damaged, not finite, has other axes, does not lie on the grid of the others, or
            is named like another channel.
    """

    def __init__(
        self,
        keys: KeysCollection,
        channels: Sequence[str],
        image_key: str = "image",
        axes: int | None = None,
        channel_files: Mapping[str, Sequence[str]] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(keys)
        self.axes = axes
        self.channels = list(channels)
        self.channel_files = {name: (channel_files or {}).get(name, []) for name in self.channels}
        self.image_key = image_key
        self.device = device

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the file names of each key by the tensor."""
        loaded = dict(data)
        for key in self.key_iterator(loaded):
            if key == self.image_key:
                loaded[key] = self._load_image(data[key])
                if isinstance(data[key], list | tuple) or Path(data[key]).is_dir():
                    loaded.setdefault("result_extension", ".nii.gz")  # MONAI Label takes it from the name of a file
            else:
                loaded[key] = self._stack([Path(file) for file in ensure_tuple(data[key])], [str(key)])
        image = loaded.get(self.image_key)
        for key in self.key_iterator(loaded):
            if image is not None:
                _require_same_grid(image, loaded[key], str(image.meta["filename_or_obj"]), str(data[key]))
        return loaded

    def _load_image(self, named: str | os.PathLike | list[str] | tuple[str, ...]) -> MetaTensor:
        if not isinstance(named, list | tuple):
            named = self._find(Path(named))
        files = [Path(file) for file in ensure_tuple(named)]
        if len(files) == len(self.channels):
            for file, channel in zip(files, self.channels, strict=True):
                if (known := channels_of_file(file, self.channel_files)) and channel not in known:
                    raise InputError(
                        f"{file} stands where channel {channel} is expected, but is named like {' or '.join(known)}:"
                        f" the order is {', '.join(self.channels)}; change the list, or the patterns in channel_files."
                    )
        return self._stack(files, self.channels)

    def _find(self, path: Path) -> str | list[str] | Path:
        """The file itself, or those of all channels if it is a folder or the file of one of several channels."""
        several = len(self.channels) > 1 and path.is_file() and not pictures.is_picture(path)
        if path.is_dir() or (several and channels_of_file(path, self.channel_files)):
            return image_of_case(path, self.channels, self.channel_files) or path
        return path

    def _stack(self, files: Sequence[Path], names: Sequence[str]) -> MetaTensor:
        with ThreadPoolExecutor(len(files)) as pool:  # unpacking and checking release Python's lock
            tensors = list(pool.map(_read, files))
        for file, tensor in zip(files[1:], tensors[1:], strict=True):
            _require_same_grid(tensors[0], tensor, str(files[0]), str(file))
        parts = [tensor.as_tensor() for tensor in tensors]
        stacked = torch.empty(sum(map(len, parts)), *parts[0].shape[1:], device=self.device)
        for place, part in zip(stacked.split([*map(len, parts)]), parts, strict=True):
            place.copy_(part.to(self.device))  # as it lies in the file; axes and numbers change on the device
        if names == self.channels and len(names) == 1 and pictures.is_picture(files[0]):
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


def _read(file: Path) -> MetaTensor:
    """One file [C, ...]: whole numbers in their own type where torch has it, anything else in float32."""
    if not pictures.file_of_page(file).is_file():
        raise InputError(f"{file} does not exist: check the path, and dataset_dir if it comes from a data list.")
    reader = PageReader() if pictures.is_picture(file) else WholeFileReader()
    try:
        array, meta = reader.get_data(reader.read(str(file)))
    except InputError:
        raise
    except Exception as error:  # each reader has its own set of errors for a damaged file
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{file} cannot be read as an image ({reason[:200]}): it may be damaged or cut short; copy it again."
        ) from error
    kept = array.dtype in INTEGER_TYPES
    array = np.require(array, None if kept else np.float32, "W")  # torch warns of arrays that cannot be written
    if not kept and not np.isfinite(array).all():
        raise InputError(f"{file} holds NaN or infinite voxels: expected finite intensities; convert it again.")
    voxels, channel = torch.from_numpy(array), meta[MetaKeys.ORIGINAL_CHANNEL_DIM]
    voxels = voxels[None] if is_no_channel(channel) else voxels.movedim(channel, 0)
    return MetaTensor(voxels, meta={**switch_endianness(meta, "<"), "filename_or_obj": str(file)})


def _require_same_grid(first: MetaTensor, other: MetaTensor, name: str, other_name: str) -> None:
    if first.shape[1:] != other.shape[1:]:
        raise InputError(
            f"{other_name} has shape {tuple(other.shape[1:])} but {name} has {tuple(first.shape[1:])}: all files of"
            " a case must lie on one grid; register and resample them first."
        )
    affine, other_affine = (np.asarray(tensor.affine) for tensor in (first, other))
    if corner_distance(first.shape[1:], affine, other_affine) > grid_tolerance(affine):
        raise InputError(
            f"{other_name} has another affine than {name}: all files of a case must lie on one grid; register and"
            " resample them first."
        )
