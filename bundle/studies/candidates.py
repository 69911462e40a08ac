"""Cross-validations, and pairs of them, scored on the same patients by networks that never saw them."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bundle.studies.averaging import segment_with_several
from bundle.studies.crossval import ALL_COMPONENTS, ALSO_IN_EVALUATION, RECORD
from bundle.studies.members import find_configurations, find_runs
from scripts.data import datalist as lists
from scripts.errors import InputError
from scripts.files import read_mapping
from scripts.inference.scans import print_refused_cases
from scripts.network.weights import MODEL
from scripts.scoring.cohort import read_cases, score_predictions


class Candidate(NamedTuple):
    """One cross-validation or a pair: its runs, and each patient's mean Dice over regions."""

    name: str
    folders: tuple[Path, ...]
    networks: int
    size: int  # of their weights, in bytes
    dice: pd.Series  # by patient


class SharedCohort(NamedTuple):
    """What the cross-validations share: the data list, where its paths start, the fold of each patient."""

    datalist: dict[str, Any]
    dataset_dir: Path
    folds: dict[str, int]


def read_cohort(folders: Sequence[Path], dataset_dir: Path | None = None) -> SharedCohort:
    """The patients and folds that cross-validations share.

    Raises:
        InputError: there are not two, or they differ in the data list or folds, lack a fold, or have one patient.
    """
    if len(dict.fromkeys(folders)) < 2:
        raise InputError("select compares cross-validations: give two or more, from `python -m bundle crossval`.")
    for folder in folders:
        if not (folder / RECORD).is_file():
            raise InputError(
                f"{folder} is not a cross-validation: expected {folder / RECORD}, as `crossval` writes it."
            )
    records = {folder: read_mapping(folder / RECORD) for folder in folders}
    first, record = next(iter(records.items()))
    for folder, other in records.items():
        if other["sha256"] != record["sha256"]:
            raise InputError(
                f"{first} and {folder} are of different data lists: cross-validate both with the same list."
            )
        if other["folds"] != record["folds"]:
            ours, theirs = _numbers(record["folds"]), _numbers(other["folds"])
            raise InputError(f"{first} has folds {ours}, {folder} has {theirs}: train the same, by --folds all.")
    content = lists.read_datalist(record["datalist"])
    if lists.datalist_hash(content) != record["sha256"]:
        raise InputError(f"{record['datalist']} has changed since {first} was trained: restore it.")
    folds = {entry["patient"]: entry["fold"] for entry in content["training"] if "fold" in entry}
    if missing := {*folds.values()}.difference(record["folds"]):
        raise InputError(
            f"{first} lacks fold {_numbers(sorted(missing))}: train it by the same command with --folds all."
        )
    if len(folds) < 2 or len({*folds.values()}) < 2:
        raise InputError(
            f"{first} has {len(folds)} patient in {len({*folds.values()})} fold: expected several of each to select by."
        )
    return SharedCohort(content, dataset_dir or Path(record["dataset_dir"]), folds)


def shared_settings(folders: Sequence[Path]) -> dict[str, str]:
    """The settings of inference that the masks of all cross-validations were made with, as text.

    All components are kept where nothing else was asked for, whatever rule was chosen on these masks since.

    Raises:
        InputError: two differ.
    """
    texts = {folder: read_mapping(folder / RECORD)["settings"] for folder in folders}
    names = (*ALSO_IN_EVALUATION, *ALL_COMPONENTS)
    own = {
        folder: {**ALL_COMPONENTS, **{name: text[name] for name in names if name in text}}
        for folder, text in texts.items()
    }
    first = next(iter(own))
    for folder, settings in own.items():
        every = {*own[first], *settings} - {"device"}
        if different := sorted(name for name in every if own[first].get(name) != settings.get(name)):
            raise InputError(
                f"{first} and {folder} were segmented with different {', '.join(different)}, which is not a"
                " difference of networks: cross-validate both with the same."
            )
    return own[first]


def score_candidates(
    folders: Sequence[Path], cohort: SharedCohort, out: Path, settings: Mapping[str, Any], pairs: bool = True
) -> list[Candidate]:
    """Every cross-validation, and every pair, from the simplest: by number of networks, then size of the weights.

    The masks of a pair are the average of both networks of the fold whose training did not see the patient; they are
    kept in `out`, so that a second call continues.

    Raises:
        InputError: a cross-validation lacks patients, or a pair does not segment the same regions.
    """
    names = {folder: folder.name for folder in folders}
    if len({*names.values()}) < len(names):
        names = {folder: folder.as_posix().replace("/", "_").strip("_.") for folder in folders}
    made = [_candidate(names[folder], (folder,), _read_dice([folder], cohort)) for folder in folders]
    for one, two in combinations(folders, 2) if pairs else ():
        name = f"{names[one]}+{names[two]}"
        scored = []
        for fold in sorted({*cohort.folds.values()}):
            print(f"pair {name}, fold {fold}", flush=True)
            scored.append(_score_pair((one, two), fold, cohort, out / name / f"fold{fold}", settings))
        made.append(_candidate(name, (one, two), _read_dice(scored, cohort)))
    return sorted(made, key=lambda candidate: (candidate.networks, candidate.size))


def _score_pair(pair: Sequence[Path], fold: int, cohort: SharedCohort, out: Path, settings: Mapping[str, Any]) -> Path:
    configurations = find_configurations([folder / f"fold{fold}" for folder in pair])
    entries = lists.select_cases(cohort.datalist, cohort.dataset_dir, "validation", fold)
    refused, left = segment_with_several(configurations, settings, out / "masks", entries, resume=True)
    print_refused_cases(refused, left)
    if left:  # scores of former masks, which would count if scoring were interrupted
        for name in ("cases.csv", "patients.csv"):
            (out / name).unlink(missing_ok=True)
    if not (out / "cases.csv").is_file():
        where = (cohort.datalist, cohort.dataset_dir, out / "masks", out)
        score_predictions(*where, part="validation", fold=fold)
    return out


def _candidate(name: str, folders: tuple[Path, ...], dice: pd.Series) -> Candidate:
    runs = [run for folder in folders for run in find_runs(folder)]
    return Candidate(name, folders, len(runs), sum((run / MODEL).stat().st_size for run in runs), dice)


def _read_dice(folders: Sequence[Path], cohort: SharedCohort) -> pd.Series:
    """Each patient's mean Dice over regions and cases; 0 for a case that failed. Slices count as one volume."""
    tables = [next(file for file in _tables(folder) if file.is_file()) for folder in folders]
    rows = pd.concat([read_cases(file) for file in tables])
    dice = rows[rows["metric"] == "dice"].groupby(["patient", "case"])["value"].mean()
    failed = rows[rows["metric"] == "failed"].set_index(["patient", "case"])["value"] * 0
    found = pd.concat([dice, failed]).groupby("patient").mean()
    if missing := sorted({*cohort.folds} - {*found.index}):
        raise InputError(
            f"{tables[0]} has no score of patient {missing[0]}: finish the cross-validation by the same command."
        )
    return found[sorted(cohort.folds)]


def _tables(folder: Path) -> list[Path]:
    """Where a folder's scores may be: by patient, for slices, or by case."""
    files = [folder / "patients.csv", folder / "cases.csv"]
    if not any(file.is_file() for file in files):
        raise InputError(f"{folder} has no cases.csv: finish the cross-validation by the same command.")
    return files


def _numbers(folds: Sequence[int]) -> str:
    return ", ".join(map(str, folds))
