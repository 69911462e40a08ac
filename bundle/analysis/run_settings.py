"""Runs that exist, by the settings in which they differ and the scores of their selected epoch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bundle.analysis.evaluation import average_by_patient, read_evaluation
from scripts.errors import InputError
from scripts.files import read_mapping

OWN = {"run_dir", "resume", "requeue", "bundle_root", "datalist", "dataset_dir", "cache_dir", "imports", "about"}
BEST = "validation_best"  # scores of the selected epoch in a run folder


def compare_runs(runs: Sequence[Path]) -> tuple[pd.DataFrame, list[str]]:
    """One row per run: the settings that differ between the runs, then patients and the mean Dice by region.

    Returns:
        the table, and the names of its settings.

    Raises:
        InputError: a folder is not a run, or has no scores.
    """
    configs = {run: _settings(run) for run in runs}
    names = dict.fromkeys(name for own in configs.values() for name in own)
    texts = {name: ["null" if own.get(name) is None else str(own[name]) for own in configs.values()] for name in names}
    differing = [name for name, values in texts.items() if len({*values}) > 1]
    rows = []
    for number, run in enumerate(runs):
        scores = average_by_patient(_scores(run))["dice"].groupby("region", sort=False).agg(["mean", "size"])
        row = {"run": run.as_posix(), **{name: texts[name][number] for name in differing}}
        rows.append(row | {"patients": int(scores["size"].max()), **scores["mean"].to_dict()})
    return pd.DataFrame(rows), differing


def _settings(run: Path) -> dict[str, Any]:
    """The top-level values of a run's config, sections by their class, such as `network_def: DynUNet`."""
    path = run / "config.yaml"
    if not path.is_file():
        raise InputError(f"{run} is not a run: expected {path}, as `python -m bundle train` writes it.")
    found = {}
    for name, value in read_mapping(path).items():
        if name in OWN or name.startswith("_"):
            continue
        if isinstance(value, Mapping):
            if "_target_" in value:
                found[name] = str(value["_target_"]).rpartition(".")[2]
        elif not (isinstance(value, str) and value.startswith(("$", "@", "%"))):
            found[name] = value
    return found


def _scores(run: Path) -> pd.DataFrame:
    if not (run / BEST / "cases.csv").is_file():
        raise InputError(f"{run} has no {BEST}/cases.csv: it was never validated; train it, or leave it out.")
    return read_evaluation(run / BEST).scores
