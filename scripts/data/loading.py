"""Loading of a case, volume or picture, as one tensor: from one file per channel, or from one file of all channels."""

import json
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
from monai.data.utils import is_no_channel
from monai.transforms import MapTransform
from monai.transforms.io.array import switch_endianness
from monai.utils import ensure_tuple
from monai.utils.enums import MetaKeys
from PIL import Image

from scripts.data import pictures, tensor_files
from scripts.data.case_files import channels_of_file, image_of_case
from scripts.data.check_results import TO_PREPARE
from scripts.data.images import read_volume, require_label_map
from scripts.data.missing_channels import describe_costs, fill_channels
from scripts.data.nifti import corner_distance, grid_tolerance, print_notes
from scripts.data.profile import read_profile
from scripts.data.scan_checks import NOTE, ScanCheck, check_scan, is_served, refusals_as_responses, result_of_checks
from scripts.errors import InputError

HEADER_NOTES = "header_notes"  # the key of a tensor's metadata with the notes on its files' headers, one per line
INTEGER_TYPES = (np.uint8, np.int8, np.int16, np.int32)  # copied to the device in the file's own type


class WholeFileReader(NibabelReader):
    """MONAI's reader of NIfTI files, for what `read_volume` reads: verified to its end, with its affine."""

    def read(self, data: str | os.PathLike | Sequence[str | os.PathLike], **_: Any) -> nib.Nifti2Image:
        """The image in one file, under a header that holds the affine alone.

        Raises:
            InputError: see `scripts.data.images.read_volume`.
        """
        self.filenames = (name,) = ensure_tuple(data)
        file = read_volume(name)
        print_notes(name, file.notes)
        self.notes = file.notes
        return nib.Nifti2Image(file.voxels, file.affine, dtype=file.voxels.dtype)


class PageReader(PILReader):
    """MONAI's reader of pictures, on top of `scripts.data.pictures`: TIFF and its pages, values unchanged."""

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

    An image is a list of files, one per channel; a file of all channels; a folder with the files of one case; or the
    file of one channel, with the others in the same folder. The colours of a picture are channels. A colour picture
    that is all grey counts as one channel if one is expected. Files are read in parallel, and integers become float32
    only on the device. The name contains "LoadImage" because deployment tools recognise loading transforms by it.

    Args:
        keys: `image`, and `label` if there is one.
        channels: names of the image's channels, in the order of the files in a list or of the channels in a file.
            Every other key is loaded as one channel; of an entry with `labels`, as one per rater.
        image_key: the key that has several channels.
        axes: of the images; None: any.
        channel_files: the file name patterns of each channel.
        device: of the tensors.
        refuse_constant: refuse a volume with a channel of one value.
        check_scans: check each volume (`scripts.data.scan_checks`); the results are under `checks`, as JSON.
        profile: the file of the profile of the training cases, which checked scans are compared with; None: none.
        skull_stripped: whether the scans were that the network was trained on; None: unknown.
        without: names of channels that the scan lacks, or that are left out of it; they are 0 everywhere.
        channel_costs: what the lack of channels costs in Dice, for the note on it (`describe_costs`).

    Raises:
        InputError: a file is missing, damaged, not finite, a volume of one value, has other axes, is not on the grid
            of the others, or is named like another channel; or a check refuses the scan. MONAI Label responds with
            status 422 and the sentence.
    """

    def __init__(
        self,
        keys: KeysCollection,
        channels: Sequence[str],
        image_key: str = "image",
        axes: int | None = None,
        channel_files: Mapping[str, Sequence[str]] | None = None,
        device: str | torch.device = "cpu",
        refuse_constant: bool = False,
        check_scans: bool = False,
        profile: str | os.PathLike | None = None,
        skull_stripped: bool | None = None,
        without: Sequence[str] = (),
        channel_costs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(keys)
        self.profile = read_profile(profile) if profile is not None and check_scans else None
        self.without = [name for name in channels if name in ensure_tuple(without)]
        self.channel_costs = channel_costs or {}
        self.axes, self.refuse_constant, self.check_scans = axes, refuse_constant, check_scans
        self.skull_stripped = skull_stripped
        self.channels = list(channels)
        self.given = [name for name in self.channels if name not in self.without]
        self.channel_files = {name: (channel_files or {}).get(name, []) for name in self.channels}
        self.image_key = image_key
        self.device = device

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the file names of each key by the tensor."""
        with refusals_as_responses():
            return self._load(data)

    def _load(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        loaded = dict(data)
        for key in self.key_iterator(loaded):
            if key == self.image_key:
                given, files = self.load_image(data[key])
                if self.check_scans and given.dim() == 4:
                    loaded |= self._check(given, files)
                loaded[key] = fill_channels(given, self.channels, self.without)
                if isinstance(data[key], list | tuple) or Path(data[key]).is_dir():
                    loaded.setdefault("result_extension", ".nii.gz")  # MONAI Label takes it from a file's name
            else:
                drawn = data.get("labels") if key == "label" else None
                files = [Path(file) for file in (drawn.values() if drawn else ensure_tuple(data[key]))]
                loaded[key] = self._stack(files, [str(key)] * (len(drawn) if drawn else 1), "label")
        image = loaded.get(self.image_key)
        for key in self.key_iterator(loaded):
            if image is not None:
                _require_same_grid(image, loaded[key], str(image.meta["filename_or_obj"]), str(data[key]))
                # near 45 degrees, affines that differ by rounding would be reoriented to different axes
                loaded[key].affine = image.affine
        return loaded

    def _check(self, image: MetaTensor, files: Sequence[Path]) -> dict[Hashable, Any]:
        """The entries that hold what the checks of an image found."""
        notes = image.meta[HEADER_NOTES].splitlines()
        voxels, affine = image.numpy(force=True), np.asarray(image.affine)
        scan_checks = check_scan(voxels, affine, self.given, files, notes, self.profile, self.skull_stripped)
        if self.without:
            scan_checks.append(ScanCheck("missing channels", NOTE, describe_costs(self.without, self.channel_costs)))
        checks = [check.as_mapping() for check in scan_checks]
        found: dict[Hashable, Any] = {"checks": json.dumps(checks)}
        return {**found, "result": result_of_checks(checks)} if is_served() else found

    def find_files(self, named: str | os.PathLike | list[str] | tuple[str, ...]) -> list[Path]:
        """The files of an image: one per channel, or one of all channels."""
        if named == "":
            raise InputError("there is no scan of this name on the server: GET /datastore/?output=all lists the scans.")
        if not isinstance(named, list | tuple):
            named = self._find(Path(named))
        return [Path(file) for file in ensure_tuple(named)]

    def load_image(self, named: str | os.PathLike | list[str] | tuple[str, ...]) -> tuple[MetaTensor, Sequence[Path]]:
        """The image of a case, unchecked, and its files."""
        files = self.find_files(named)
        if len(files) == len(self.channels):
            for file, channel in zip(files, self.channels, strict=True):
                if (known := channels_of_file(file, self.channel_files)) and channel not in known:
                    raise InputError(
                        f"{file} is in the place of channel {channel}, but is named like {' or '.join(known)}: the"
                        f" order is {', '.join(self.channels)}; change the list, or the patterns in channel_files."
                    )
            files = [file for file, name in zip(files, self.channels, strict=True) if name in self.given]
        return self._stack(files, self.given, "image"), files

    def _find(self, path: Path) -> str | list[str] | Path:
        """The file itself, or the files of all channels for a folder or for the file of one of several channels."""
        several = len(self.channels) > 1 and path.is_file() and not pictures.is_picture(path)
        if path.is_dir() or (several and channels_of_file(path, self.channel_files)):
            return image_of_case(path, self.given, self.channel_files) or path
        return path

    def _stack(self, files: Sequence[Path], names: Sequence[str], key: str) -> MetaTensor:
        """The channels of these names, of `image` or `label`, from a file each or from one file of all channels."""
        with ThreadPoolExecutor(len(files)) as pool:  # decompression and checksums release Python's lock
            tensors = list(pool.map(lambda file: _read(file, key), files))
        if key == "label":
            maps, *shape = tensors[0].shape
            require_label_map([*shape, maps] if maps > 1 else shape, files[0])
        for file, tensor in zip(files[1:], tensors[1:], strict=True):
            hint = f" ({TO_PREPARE})" if self.check_scans and names == self.channels else ""
            _require_same_grid(tensors[0], tensor, str(files[0]), str(file), hint)
        parts = [tensor.as_tensor() for tensor in tensors]
        stacked = torch.empty(sum(map(len, parts)), *parts[0].shape[1:], device=self.device)
        for place, part in zip(stacked.split([*map(len, parts)]), parts, strict=True):
            place.copy_(part.to(self.device))  # in the file's memory order and type, which change on the device
        if key == "image" and len(self.channels) == 1 and pictures.is_picture(files[0]):
            stacked = stacked[:1] if bool((stacked == stacked[:1]).all()) else stacked  # not for a label
        if key == "image" and self.without and len(stacked) == len(self.channels):  # one file of all channels
            stacked = stacked[[self.channels.index(name) for name in names]]
        if len(stacked) != len(names):
            raise InputError(
                f"{files[0]} and its siblings hold {len(stacked)} channels: expected {len(names)} ({', '.join(names)});"
                " check the task's channels."
            )
        if self.axes not in (None, stacked.dim() - 1):
            raise InputError(
                f"{files[0]} has {stacked.dim() - 1} axes, the network expects {self.axes}: give patch_size and"
                " window_size one number per axis of the images, or use other images."
            )
        if self.refuse_constant and key == "image" and stacked.dim() == 4:
            _require_content(stacked, files, names)
        notes = dict.fromkeys(line for tensor in tensors for line in tensor.meta[HEADER_NOTES].splitlines())
        return MetaTensor(stacked, meta={**tensors[0].meta, HEADER_NOTES: "\n".join(notes)})


def _require_content(volume: torch.Tensor, files: Sequence[Path], names: Sequence[str]) -> None:
    """Refuse a volume [C, H, W, D] with a channel of one value."""
    low, high = volume.flatten(1).aminmax(dim=1)
    if len(flat := (low == high).nonzero().flatten()):
        channel = int(flat[0])
        file = files[channel] if len(files) == len(names) else files[0]
        raise InputError(
            f"{file}: channel {names[channel]} holds nothing but the value {float(low[channel]):g} (shape"
            f" {tuple(volume.shape[1:])}): expected a scan; export it again, or leave the case out."
        )


def _read(file: Path, key: str) -> MetaTensor:
    """One file [C, ...], of a `.pt` file this key: integers in their own type if torch has it, else in float32."""
    if not pictures.file_of_page(file).is_file():
        raise InputError(f"{file} does not exist: check the path, and dataset_dir if it comes from a data list.")
    reader = PageReader() if pictures.is_picture(file) else WholeFileReader()
    try:
        if tensor_files.is_tensor_file(file):
            array, affine = tensor_files.read_tensor(file, key)
            meta: dict[Any, Any] = {"affine": np.eye(4) if affine is None else affine}
            meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = 0 if key == "image" else "no_channel"
        else:
            array, meta = reader.get_data(reader.read(str(file)))
    except InputError:
        raise
    except Exception as error:  # each reader raises its own errors for a damaged file
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{file} cannot be read as an image ({reason[:200]}): it may be damaged or truncated; copy it again."
        ) from error
    kept = array.dtype in INTEGER_TYPES
    array = np.require(array, None if kept else np.float32, "W")  # torch warns about read-only arrays
    if not kept and not np.isfinite(array).all():
        raise InputError(f"{file} holds NaN or infinite voxels: expected finite intensities; convert it again.")
    voxels, channel = torch.from_numpy(array), meta[MetaKeys.ORIGINAL_CHANNEL_DIM]
    voxels = voxels[None] if is_no_channel(channel) else voxels.movedim(channel, 0)
    notes = "\n".join(getattr(reader, "notes", ()))
    return MetaTensor(voxels, meta={**switch_endianness(meta, "<"), "filename_or_obj": str(file), HEADER_NOTES: notes})


def _require_same_grid(first: MetaTensor, other: MetaTensor, name: str, other_name: str, hint: str = "") -> None:
    if first.shape[1:] != other.shape[1:]:
        raise InputError(
            f"{other_name} has shape {tuple(other.shape[1:])} but {name} has {tuple(first.shape[1:])}: all files of"
            f" a case must be on one grid; register and resample them first{hint}."
        )
    affine, other_affine = (np.asarray(tensor.affine) for tensor in (first, other))
    if corner_distance(first.shape[1:], affine, other_affine) > grid_tolerance(affine, other_affine):
        raise InputError(
            f"{other_name} has another affine than {name}: all files of a case must be on one grid; register and"
            f" resample them first{hint}."
        )
