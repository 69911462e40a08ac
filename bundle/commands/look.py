"""What will the network see? The `look` command: the pictures to look at before any training.

The same cases under several normalisations, what the cohort is like, and patches as training cuts and augments them.
Patients set aside for the test are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser
from monai.data.utils import list_data_collate
from monai.transforms import Compose, CropForegroundd, Spacingd
from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from bundle.cohort.fingerprint import Choice, ClassFrequency, Example, Record, class_frequencies, example, record
from bundle.cohort.recognise import TASKS, choose_task, known_tasks
from bundle.drawing.look_pages import cohort_page, normalization_page, patch_page
from bundle.drawing.slices import evenly_spaced as spread
from scripts.data import datalist as lists
from scripts.data.intensity_statistics import before_normalization, statistics_of, voxels_of_cases
from scripts.data.normalization import METHODS, require_possible
from scripts.errors import InputError

TRAIN = "configs/train.yaml"
AIR = 0.3  # a share of one value that no tissue has


def look(
    datalist: str,
    out: str = "look",
    dataset_dir: str | None = None,
    task: str | None = None,
    normalize: str = ",".join(METHODS),
    scope: str = "volume",
    cases: int = 4,
    patches: int = 12,
    cohort: int = 100,
    seed: int = 0,
) -> None:
    """Draw normalisations, the cohort and augmented patches: the pictures to look at before any training.

    One page a channel and scope (the same cases by each method, their histograms beneath), one on the cohort
    (intensities, spacing, size, class frequencies), one of patches as the network sees them. The numbers are printed.
    Patients set aside for the test are left out. Run it from the repository's root.

    Examples:
        python -m bundle look datalist.json --dataset_dir /data/BraTS2021 --task brats
        python -m bundle look datalist.json --dataset_dir /data --normalize zscore_nonzero,clahe --scope volume,slice
        python -m bundle look datalist.json --dataset_dir /data --task phantom,configs/recipes/class_ratios.yaml

    Args:
        datalist: the data list (`python -m bundle prepare`).
        out: the folder to write to; pages of an earlier look are replaced.
        dataset_dir: the folder that the list's paths start from; by default the one that holds the list.
        task: names of configs/tasks/ or YAML files to lay over train.yaml, with commas between; by default channels,
            labels and regions are the list's, everything else is train.yaml's.
        normalize: methods, with commas between: zscore_nonzero, zscore, minmax, percentile, histogram, clahe. Patches
            are normalised by the first.
        scope: what they look at, with commas between: volume, slice, dataset. Patches have the first.
        cases: how many to draw, spread over the list.
        patches: how many to draw, cut from as many training cases.
        cohort: how many cases to read for the cohort page and for scope dataset, spread over the list; 0 for all.
        seed: of patches and augmentation.

    Raises:
        InputError: an option or the list is wrong, a file cannot be read, or `out` cannot be written.
    """
    for name, value, least in (("cases", cases, 1), ("patches", patches, 1), ("cohort", cohort, 0), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"--{name} is {value!r}: give a whole number of {least} or more.")
    choices = _choices(_listed(normalize), _listed(scope))
    content = lists.read(str(datalist))
    root = Path(str(datalist)).parent if dataset_dir is None else Path(str(dataset_dir))
    config = training_config(content, None if task is None else _listed(task))
    ask = config.get_parsed_content
    lists.require_same(content, ask("channels"), ask("label_scheme"), ask("labels"))
    shown = content | {"training": [entry for entry in content["training"] if entry.get("split") != "test"]}
    known, teaching = lists.select(shown, root, "labelled"), lists.select(shown, root, "training", ask("fold"))
    lists.check_files(shown, shown["training"], root, hashes=False)

    before = before_normalization(ask("preprocessing"))
    read = spread(known, cohort or len(known))
    records = _records(before, read, ask("labels_fill"))
    statistics = _statistics(before, spread(teaching, cohort or len(teaching)), choices)
    labelled = [entry for entry, record in zip(read, records, strict=True) if record.has_label] or read
    examples = _examples(before, spread(labelled, cases), choices, statistics, ask("labels_fill"))
    channels, regions, spacing, patch_size = ask("channels"), ask("regions"), ask("spacing"), ask("patch_size")
    frequencies = (
        class_frequencies(records, {name: [value] for name, value in ask("labels").items()}),
        class_frequencies(records, regions),
    )
    cut = training_patches(config, spread(teaching, patches), choices[0], statistics.get(choices[0][0]), patches, seed)

    folder, unit = Path(str(out)), content.get("unit", "mm")
    photographs = unit != "mm"
    about = f"{content.get('name', Path(str(datalist)).stem)}: {len(records)} of {len(known)} cases"
    pages = _normalization_pages(folder, channels, examples, choices, photographs)
    spacing = spacing or np.median([record.spacing for record in records], axis=0)
    cohort_page(folder / "cohort.png", about, records, channels, frequencies, np.multiply(patch_size, spacing), unit)
    patch_page(folder / "patches.png", cut, channels, list(regions), choices[0], photographs)
    _print_cohort(about, records, channels, frequencies, unit)
    for page in [*pages, folder / "cohort.png", folder / "patches.png"]:
        print(f"written: {page}")


def _listed(option: str | Sequence[str]) -> list[str]:
    """`a,b` as a list; Fire has made a tuple of it already where it could."""
    parts = option.split(",") if isinstance(option, str) else option
    return [str(part).strip() for part in parts if str(part).strip()]


def _choices(methods: Sequence[str], scopes: Sequence[str]) -> list[Choice]:
    """Each method by each scope, without CLAHE by data set unless that is all that was asked for."""
    choices = [(method, scope) for scope in dict.fromkeys(scopes) for method in dict.fromkeys(methods)]
    possible = [choice for choice in choices if choice != ("clahe", "dataset")]
    if not choices:
        raise InputError("--normalize and --scope need a name each: see --help.")
    for choice in possible or choices:
        require_possible(*choice)
    return possible


def training_config(content: Mapping[str, Any], overlays: Sequence[str] | None) -> ConfigParser:
    """train.yaml with tasks laid over it, or, without any, with what the data list says of itself.

    Args:
        content: the data list.
        overlays: names of configs/tasks/ or YAML files.

    Raises:
        InputError: there is no train.yaml here, or no such task.
    """
    if not Path(TRAIN).is_file():
        raise InputError(f"{Path.cwd()} has no {TRAIN}: run this from the repository's root.")
    config = ConfigParser()
    config.read_config([TRAIN, *(str(_overlay(name)) for name in overlays or [])])
    config.update({"device": "cpu", "num_workers": 0, "cache": "memory", "world_size": 1, "rank": 0})
    config.parse()  # macros become values
    if overlays is None:
        told = ("channels", "label_scheme", "labels", "regions", "labels_out", "labels_fill")
        patch_size = config["patch_size"][: content.get("dimensions", 3)]
        config.update({"patch_size": patch_size, **{key: content[key] for key in told if key in content}})
        config.parse()
    return config


def _overlay(name: str) -> Path:
    if Path(name).suffix not in (".yaml", ".yml"):
        return TASKS / f"{choose_task(name, known_tasks()).name}.yaml"
    if not Path(name).is_file():
        raise InputError(f"--task {name} does not exist: give a name of configs/tasks/ or a YAML file.")
    return Path(name)


# ---- the cohort ----------------------------------------------------------------------------------------------------


def _records(before: Compose, entries: Sequence[dict[str, Any]], fill: int) -> list[Record]:
    load = Compose(list(takewhile(lambda step: not isinstance(step, Spacingd | CropForegroundd), before.transforms)))
    with ThreadPoolExecutor(max_workers=2) as pool:
        work = pool.map(
            lambda entry: record(entry["case"], **_pair(load(dict(entry), threading=True)), fill=fill), entries
        )
        return list(tqdm(work, total=len(entries), desc="reading the cohort", unit="case", leave=False))


def _pair(loaded: dict[str, Any]) -> dict[str, Any]:
    return {key: loaded[key] for key in ("image", "label")}


def _print_cohort(
    about: str,
    records: Sequence[Record],
    channels: Sequence[str],
    frequencies: Sequence[Sequence[ClassFrequency]],
    unit: str,
) -> None:
    say = Console(highlight=False)
    say.print(about, markup=False)
    intensities = Table("channel", "median (least to most)", "middle half of a case", box=box.SIMPLE_HEAD)
    for number, name in enumerate(channels):
        of_cases = np.array([record.percentiles[number] for record in records])
        medians = of_cases[:, 2]
        width = np.nanmedian(of_cases[:, 3] - of_cases[:, 1])
        intensities.add_row(
            name, f"{np.nanmedian(medians):.4g} ({np.nanmin(medians):.4g} to {np.nanmax(medians):.4g})", f"{width:.4g}"
        )
    say.print(intensities)
    sizes = Table("axis", "size in voxels", f"spacing in {unit}", box=box.SIMPLE_HEAD)
    for axis in range(len(records[0].shape)):
        of_cases = [[record.shape[axis] for record in records], [record.spacing[axis] for record in records]]
        sizes.add_row("xyz"[axis], *map(_range, of_cases))
    say.print(sizes)
    classes = Table("class", "share of the foreground", "imbalance", "cases with it", box=box.SIMPLE_HEAD)
    for kind, several in zip(("label", "region"), frequencies, strict=True):
        for one in several:
            classes.add_row(
                f"{kind} {one.name}", f"{100 * one.share:.2f} %", one.imbalance, f"{one.cases} of {len(records)}"
            )
    say.print(classes)
    rarest = max((one for one in frequencies[1] if one.share), key=lambda one: one.to_one, default=None)
    if rarest:
        say.print(
            f"class imbalance: {rarest.imbalance} ({rarest.name}, the rarest region, to the rest of what is not 0)",
            soft_wrap=True,
        )
    for number, name in enumerate(channels):
        doubtful = [record for record in records if record.commonest[number, 1] > AIR]
        if doubtful:
            say.print(
                f"note: {name} is {doubtful[0].commonest[number, 0]:.4g} in {doubtful[0].commonest[number, 1]:.0%} of"
                f" what is not 0 of {doubtful[0].case}, and the like in {len(doubtful)} of {len(records)} cases. If"
                " that is air, make it 0: only 0 is cropped, padded and left out of the brain.",
                markup=False,
                soft_wrap=True,
            )


def _range(values: Sequence[float]) -> str:
    least, median, most = min(values), float(np.median(values)), max(values)
    return f"{least:.4g}" if least == most else f"{median:.4g} ({least:.4g} to {most:.4g})"


# ---- normalisations ------------------------------------------------------------------------------------------------


def _statistics(
    before: Compose, taught: Sequence[dict[str, Any]], choices: Sequence[Choice]
) -> dict[str, list[dict[str, Any]]]:
    """For each method that is asked for by data set, the statistics of the training cases."""
    methods = [method for method, scope in choices if scope == "dataset"]
    voxels = list(voxels_of_cases(before, taught)) if methods else []
    return {method: statistics_of(voxels, method) for method in methods}


def _examples(
    before: Compose,
    entries: Sequence[dict[str, Any]],
    choices: Sequence[Choice],
    statistics: Mapping[str, list[dict[str, Any]]],
    fill: int,
) -> list[Example]:
    return [
        example(entry["case"], **_pair(before(dict(entry))), choices=choices, statistics=statistics, fill=fill)
        for entry in tqdm(entries, desc="normalising", unit="case", leave=False)
    ]


def _normalization_pages(
    folder: Path, channels: Sequence[str], examples: Sequence[Example], choices: Sequence[Choice], photographs: bool
) -> list[Path]:
    """Draw a page a channel and scope; their paths."""
    scopes = list(dict.fromkeys(scope for _, scope in choices))
    plan = {
        folder / f"normalization_{re.sub(r'[^0-9A-Za-z.-]+', '_', channel)}_{scope}.png": (number, scope)
        for number, channel in enumerate(channels)
        for scope in scopes
    }
    for path, (number, scope) in tqdm(plan.items(), desc="drawing", unit="page", leave=False):
        methods = [method for method, by in choices if by == scope]
        normalization_page(path, channels[number], number, examples, scope, methods, photographs)
    return list(plan)


# ---- patches -------------------------------------------------------------------------------------------------------


def training_patches(
    config: ConfigParser,
    entries: Sequence[dict[str, Any]],
    choice: Choice,
    statistics: Sequence[dict[str, Any]] | None,
    count: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Patches as training would hand them to the network: case, image [C, ...] and label [R, ...].

    Args:
        config: of training.
        entries: the cases to cut from, with absolute paths.
        choice: method and scope of the normalisation.
        statistics: for scope `dataset`.
        count: how many.
        seed: of the run that would draw them.
    """
    method, scope = choice
    config.update({"normalize": method, "normalize_scope": scope, "intensity_statistics": statistics, "seed": seed})
    config["train"]["dataset"]["data"] = list(entries)
    config.parse()  # anew, with these cases and this normalisation
    dataset = config.get_parsed_content("train#dataset")
    augment = config.get_parsed_content("train#trainer#prepare_batch")
    dataset.cases.prepare()
    patches = []
    for index in tqdm(islice(_endless(config), count), total=count, desc="cutting", unit="patch", leave=False):
        image, label = augment(list_data_collate([cut := dataset[index]]), "cpu")
        patches.append({"case": cut["case"], "image": image[0].numpy(), "label": label[0].numpy()})
    return patches


def _endless(config: ConfigParser) -> Iterator[tuple[int, int]]:
    sampler = config.get_parsed_content("train#sampler")
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        yield from sampler
        epoch += 1
