"""The runs that the user names for one answer: a run, the folds of a cross-validation, a selection of several."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.studies.crossval import RECORD
from scripts.errors import InputError
from scripts.files import read_mapping
from scripts.network.ensemble import differing_settings, read_run_settings
from scripts.network.weights import MODEL, settings_file

FOLD = re.compile(r"fold\d+")  # the folder of a run in that of a cross-validation
SELECTION = "selected.yaml"  # in the folder of a selection
# what configurations must share, so that an average of their probabilities is one of the same regions
COMMON = ("label_scheme", "labels", "regions", "labels_out", "labels_fill", "decision", "channels", "channel_files")


def find_configurations(sources: Sequence[Path], other: str = "") -> list[list[Path]]:
    """The runs of `sources`, those of one configuration together, each once.

    Args:
        sources: folders of runs, cross-validations and selections, or the YAML file of a selection, with the list
            `ensemble` of such folders.
        other: what else a folder could have been, for the message.

    Raises:
        InputError: a source is none of these, lacks a fold, or the configurations do not segment the same regions.
    """
    runs = list(dict.fromkeys(run for source in sources for run in find_runs(source, other)))
    settings = {run: read_run_settings(run) for run in runs}
    configurations: list[list[Path]] = []
    for run in runs:
        same = (own for own in configurations if not differing_settings(settings[own[0]], settings[run]))
        group = next(same, None)
        if group is None:
            configurations.append(group := [])
        group.append(run)
    for first, *_ in configurations[1:]:
        one, two = settings[runs[0]], settings[first]
        if different := [name for name in COMMON if json.dumps(one.get(name)) != json.dumps(two.get(name))]:
            raise InputError(
                f"{runs[0]} and {first} differ in {', '.join(different)}: runs are averaged only if they segment the"
                " same regions of the same scans."
            )
        if sliced := next((run for run in runs if "evaluator" in settings[run]), None):
            raise InputError(
                f"{sliced} was trained with large_images: it is averaged only with runs of its configuration."
            )
    return configurations


def require_one_configuration(sources: Sequence[Path]) -> list[Path]:
    """The runs of `sources`, which must be of one configuration.

    Raises:
        InputError: as `find_configurations`; or names the settings in which two runs differ.
    """
    configurations = find_configurations(sources)
    if len(configurations) > 1:
        one, two = configurations[0][0], configurations[1][0]
        different = ", ".join(differing_settings(read_run_settings(one), read_run_settings(two)))
        raise InputError(
            f"{one} and {two} are of different configurations ({different}): a package holds one network, and their"
            " probabilities can be averaged by `segment` and `evaluate` alone; export one configuration."
        )
    return configurations[0]


def find_runs(source: Path, other: str = "") -> list[Path]:
    """The folders of the runs that `source` names; see `find_configurations`."""
    if (source / SELECTION).is_file():
        source = source / SELECTION
    if source.is_file() and source.suffix in (".yaml", ".yml"):
        named = read_mapping(source).get("ensemble")
        if not isinstance(named, list) or not named:
            raise InputError(f"{source} has no list `ensemble` of runs: expected a file of `python -m bundle select`.")
        return [run for folder in named for run in find_runs(Path(folder))]
    if settings_file(source).is_file():
        return [source]
    found = [path for path in source.glob("fold*") if FOLD.fullmatch(path.name)]
    folds = sorted(found, key=lambda fold: int(fold.name.removeprefix("fold")))
    if not folds:
        raise InputError(
            f"{source} is not a run{other}: expected {source / 'settings.yaml'}, as `python -m bundle train` writes it."
        )
    record = source / RECORD
    planned = [source / f"fold{k}" for k in read_mapping(record).get("folds", [])] if record.is_file() else folds
    for fold in planned:
        if not (fold / MODEL).is_file():
            raise InputError(f"{fold} has no weights yet: train this fold first, all folds are needed.")
    return planned


def name_weights(runs: Sequence[Path]) -> dict[str, Any]:
    """The setting of a workflow for the weights of one run, or of several of one configuration."""
    if len(runs) == 1:
        return {"run_dir": runs[0].as_posix()}
    return {"ensemble": [run.as_posix() for run in runs]}
