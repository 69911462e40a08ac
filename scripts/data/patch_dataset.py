"""Data sets of prepared cases, computed once, and of random patches of them.

Deterministic preprocessing runs once per case and is cached in memory or on disk, so that loading a patch is only a
crop. Intensities are cached in half precision: its eleven bits are more than a scanner delivers, and it halves the
memory. They are rounded whatever the cache, so the cache changes no patch. Every patch is drawn from its own seed, so a
run is the same with any number of loader processes, and a resumed run the same as an uninterrupted one.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import set_track_meta
from monai.data.utils import pickle_hashing
from monai.transforms import Compose, Transform
from torch.utils.data import Dataset
from tqdm import tqdm

from scripts.data.datalist import entry_files, file_hash, name_entry
from scripts.data.images import voxel_ml
from scripts.data.imperfect_labels import IGNORED, draw_rater
from scripts.data.input_channels import WindowChannels
from scripts.distributed import is_first_process, local_rank, local_world_size
from scripts.errors import InputError
from scripts.files import remove_leftovers, unfinished_prefix
from scripts.parallel import available_cores
from scripts.progress import progress_bar

CACHES = ("memory", "disk", "none")
LIBRARIES = ("monai", "torch", "numpy", "scipy", "scikit-image", "SimpleITK")  # that prepare a case
MOST_WORKERS = 16  # each holds a case in single precision, some 0.6 GB of four channels at 1 mm
STORED_TYPES = "half precision, 32-bit indices; affines by scripts.data.nifti"  # part of a cached case's hash
CACHE_VERSION = "3"  # the folder of cases in the cache
FORMER_NAMES = re.compile("2|[0-9a-f]{32}")  # of what earlier versions cached: the folder of cases, or a case
HASHES = "sha256.json"  # of the files of a cached case
EMPTY_NPY_BYTES = 128  # bytes of an .npy file without elements, which cannot be mapped


class PreparedCases(Dataset):
    """The cases of a data list after deterministic preprocessing, as plain float32 tensors.

    Args:
        data: entries with absolute paths (`scripts.data.datalist.select_cases`).
        fallback: entries to use if `data` is empty.
        transform: deterministic transforms.
        cache: `memory` computes all cases at once and holds them; `disk` keeps them as .npy files under
            `cache_dir`, read by memory map; `none` computes a case each time it is requested.
        cache_dir: where `disk` keeps cases. Their names are hashes of files, transforms and versions, so a
            changed input is a new case, and several runs may share the folder; the processes of a machine share the
            work of preparing, and the memory.
        keep: the keys of a prepared case to cache, all of them tensors.
        workers: threads that prepare cases; None: one per core of this process's share, at most `MOST_WORKERS`.
        title: of the progress bar.

    Raises:
        InputError: `cache` is none of the three, or a case cannot be prepared.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Transform,
        cache: str = "memory",
        cache_dir: str | os.PathLike | None = None,
        keep: Sequence[str] = ("image", "label"),
        workers: int | None = None,
        title: str = "Caching cases",
        fallback: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        if cache not in CACHES:
            raise InputError(f"cache is '{cache}': expected {', '.join(CACHES)}.")
        self.data = [name_entry(entry) for entry in data or fallback]
        self.transform = transform if isinstance(transform, Compose) else Compose([transform])
        self.cache, self.keep = cache, tuple(keep)
        self.cache_dir = Path(cache_dir or Path(tempfile.gettempdir()) / "brain-tumour-cache")
        cores = available_cores() // local_world_size()
        self.workers, self.title = workers or min(MOST_WORKERS, max(1, cores)), title
        self.held: list[dict[str, Any]] = []
        self.versions = [*map(version, LIBRARIES), STORED_TYPES]  # read from files, so once for all cases

    def prepare(self) -> None:
        """Prepare and cache all cases; otherwise done when the first case is requested."""
        if self.cache == "none" or self.held:
            return
        if self.cache == "disk":
            self._remove_earlier()
            remove_leftovers(self.cache_dir / CACHE_VERSION)
        prepare = self.prepare_case if self.cache == "memory" else self._keep_on_disk
        first = len(self.data) * local_rank() // local_world_size()  # each process makes other cases first
        order = [*range(first, len(self.data)), *range(first)]
        with ThreadPoolExecutor(max_workers=self.workers) as pool:
            work = pool.map(prepare, [self.data[number] for number in order])
            shown = progress_bar(work, total=len(self.data), desc=self.title, unit="case", show=is_first_process())
            made = dict(zip(order, shown, strict=True))
        self.held = [made[number] for number in range(len(self.data))]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        case = self.stored_case(index)
        return {key: value.float() if _is_half(value) else value for key, value in case.items()}

    def stored_case(self, index: int) -> dict[str, Any]:
        """A case as cached: intensities in half precision, on disk by memory map."""
        if self.cache == "none":
            return self.prepare_case(self.data[index])
        self.prepare()
        if self.cache == "memory":
            return dict(self.held[index])
        return {"case": self.data[index]["case"], **_read(self.held[index]["folder"])}

    def prepare_case(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """A case as it is cached, in memory."""
        prepared = self.transform(dict(entry), threading=True)
        tensors = {key: _plain(prepared[key]) for key in self.keep}
        return {"case": entry["case"], "voxel_ml": torch.tensor([voxel_ml(prepared["image"])]), **tensors}

    def _keep_on_disk(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        folder = self.cache_dir / CACHE_VERSION / self.cache_name(entry)
        if folder.is_dir() and not _is_whole(folder):
            tqdm.write(f"{folder} in the cache is damaged: case {entry['case']} is prepared again.")
            shutil.rmtree(folder, ignore_errors=True)
        if not folder.is_dir():
            case = self.prepare_case(entry)
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=folder.parent, prefix=unfinished_prefix()) as unfinished:
                    inner = Path(unfinished, folder.name)
                    inner.mkdir()
                    _write(inner, case)
                    inner.rename(folder)
            except OSError as error:
                if not folder.is_dir():  # unless another run has cached the case meanwhile
                    raise InputError(
                        f"the cache {self.cache_dir} cannot be written ({error.strerror or error}): free space there,"
                        " or choose another cache_dir."
                    ) from error
        return {"folder": folder}

    def _remove_earlier(self) -> None:
        """Remove the cases that an earlier version cached."""
        for folder in self.cache_dir.glob("*"):
            if FORMER_NAMES.fullmatch(folder.name) and next(folder.glob("**/image.npy"), None):
                shutil.rmtree(folder, ignore_errors=True)

    def cache_name(self, entry: Mapping[str, Any]) -> str:
        """The folder of a case in the cache on disk: a hash of its files, the transforms and the versions."""
        files = [(name, Path(name).stat().st_size, Path(name).stat().st_mtime_ns) for name in entry_files(entry)]
        steps = self.transform.flatten().transforms
        recipe = pickle_hashing(steps).decode()
        pages = entry["image"], entry.get("label"), entry.get("labels")  # several cases may be pages of one file
        content = json.dumps([files, pages, self.versions, recipe, _hash_own_code(steps), self.keep])
        return hashlib.sha256(content.encode()).hexdigest()[:32]


def _hash_own_code(steps: Sequence[Any]) -> list[str]:
    """The hashes of the files that define the transforms of derived channels, which are pickled by name alone."""
    own = [entry["transform"] for step in steps for entry in getattr(step, "derived", {}).values()]
    modules = [sys.modules[getattr(one, "__module__", None) or type(one).__module__] for one in own]
    return [file_hash(file) for module in modules if (file := getattr(module, "__file__", None))]


def _plain(value: Any) -> torch.Tensor | list[torch.Tensor]:
    """Without metadata and in the smallest type; a list (the indices of each class) stays a list."""
    return [_packed(item) for item in value] if isinstance(value, list) else _packed(value)


def _packed(value: Any) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(value))
    if tensor.is_floating_point():
        return tensor.half() if _within(tensor, torch.finfo(torch.half)) else tensor.float()
    return tensor.int() if tensor.dtype == torch.int64 and _within(tensor, torch.iinfo(torch.int32)) else tensor


def _within(tensor: torch.Tensor, kind: torch.finfo | torch.iinfo) -> bool:
    return not tensor.numel() or bool(kind.min <= tensor.min() and tensor.max() <= kind.max)


def _is_half(value: Any) -> bool:
    return torch.is_tensor(value) and value.dtype == torch.half


def _write(folder: Path, case: Mapping[str, Any]) -> None:
    """Write one .npy per tensor, the items of a list numbered, and the hashes of the files."""
    for key, value in case.items():
        if key != "case":
            for name, tensor in (
                [(key, value)] if torch.is_tensor(value) else [(f"{key}.{i}", t) for i, t in enumerate(value)]
            ):
                np.save(folder / f"{name}.npy", tensor.numpy())
    (folder / HASHES).write_text(json.dumps({path.name: file_hash(path) for path in folder.glob("*.npy")}))


def _is_whole(folder: Path) -> bool:
    """Whether a case holds the files and the bytes that `_write` wrote."""
    try:
        hashes = json.loads((folder / HASHES).read_text(encoding="utf-8"))
        return hashes == {path.name: file_hash(path) for path in folder.glob("*.npy")}
    except (OSError, ValueError):
        return False


def _read(folder: Path) -> dict[str, Any]:
    """Read a case by memory map: untouched voxels are not read."""
    case: dict[str, Any] = {}
    for path in sorted(folder.glob("*.npy"), key=lambda path: (len(path.name), path.name)):  # item 10 after item 9
        key, _, item = path.stem.partition(".")
        try:
            tensor = torch.from_numpy(np.load(path, mmap_mode="c" if path.stat().st_size > EMPTY_NPY_BYTES else None))
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{path} in the cache was damaged or removed while it was used ({str(error)[:120]}): start again with"
                " --resume, which prepares that case again."
            ) from error
        if item:
            case.setdefault(key, []).append(tensor)
        else:
            case[key] = tensor
    return case


class PatchDataset(Dataset):
    """Patches cut at random from prepared cases; an index is (case number, seed) from `EpochSampler`.

    A third number of the index is the flat index of the voxel to centre the patch on: the crop then finds this voxel
    alone in each list of indices. At the rim of the volume, it moves the patch inwards.

    Images are in half precision; `scripts.data.augmentation.AugmentedBatch` makes them float32 on the device.

    Args:
        data: entries with absolute paths.
        transform: deterministic preprocessing, which also computes what `crop` needs (see `keep`).
        crop: a MONAI random crop that yields one patch, such as `RandCropByPosNegLabeld`; seeded for each patch.
        window_channels: of the place of a patch (`scripts.data.input_channels`), which the patch gets under that name.
        margin: voxels to add to a patch on each side, by axis, 0 beyond the volume; the draws are the same without.
        label_channels: of the label of one rater; a patch of a case with several has the label of one, drawn by its
            seed. None: every case has one.
        keep: the keys of a prepared case that `crop` needs besides image and label: flat indices of voxels.
        others: arguments of `PreparedCases`.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Transform,
        crop: Transform,
        keep: Sequence[str] = (),
        window_channels: WindowChannels | None = None,
        margin: Sequence[int] | None = None,
        label_channels: int | None = None,
        **others: Any,
    ) -> None:
        self.cases = PreparedCases(data, transform, keep=("image", "label", *keep), **others)
        self.data, self.keep = self.cases.data, tuple(keep)
        self.window_channels, self.margin, self.label_channels = window_channels, margin, label_channels
        self.crop = crop if isinstance(crop, Compose) else Compose([crop])

    def __len__(self) -> int:
        return len(self.cases)

    def labelled(self) -> list[int]:
        """The numbers of the cases that have any label."""
        every = (self.cases.stored_case(number)["label"] for number in range(len(self.cases)))
        return [number for number, label in enumerate(every) if bool(((label > 0) & (label != IGNORED)).any())]

    def __getitem__(self, index: tuple[int, ...]) -> dict[str, Any]:
        number, seed, *centre = index
        case = self.cases.stored_case(number)
        if centre:
            only = torch.tensor(centre)
            case |= {key: [only] * len(case[key]) if isinstance(case[key], list) else only for key in self.keep}
        set_track_meta(False)  # a patch does not need the affine, and keeping it costs more than the crop
        try:
            self.crop.set_random_state(seed=seed)
            cut = self.crop(case)
        finally:
            set_track_meta(True)
        patch = cut[0] if isinstance(cut, list) else cut
        image, label, volume = patch["image"], patch["label"], case["image"]
        start, size, middle_voxel, further = first_voxel(image, volume), list(image.shape[1:]), -1, {}
        if start is not None:
            middle = [first + length // 2 for first, length in zip(start, size, strict=True)]
            middle_voxel = int(np.ravel_multi_index(middle, volume.shape[1:]))
        elif self.window_channels or self.margin:
            raise InputError("coordinates, context and rotation_margin need a crop that does not change its patches.")
        if start is not None and self.margin:
            start = [first - more for first, more in zip(start, self.margin, strict=True)]
            size = [length + 2 * more for length, more in zip(size, self.margin, strict=True)]
            image, label = (cut_box(case[key], start, size) for key in ("image", "label"))
        if start is not None and self.window_channels:
            further["window_channels"] = self.window_channels(volume, start, size).to(image.dtype)
        return {
            # copies, since a view would send the whole volume through the loader's queue
            "image": image.clone(),
            "label": draw_rater(label, self.label_channels, seed).clone(),
            "case": case["case"],
            "seed": seed,
            "centre": middle_voxel,  # as in an index; -1: unknown
            **further,
        }


def cut_box(volume: torch.Tensor, start: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """The box [C, *size] of a volume [C, ...] from the voxel `start`, which may lie outside; 0 beyond the volume."""
    box = volume.new_zeros(len(volume), *size)
    ends = [
        (max(0, first), min(voxels, first + length))
        for first, length, voxels in zip(start, size, volume.shape[1:], strict=True)
    ]
    found = (slice(None), *(slice(low, high) for low, high in ends))
    inside = (slice(None), *(slice(low - first, high - first) for (low, high), first in zip(ends, start, strict=True)))
    box[inside] = volume[found]
    return box


def first_voxel(patch: torch.Tensor, volume: torch.Tensor) -> list[int] | None:
    """The place in the volume [C, ...] of the first voxel of a patch [C, ...] that a crop has cut from it.

    None if the patch is not a part of the volume's memory, because the crop has changed it.
    """
    if patch.untyped_storage().data_ptr() != volume.untyped_storage().data_ptr():
        return None
    place = np.unravel_index(int(patch.storage_offset() - volume.storage_offset()), volume.shape)
    return [int(axis) for axis in place[1:]]
