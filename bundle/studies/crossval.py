"""Cross-validation: one training per fold, and each patient segmented by the network that never saw them.

OUT/foldK/ is the run of fold K, OUT/foldK/validation_cases/ the evaluation of its validation patients. OUT/masks/ holds
the masks of all folds, OUT/cases.csv their scores, OUT/crossval.json what was asked for, OUT/jobs/ the jobs.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bundle.studies.jobs import StudyJob
from scripts.data import datalist as lists
from scripts.errors import InputError
from scripts.files import read_mapping, write_json
from scripts.scoring.cohort import ScoreTables, read_cases, write_tables
from scripts.scoring.run import merge_roles
from scripts.scoring.tables import read_table

RECORD, JOBS = "crossval.json", "jobs"
EVALUATED = "validation_cases"  # folder in a fold's run
ALSO_IN_EVALUATION = ("device", "overlap", "window_size", "window_batch", "tta", "amp")
ONLY_IN_EVALUATION = ("save_probabilities", "score_workers", "min_component_ml", "min_component_probability")
ALL_COMPONENTS = {"min_component_ml": "{}", "min_component_probability": "{}"}  # kept, until rules are chosen


def training_step(
    task: str, recipes: Sequence[str], settings: Mapping[str, str], datalist: Path, dataset_dir: Path, run: Path
) -> tuple[str, ...]:
    """The arguments of a training that resumes when it is started again."""
    paths = ("--datalist", datalist.as_posix(), "--dataset_dir", dataset_dir.as_posix(), "--out", run.as_posix())
    own = {name: value for name, value in settings.items() if name not in ONLY_IN_EVALUATION}
    return ("train", task, *recipes, *paths, "--requeue", "True", *_options(own))


def evaluation_step(run: Path, out: Path, part: str, settings: Mapping[str, str]) -> tuple[str, ...]:
    """The arguments of an evaluation that resumes when it is started again; takes the settings that concern it."""
    own = {name: settings[name] for name in (*ALSO_IN_EVALUATION, *ONLY_IN_EVALUATION) if name in settings}
    words = ("evaluate", run.as_posix(), "--part", part, "--out", out.as_posix())
    return (*words, "--resume", "True", "--requeue", "True", *_options(own))


def fold_jobs(record: Mapping[str, Any], out: Path, processes: int = 1) -> list[StudyJob]:
    """The training and evaluation of each fold of a cross-validation (`record`, the content of crossval.json)."""
    jobs = []
    for fold in record["folds"]:
        run = out / f"fold{fold}"
        settings = {**record["settings"], "fold": str(fold)}
        places = (Path(record["datalist"]), Path(record["dataset_dir"]))
        steps = (
            training_step(record["task"], record["recipes"], settings, *places, run),
            evaluation_step(run, run / EVALUATED, "validation", {**ALL_COMPONENTS, **settings}),
        )
        results = (f"{run}/model.pt", f"{run / EVALUATED}/cases.csv")
        jobs.append(StudyJob(f"fold{fold}", steps, results, processes))
    return jobs


def choose_folds(datalist: Mapping[str, Any], folds: str) -> list[int]:
    """The folds to train: all of the list, or those named, "0,2".

    Raises:
        InputError: a fold is not in the list.
    """
    known = sorted({entry["fold"] for entry in datalist["training"] if "fold" in entry})
    if folds == "all":
        return known
    chosen = [int(text) if text.strip().isdigit() else -1 for text in folds.split(",")]
    if unknown := [text for text, fold in zip(folds.split(","), chosen, strict=True) if fold not in known]:
        raise InputError(
            f"--folds {folds}: the data list has no fold {unknown[0].strip() or '?'}: it has"
            f" {', '.join(map(str, known))}; give numbers with commas between, or all."
        )
    return sorted(set(chosen))


def hold_out_sites(datalist: Mapping[str, Any]) -> tuple[dict[str, Any], dict[int, str]]:
    """The list with one fold for each site, and the site of each fold. Test patients stay test patients.

    Raises:
        InputError: the list does not name the site of each case, has only one, or has a patient at two.
    """
    labelled = [entry for entry in datalist["training"] if "fold" in entry]
    if without := [entry["case"] for entry in labelled if "site" not in entry]:
        raise InputError(
            f"the data list names no site for {len(without)} of {len(labelled)} cases, such as {without[0]}: make it"
            " with `python -m bundle prepare ... --sites`, a table or a pattern."
        )
    sites = sorted({entry["site"] for entry in labelled})
    if len(sites) < 2:
        raise InputError(f"all cases are of the site {sites[0]}: leaving one site out needs at least two.")
    fold_of = {site: fold for fold, site in enumerate(sites)}
    training = [{**e, "fold": fold_of[e["site"]]} if "fold" in e else e for e in datalist["training"]]
    made = {**datalist, "training": training, "folds": len(sites)}
    lists.check_split(made)
    return made, {fold: site for site, fold in fold_of.items()}


def open_crossval(out: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write crossval.json into a new folder, or compare it with that of the cross-validation that goes on there.

    Returns the record with the folds of both.

    Raises:
        InputError: the folder holds something else, or a cross-validation of other settings or another data list.
    """
    path = out / RECORD
    if path.is_file():
        known = read_mapping(path)
        same = {name for name in {*known, *record} - {"folds", "sha256"} if known.get(name) == record.get(name)}
        if other := sorted({*known, *record} - {"folds", "sha256"} - same):
            raise InputError(
                f"{out} holds a cross-validation with {other[0]} {known.get(other[0])}, not {record.get(other[0])}:"
                " choose another --out, or give the same to continue."
            )
        if known["sha256"] != record["sha256"]:
            raise InputError(f"{record['datalist']} has changed since {out} was begun: choose another --out.")
        record = {**record, "folds": sorted({*known["folds"], *record["folds"]})}
    elif out.exists() and (not out.is_dir() or any(path.name != "datalist.json" for path in out.iterdir())):
        raise InputError(f"{out} already holds files: choose another folder.")
    write_json(path, dict(record))
    return dict(record)


def pool_folds(out: Path, record: Mapping[str, Any], datalist: Mapping[str, Any]) -> ScoreTables:
    """Put the masks of all folds into OUT/masks, and their scores into OUT/cases.csv and evaluation.json.

    Each patient's row is of the network that was trained without them. They selected its checkpoint, which
    evaluation.json says.

    Raises:
        InputError: a fold was not evaluated, or with another data list, or lacks patients.
    """
    folders = {fold: out / f"fold{fold}" / EVALUATED for fold in record["folds"]}
    records = {fold: read_mapping(folder / "evaluation.json") for fold, folder in folders.items()}
    cases = {fold: read_cases(folder / "cases.csv") for fold, folder in folders.items()}
    for fold, table in cases.items():
        expected = {entry["case"] for entry in datalist["training"] if entry.get("fold") == fold}
        if records[fold]["datalist"] != record["sha256"] or {*table["case"]} != expected:
            raise InputError(
                f"{folders[fold]} was evaluated with another data list: remove it, and start the same command again."
            )
    for folder in folders.values():
        link_files(folder / "masks", out / "masks")
    tables = {"cases": pd.concat(cases.values(), ignore_index=True)}
    for name in ("patients", "lesions", "reliability", "raters"):
        files = [file for folder in folders.values() if (file := folder / f"{name}.csv").is_file()]
        if len(files) == len(folders) or (files and name == "raters"):  # a fold may have cases of one rater alone
            texts = dict.fromkeys(("case", "patient", "region", "rater", "compared"), str)
            tables[name] = pd.concat([read_table(file, dtype=texts) for file in files], ignore_index=True)
    pooled = ScoreTables(**tables)
    fold_of = {case: str(fold) for fold, table in cases.items() for case in table["case"].unique()}
    sites = {case: site for one in records.values() for case, site in one.get("groups", {}).get("site", {}).items()}
    write_tables(
        pooled,
        out,
        part=f"validation: {len(folders)} folds, each patient by the network that was trained without them",
        predictions=str(out / "masks"),
        datalist=record["sha256"],
        definitions=next(iter(records.values()))["definitions"],
        groups={"fold": fold_of, **({"site": sites} if sites else {})},
        about={
            "checkpoint": ", ".join(str(out / f"fold{fold}" / "model.pt") for fold in folders),
            "patients": merge_roles(*(one["about"]["patients"] for one in records.values())),
        },
    )
    return pooled


def link_files(source: Path, target: Path) -> None:
    """Make all files of a folder appear in another one, as hard links where the file system has them."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        goal = target / file.relative_to(source)
        goal.parent.mkdir(parents=True, exist_ok=True)
        goal.unlink(missing_ok=True)
        try:
            os.link(file, goal)
        except OSError:
            shutil.copy2(file, goal)


def _options(settings: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]
