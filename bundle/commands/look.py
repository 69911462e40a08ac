"""The `look` command: draw a cohort, its normalisations and training patches, without the test set."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from pydantic import NonNegativeInt, PositiveInt
from rich.console import Console

from bundle.analysis.strict_json import to_strict_json
from bundle.cohort.fingerprint import (
    Choice,
    class_frequencies,
    example_reader,
    fingerprint_reader,
    read_for_uses,
    read_statistics,
)
from bundle.cohort.training_view import cut_training_patches, read_training_config, training_dataset
from bundle.commands.arguments import CommaList, Optional, check_arguments
from bundle.commands.shared import Outcome
from bundle.drawing.slices import evenly_spaced
from bundle.reporting.cohort_page import write_cohort_page
from bundle.reporting.cohort_table import cohort_sentences, cohort_tables
from bundle.reporting.normalization_page import write_normalization_pages
from bundle.reporting.patch_page import write_patch_page
from scripts.data import datalist as lists
from scripts.data.input_channels import name_channels
from scripts.data.intensity_statistics import steps_before_normalization
from scripts.data.normalization import METHODS, NO_STATISTICS, require_valid_normalization
from scripts.errors import InputError


@check_arguments
def look(
    datalist: Path,
    *,
    out: Path = Path("look"),
    dataset_dir: Optional[Path] = None,
    task: Optional[CommaList[str]] = None,
    normalize: Optional[CommaList[str]] = None,
    scope: CommaList[str] = ("volume",),
    cases: PositiveInt = 4,
    patches: PositiveInt = 12,
    cohort: NonNegativeInt = 100,
    seed: NonNegativeInt = 0,
) -> Outcome:
    """Draw normalisations, the cohort and augmented patches: the pictures to look at before any training.

    One page per channel and scope (the same cases by each method, with histograms), one on the cohort
    (intensities, spacing, size, class frequencies), one of patches as the network sees them. The numbers are printed.
    Test patients are left out. Run it from the repository's root.

    Examples:
        python -m bundle look datalist.json --dataset_dir /data/BraTS2021 --task brats
        python -m bundle look datalist.json --dataset_dir /data --normalize zscore_nonzero,clahe --scope volume,slice
        python -m bundle look datalist.json --dataset_dir /data --task phantom,configs/recipes/class_ratios.yaml

    Args:
        datalist: the data list (`python -m bundle prepare`).
        out: the folder to write to; pages of an earlier look are replaced.
        dataset_dir: the folder that the list's paths start from; by default the one that holds the list.
        task: names of configs/tasks/ or YAML files that override train.yaml, with commas between; by default channels,
            labels and regions are the list's, everything else is train.yaml's.
        normalize: methods, with commas between: zscore_nonzero, zscore, median_iqr, minmax, percentile, histogram,
            clahe, or hu_window alone; by default hu_window if the task has it, otherwise all others. Patches are
            normalised by the first.
        scope: what they look at, with commas between: volume, slice, dataset. Patches have the first.
        cases: how many to draw, spread over the list.
        patches: how many to draw, cut from as many training cases.
        cohort: how many cases to read for the cohort page and for scope dataset, spread over the list; 0 for all.
        seed: of patches and augmentation.

    Raises:
        InputError: an option or the list is wrong, a file cannot be read, or `out` cannot be written.
    """
    content = lists.read_datalist(datalist)
    root = dataset_dir or datalist.parent
    config = read_training_config(content, task)
    if normalize is None:
        normalize = ["hu_window"] if config["normalize"] == "hu_window" else [m for m in METHODS if m != "hu_window"]
    choices = _choices(normalize, scope)
    config.update(dict(zip(("normalize", "normalize_scope"), choices[0], strict=True)))
    config.parse()  # again: the steps before a normalisation depend on it
    ask = config.get_parsed_content
    lists.require_same_task(content, ask("channels"), ask("label_scheme"), ask("labels"))
    shown = content | {"training": [entry for entry in content["training"] if entry.get("split") != "test"]}
    known, training = (
        lists.select_cases(shown, root, "labelled"),
        lists.select_cases(shown, root, "training", ask("fold")),
    )
    lists.check_files(shown, shown["training"], root, hashes=False)

    before, fill = steps_before_normalization(ask("preprocessing")), ask("labels_fill")
    read = evenly_spaced(known, cohort or len(known))
    limits = {name: ask(name) for name in ("percentiles", "hu_window")}
    statistics = read_statistics(
        before, evenly_spaced(training, cohort or len(training)), choices, limits["percentiles"]
    )
    dataset = training_dataset(
        config, evenly_spaced(training, patches), choices[0], statistics.get(choices[0][0]), seed
    )
    make_example = example_reader(before, choices, statistics, fill, limits)
    fingerprints, drawn, prepared = read_for_uses(
        (read, fingerprint_reader(before, fill, content.get("ignore"))),
        (evenly_spaced(read, cases), make_example),
        (dataset.data, dataset.cases.prepare_case),
    )
    dataset.cases.held = [prepared[entry["case"]] for entry in dataset.data]
    records = [fingerprints[entry["case"]] for entry in read]
    labelled = [entry for entry in read if fingerprints[entry["case"]].has_label] or read
    examples = [drawn.get(entry["case"]) or make_example(entry) for entry in evenly_spaced(labelled, cases)]
    channels, regions, spacing, patch_size = ask("channels"), ask("regions"), ask("spacing"), ask("patch_size")
    frequencies = (
        class_frequencies(records, {name: [value] for name, value in ask("labels").items()}),
        class_frequencies(records, regions),
    )
    cut = cut_training_patches(config, dataset, patches)

    unit = content.get("unit", "mm")
    photographs = unit != "mm"
    about = f"{content.get('name', datalist.stem)}: {len(records)} of {len(known)} cases"
    prepared = name_channels(channels, ask("derived_channels"))
    pages = write_normalization_pages(out, prepared, examples, choices, photographs)
    spacing = spacing or np.median([record.spacing for record in records], axis=0)
    write_cohort_page(out / "cohort.png", about, records, channels, frequencies, np.multiply(patch_size, spacing), unit)
    given = ask("network_channels")[: len(cut[0]["image"])]  # those of clicks follow in a step of training
    write_patch_page(out / "patches.png", cut, given, list(regions), choices[0], photographs)
    console = Console(highlight=False)
    console.print(about, markup=False)
    for table in cohort_tables(records, channels, frequencies, unit):
        console.print(table)
    for sentence in cohort_sentences(records, channels, frequencies[1]):
        console.print(sentence, markup=False, soft_wrap=True)
    for page in [*pages, out / "cohort.png", out / "patches.png"]:
        print(f"written: {page}")
    of_labels, of_regions = ([asdict(one) for one in part] for part in frequencies)
    return Outcome(lambda: to_strict_json({"cases": len(records), "labels": of_labels, "regions": of_regions}))


def _choices(methods: Sequence[str], scopes: Sequence[str]) -> list[Choice]:
    """Each method by each scope, without those that have no data set unless that is all that was asked for."""
    choices = [(method, scope) for scope in dict.fromkeys(scopes) for method in dict.fromkeys(methods)]
    possible = [(method, scope) for method, scope in choices if scope != "dataset" or method not in NO_STATISTICS]
    if not choices:
        raise InputError("--normalize and --scope need a name each: see --help.")
    if "hu_window" in methods and len({*methods}) > 1:
        raise InputError("normalize hu_window needs values in HU, the others a background of 0: draw it by itself.")
    for choice in possible or choices:
        require_valid_normalization(*choice)
    return possible
