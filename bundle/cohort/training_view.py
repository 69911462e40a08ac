"""The input of training: settings for a data list, and patches, cut and augmented."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.data.utils import list_data_collate

from bundle.cohort.fingerprint import Choice
from bundle.cohort.tasks import TASKS, choose_task, known_tasks
from scripts.data.patch_dataset import PatchDataset
from scripts.errors import InputError
from scripts.progress import progress_bar

TRAIN = "configs/train.yaml"


def read_training_config(content: Mapping[str, Any], overlays: Sequence[str] | None) -> ConfigParser:
    """train.yaml overridden by tasks, or, without any, by the channels, labels and regions of the data list."""
    if not Path(TRAIN).is_file():
        raise InputError(f"{Path.cwd()} has no {TRAIN}: run this from the repository's root.")
    config = ConfigParser()
    config.read_config([TRAIN, *(str(_overlay(name)) for name in overlays or [])])
    config.update({"device": "cpu", "num_workers": 0, "cache": "memory", "world_size": 1, "rank": 0})
    config.parse()  # macros become values
    if overlays is None:
        keys = ("channels", "label_scheme", "labels", "regions", "labels_out", "labels_fill", "ignore")
        patch_size = config["patch_size"][: content.get("dimensions", 3)]
        config.update({"patch_size": patch_size, **{key: content[key] for key in keys if key in content}})
        config.parse()
    return config


def _overlay(name: str) -> Path:
    if Path(name).suffix not in (".yaml", ".yml"):
        return TASKS / f"{choose_task(name, known_tasks()).name}.yaml"
    if not Path(name).is_file():
        raise InputError(f"--task {name} does not exist: give a name of configs/tasks/ or a YAML file.")
    return Path(name)


def training_dataset(
    config: ConfigParser,
    entries: Sequence[dict[str, Any]],
    choice: Choice,
    statistics: Sequence[dict[str, Any]] | None,
    seed: int,
) -> PatchDataset:
    """The data set of training for these cases, with absolute paths; `statistics` are for scope `dataset`."""
    method, scope = choice
    config.update({"normalize": method, "normalize_scope": scope, "intensity_statistics": statistics, "seed": seed})
    config["train"]["dataset"]["data"] = list(entries)
    config.parse()  # again, with these cases and this normalisation
    return config.get_parsed_content("train#dataset")


def cut_training_patches(config: ConfigParser, dataset: PatchDataset, count: int) -> list[dict[str, Any]]:
    """Patches as the network gets them in training: case, image [C, ...] and label [R, ...]."""
    augment = config.get_parsed_content("train#trainer#prepare_batch")
    dataset.cases.prepare()
    patches, drawn = [], itertools.islice(_endless(config), count)
    for index in progress_bar(drawn, total=count, desc="cutting", unit="patch"):
        image, label = augment(list_data_collate([cut := dataset[index]]), "cpu")
        patches.append({"case": cut["case"], "image": image[0].numpy(), "label": label[0].numpy()})
    return patches


def _endless(config: ConfigParser) -> Iterator[tuple[int, int]]:
    sampler = config.get_parsed_content("train#sampler")
    for epoch in itertools.count():
        sampler.set_epoch(epoch)
        yield from sampler
