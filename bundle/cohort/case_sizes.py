"""Size, intensities and components of each scan of a cohort, kept next to the data list."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser
from monai.transforms import Compose, CropForegroundd

from bundle.cohort.fingerprint import steps_as_stored
from scripts.data import datalist as lists
from scripts.data.images import connected_components, voxel_ml
from scripts.data.intensity_statistics import steps_before_normalization
from scripts.files import write_json
from scripts.parallel import map_in_processes
from scripts.scoring.case import region_mask

LEVELS = np.linspace(0, 100, 201)  # percentiles of a channel that are kept
FOLDER = ".fingerprint"  # next to the list


@dataclass(frozen=True)
class CaseSize:
    """What planning needs of a scan, in RAS axes."""

    case: str
    patient: str
    spacing: tuple[float, ...]  # mm (or pixels) by axis
    shape: tuple[int, ...]  # voxels by axis after the background is cut off
    kept: float  # share of the voxels that this keeps
    components: dict[str, list[float]]  # ml (of pictures: thousands of pixels) by region, the largest first
    levels: list[list[float]]  # by channel: percentiles `LEVELS` of the voxels in any region; empty without any

    def volume(self, region: str) -> float:
        """Of a region, in ml."""
        return sum(self.components[region])


def read_case_sizes(
    config: ConfigParser, content: Mapping[str, Any], datalist: Path, dataset_dir: Path, workers: int | None = None
) -> list[CaseSize]:
    """The sizes of all labelled cases but those held out for the test, read in several processes.

    A case that was read before is taken from the list's folder, as long as the hashes of its files in the list, the
    settings of the reading and this module are the same. Each is written when it has been read, so that a reading that
    was stopped continues.

    Args:
        config: train.yaml with its task, for the reading of a case.
        content: of the list.
        datalist: its file.
        dataset_dir: the folder that the list's paths start from.
        workers: processes; None: one per core.

    Raises:
        InputError: a case cannot be read, or the folder cannot be written.
    """
    regions = config.get_parsed_content("regions")
    rules = [config["preprocessing"], regions, *(config[key] for key in ("channels", "normalize", "hu_window"))]
    common = lists.file_hash(__file__) + json.dumps(rules, sort_keys=True)
    folder = datalist.parent / FOLDER / datalist.stem
    before = steps_before_normalization(config.get_parsed_content("preprocessing"))
    crop = next(step for step in before.transforms if isinstance(step, CropForegroundd))
    measure = partial(_measure_and_keep, load=steps_as_stored(before), crop=crop, regions=regions, folder=folder)
    found, waiting = {}, []
    labelled = lists.select_cases(content, dataset_dir, "labelled")
    for entry, absolute in zip(content["training"], labelled, strict=True):
        if entry.get("split") != "test":
            own = json.dumps([content["hashes"].get(name) for name in lists.entry_files(entry)])
            key = hashlib.sha256((common + own).encode()).hexdigest()
            found[entry["case"]] = _read_kept(folder / f"{entry['case']}.json", key)
            waiting += [(absolute, key)] if found[entry["case"]] is None else []
    for size in map_in_processes(measure, waiting, workers, "reading the cohort", "case") if waiting else ():
        found[size.case] = size
    return [size for size in found.values() if size is not None]


def measure_case(
    case: str, patient: str, voxels: int, image: Any, label: np.ndarray, regions: Mapping[str, Sequence[int]]
) -> CaseSize:
    """The sizes of a cropped image [C, ...] with metadata and its label map [...].

    Args:
        case: its name.
        patient: of the case.
        voxels: of the image before the crop.
        image: a `MetaTensor`.
        label: on the same grid.
        regions: name to label values.
    """
    volumes = {}
    for name, values in regions.items():
        sizes = np.sort(connected_components(region_mask(label, values))[1])[::-1]
        volumes[name] = [float(f"{size * voxel_ml(image):.4g}") for size in sizes]
    inside = region_mask(label, sorted({value for values in regions.values() for value in values}))
    seen = [channel[inside].astype(np.float64) for channel in image.numpy(force=True)] if inside.any() else []
    return CaseSize(
        case=case,
        patient=patient,
        spacing=tuple(round(float(size), 4) for size in image.pixdim[: label.ndim]),
        shape=tuple(label.shape),
        kept=label.size / voxels,
        components=volumes,
        levels=[[float(f"{x:.6g}") for x in np.percentile(values, LEVELS)] for values in seen],
    )


def pooled_percentiles(sizes: Sequence[CaseSize], percentiles: Sequence[float]) -> list[float]:
    """Percentiles of the first channel in the regions, each case with equal weight."""
    return np.percentile(np.concatenate([one.levels[0] for one in sizes if one.levels]), percentiles).tolist()


def _measure_and_keep(
    item: tuple[Mapping[str, Any], str],
    load: Compose,
    crop: CropForegroundd,
    regions: Mapping[str, Sequence[int]],
    folder: Path,
) -> CaseSize:
    entry, key = item
    loaded = load(dict(entry))
    voxels = loaded["label"][0].numel()
    loaded = crop(loaded)
    label = loaded["label"][0].numpy(force=True).round().astype(int)
    size = measure_case(entry["case"], entry["patient"], voxels, loaded["image"], label, regions)
    write_json(folder / f"{entry['case']}.json", {"key": key, **asdict(size)})
    return size


def _read_kept(path: Path, key: str) -> CaseSize | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tuples = {name: tuple(content[name]) for name in ("spacing", "shape")}
        return CaseSize(**{**content, **tuples}) if content.pop("key") == key else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
