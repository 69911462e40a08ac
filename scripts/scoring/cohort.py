"""Scores of a folder of label maps against a data list: `cases.csv`, one row per number.

The rows are (case, patient, region, metric, value, unit, note), in the order of the list, its regions and
`scripts.scoring.metrics.METRICS`; `BOUNDARY_METRICS` follow if a region is the outline of cells (`boundaries` in the
list's header). `note` is `absent`, `missed` or `hallucinated` if a mask is empty. Rows on the whole case have region
`all`: `ece` and `brier`, `resampled` (1, with the reason), and `failed` (1, with the reason) for a case that could not
be scored: it has no other row, and counts in summaries.

`lesions.csv` has one row per true lesion. If the cases are slices, `patients.csv` has the columns of `cases.csv` for
all slices of a patient as one volume, with the patient as case. If probabilities are given, `reliability.csv` has one
row per case, region and bin of probability: the mean predicted probability (`confidence`) and the observed frequency.

Cases that several raters have drawn are scored against each: `cases.csv` has the means over raters, `lesions.csv` and
`reliability.csv` the rows of all of them, and `raters.csv` every single comparison (`scripts.scoring.raters`).
"""

import os
import platform
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd

from scripts import distributed
from scripts.data import datalist as lists
from scripts.data import pictures
from scripts.errors import EXIT_SOME_FAILED, InputError
from scripts.files import write_json
from scripts.parallel import map_in_processes
from scripts.scoring.case import Job, Scores, metric_definitions, score_case
from scripts.scoring.lesions import BRATS_2023, BratsRule
from scripts.scoring.prediction_files import (
    PROBABILITY_SUFFIXES,
    find_predictions,
    images_in,
    match_predictions,
    nearest_names,
)
from scripts.scoring.raters import RATER_COLUMNS, average_raters, compare_raters, rater_rows
from scripts.scoring.stack import Stack, score_patient
from scripts.scoring.summary import COPY, group_failures
from scripts.scoring.tables import read_table, write_table

COLUMNS = ["case", "patient", "region", "metric", "value", "unit", "note"]
LESION_COLUMNS = ["case", "patient", "region", "lesion", "volume", "unit", "detected", "dice"]
RELIABILITY_COLUMNS = ["case", "patient", "region", "bin", "voxels", "confidence", "frequency"]
Task = TypeVar("Task", Job, Stack)


class ScoreTables(NamedTuple):
    """The rows of each table.

    `patients` is None if cases are not slices, `reliability` without probabilities, `lesions` if not counted, `raters`
    if every case has one label.
    """

    cases: pd.DataFrame
    patients: pd.DataFrame | None = None
    lesions: pd.DataFrame | None = None
    reliability: pd.DataFrame | None = None
    raters: pd.DataFrame | None = None


def score_predictions(
    datalist: Mapping[str, Any],
    dataset_dir: str | os.PathLike,
    predictions: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    part: str = "test",
    fold: int | None = None,
    probabilities: str | os.PathLike | None = None,
    label_map: Mapping[int, int] | None = None,
    resample: bool = False,
    brats: BratsRule = BRATS_2023,
    workers: int | None = None,
    added: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
) -> ScoreTables:
    """Score a folder of label maps: writes the tables and `evaluation.json` to `output_dir` and returns the rows.

    Cases run in parallel processes; under torchrun, each of its processes scores its part of them, and the first one
    writes. After an interruption the same call continues where it stopped.

    Args:
        datalist: from `scripts.data.datalist.read_datalist`.
        dataset_dir: the folder that the list's paths start from.
        predictions: the folder of label maps, named after the cases (see `scripts.scoring.prediction_files`).
        output_dir: the folder to write to.
        part: `test`, `validation` (with `fold`) or `labelled`.
        fold: the fold of part `validation`.
        probabilities: a folder of NIfTI files named like the predictions, with one map per region along the last axis.
        label_map: value in the predictions to value of the scheme.
        resample: resample predictions on another grid, by nearest neighbour, and note it.
        brats: the parameters of the BraTS 2023 lesion-wise scores.
        workers: number of processes; by default one per core, divided among the processes of torchrun.
        added: metrics of the user's own, `module.function` (`scripts.scoring.added_metrics`).
        about: further facts about the predictions for evaluation.json (checkpoint, command ...).

    Raises:
        InputError: no case can be scored, most fail for one reason, a label is missing or has changed, or a folder is
            wrong. A single failing case gives a row instead.
    """
    chosen = lists.select_cases(datalist, dataset_dir, part, fold)
    names = {entry["case"] for entry in chosen}
    labels = [{**entry, "image": []} for entry in datalist["training"] if entry["case"] in names]
    lists.check_files(datalist, labels, dataset_dir, hashes=distributed.is_first_process())
    files = images_in(predictions)
    found = find_predictions(files, chosen)
    for entry in chosen:
        own = pictures.file_of_page(found.get(entry["case"], ""))
        drawn = map(pictures.file_of_page, lists.rater_files(entry).values())
        if own.is_file() and any(own.samefile(label) for label in drawn):
            raise InputError(
                f"{predictions} holds the labels themselves ({own} is the label of case {entry['case']}): give the"
                " folder of the masks that a system predicted."
            )
    spare = set(files) - {pictures.file_of_page(file) for file in found.values()}
    soft = _find_probabilities(probabilities, found)
    output_dir = Path(output_dir)
    kept = output_dir / ".scoring"
    label_map = {int(a): int(b) for a, b in (label_map or {}).items()}
    rules = {
        **_scheme(datalist),
        "rename": label_map,
        "resample": bool(resample),
        "brats": brats,
        "added": tuple(added),
    }
    jobs = [
        Job(
            case=entry["case"],
            patient=entry["patient"],
            label=label,
            rater=rater,
            prediction=found.get(entry["case"]),
            hint="" if entry["case"] in found else nearest_names(entry["case"], spare),
            probability=str(soft[entry["case"]]) if entry["case"] in soft else None,
            kept=str(kept / rater / f"{entry['case']}.json"),
            **rules,
        )
        for entry in chosen
        for rater, label in lists.rater_files(entry).items()
    ]
    stacks = _stacks({entry["case"]: entry for entry in chosen}, jobs, kept / "patients")
    scores = _score_all(score_case, jobs, workers, "case")
    volumes = _score_all(score_patient, stacks, workers, "patient")
    pairs = compare_raters(jobs)
    between = _score_all(score_case, pairs, workers, "pair of raters") if pairs else []
    raters = [*rater_rows(jobs, scores), *rater_rows(pairs, between)]
    first = {job.case: job.rater for job in reversed(jobs)}
    of_first_raters = [own for job, own in zip(jobs, scores, strict=True) if job.rater == first[job.case]]
    evaluation = ScoreTables(
        pd.DataFrame(average_raters([each.rows for each in scores]), columns=COLUMNS),
        pd.DataFrame(average_raters([each.rows for each in volumes]), columns=COLUMNS) if stacks else None,
        pd.DataFrame([row for each in of_first_raters for row in each.lesions], columns=LESION_COLUMNS),
        pd.DataFrame([row for each in of_first_raters for row in each.reliability], columns=RELIABILITY_COLUMNS)
        if soft
        else None,
        pd.DataFrame(raters, columns=RATER_COLUMNS) if raters else None,
    )
    _refuse_common_failure(evaluation.cases, jobs)
    if distributed.is_first_process():
        write_tables(
            evaluation,
            output_dir,
            brats,
            added,
            part=part if fold is None else f"{part} (fold {fold})",
            predictions=str(Path(predictions).resolve()),
            files_of_no_case=len(spare),
            datalist=lists.datalist_hash(datalist),
            label_map=label_map,
            groups={"site": sites} if (sites := {e["case"]: e["site"] for e in chosen if "site" in e}) else {},
            about=dict(about or {}),
        )
        shutil.rmtree(kept, ignore_errors=True)
    distributed.wait_for_all()  # torchrun ends all when one has ended, and the first is writing
    failed = evaluation.cases[evaluation.cases["metric"] == "failed"]
    if len(failed) == len(chosen):
        first = failed.iloc[0]
        raise InputError(f"none of the {len(chosen)} cases could be scored; case {first['case']}: {first['note']}")
    return evaluation


def _refuse_common_failure(cases: pd.DataFrame, jobs: Sequence[Job]) -> None:
    """Refuse predictions most of which fail for one reason: their table would be full of zeros.

    Raises:
        InputError: says how many, and the first reason.
    """
    predicted = {job.case for job in jobs if job.prediction is not None}
    failed = cases[(cases["metric"] == "failed") & cases["case"].isin(predicted)]
    names, reason = next(iter(group_failures(failed)), ([], ""))
    if len(names) > 1 and len(names) > len(predicted) / 2:
        raise InputError(
            f"{len(names)} of {len(predicted)} predictions cannot be scored for one reason, so no table is written;"
            f" first {names[0]}: {reason}"
        )


def write_tables(
    evaluation: ScoreTables,
    folder: str | os.PathLike,
    brats: BratsRule = BRATS_2023,
    added: Sequence[str] = (),
    **metadata: Any,
) -> None:
    """Write the tables of an evaluation, and evaluation.json with its inputs and definitions.

    Args:
        evaluation: the tables; those of an earlier evaluation that this one lacks are removed.
        folder: gets them.
        brats: the parameters of the BraTS 2023 lesion-wise scores.
        added: metrics of the user's own.
        metadata: further keys of evaluation.json: `part`, `predictions`, `datalist` (its hash), `label_map`, `about`,
            and `groups`: by kind (fold, site), case to group.
    """
    folder, cases = Path(folder), evaluation.cases
    for name, frame in evaluation._asdict().items():
        if frame is None:  # a file of an earlier evaluation would be mistaken for this one's
            (folder / f"{name}.csv").unlink(missing_ok=True)
            continue
        write_table(frame, folder / f"{name}.csv")
    failed = cases[cases["metric"] == "failed"]
    content = {
        "cases": cases["case"].nunique(),
        "patients": cases["patient"].nunique(),
        "failed": dict(zip(failed["case"], failed["note"], strict=True)),
        "resampled": list(cases.loc[cases["metric"] == "resampled", "case"]),
        "copies_of_labels": list(cases.loc[cases["metric"] == COPY, "case"]),
        "definitions": metric_definitions(brats, added),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("numpy", "scipy", "scikit-image", "nibabel")},
    }
    write_json(folder / "evaluation.json", content | metadata)
    (folder / "judged.json").unlink(missing_ok=True)  # its former name


def exit_if_some_failed(cases: pd.DataFrame) -> None:
    """End the program with exit code 1 and a sentence on stderr if cases failed; the others are scored."""
    failed = cases.loc[cases["metric"] == "failed", "case"].nunique()
    if failed:
        if distributed.is_first_process():
            print(f"{failed} of {cases['case'].nunique()} cases could not be scored; the others are.", file=sys.stderr)
        sys.stdout.flush()
        distributed.wait_for_all()  # torchrun ends the first, which prints, as soon as another has ended
        sys.exit(EXIT_SOME_FAILED)


def read_cases(path: str | os.PathLike) -> pd.DataFrame:
    """The rows of a `cases.csv`: text stays text (a case may be called 007), inf stays inf.

    Raises:
        InputError: the file is missing or is not such a table.
    """
    try:
        frame = read_table(path, dtype={name: str for name in COLUMNS if name != "value"})
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a table ({error}): make it with `python -m bundle score`."
        ) from error
    if list(frame.columns) != COLUMNS:
        raise InputError(f"{path} has columns {', '.join(frame.columns)}: expected {', '.join(COLUMNS)}.")
    try:
        return frame.astype({"value": float})
    except ValueError as error:
        raise InputError(f"{path} has a value that is not a number ({error}): each row needs one.") from error


def _scheme(datalist: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Job` that the data list defines for all cases."""
    regions = {name: [int(value) for value in values] for name, values in datalist["regions"].items()}
    named = datalist.get("boundaries") or []
    outlines = (named,) if isinstance(named, str) else tuple(named)
    if unknown := [name for name in outlines if name not in regions]:
        raise InputError(f"the data list has {unknown[0]} in `boundaries`: expected a region, {', '.join(regions)}.")
    if outlines and datalist.get("ignore") is not None:
        raise InputError(
            "the data list has `boundaries` and a value to `ignore`: what an outline encloses cannot be scored where"
            " parts do not count; remove one of the two."
        )
    return {
        "regions": regions,
        "boundaries": outlines,
        "known": lists.known_labels(datalist),
        "ignore": datalist.get("ignore"),
        "unit": datalist.get("unit", "mm"),
    }


def _stacks(entries: Mapping[str, Mapping[str, Any]], jobs: Sequence[Job], kept: Path) -> list[Stack]:
    """The slices of each patient, or of each volume of a patient with several, in the order of their index, by rater.

    A rater who has not drawn each slice of a volume is left out, unless nobody has.
    """
    slices: dict[tuple[str, str], dict[str, list[tuple[int, Job]]]] = defaultdict(lambda: defaultdict(list))
    for job in jobs:
        entry = entries[job.case]
        if "slice" in entry:
            slices[job.patient, entry.get("volume", job.patient)][job.rater].append((int(entry["slice"]), job))
    volumes = Counter(patient for patient, _ in slices)
    stacks = []
    for (patient, volume), by_rater in slices.items():
        case = patient if volumes[patient] == 1 else volume
        whole = len({place for members in by_rater.values() for place, _ in members})
        for rater, members in by_rater.items():
            places, own = zip(*sorted(members, key=lambda member: member[0]), strict=True)
            if twice := [place for place, number in Counter(places).items() if number > 1]:
                raise InputError(
                    f"slice {twice[0]} of {case} is listed twice: each index is one slice; regenerate the data list"
                    " with `python -m bundle prepare`."
                )
            if len(own) == whole or all(len(each) < whole for each in by_rater.values()):
                file = kept / rater / f"{case.replace('/', '_')}.json"
                stacks.append(Stack(case, list(own), list(places), str(file), rater))
    return stacks


def _score_all(score: Callable[[Task], Scores], tasks: Sequence[Task], workers: int | None, unit: str) -> list[Scores]:
    own = distributed.own_part(tasks)
    scores = map_in_processes(score, own, workers, desc="scoring", unit=unit)
    keys = [_key(task) for task in own]
    of_all = dict(distributed.gather_items(list(zip(keys, scores, strict=True))))
    return [of_all[_key(task)] for task in tasks]


def _key(task: Job | Stack) -> tuple[str, ...]:
    return task.case, task.rater, getattr(task, "compared", "")


def _find_probabilities(folder: str | os.PathLike | None, found: Mapping[str, str]) -> dict[str, Path]:
    if folder is None:
        return {}
    soft = match_predictions(images_in(folder), found, PROBABILITY_SUFFIXES)
    if missing := [case for case in found if case not in soft]:
        raise InputError(
            f"{folder} holds no probabilities for case {missing[0]}: give one file for every prediction, or none (leave"
            " out --probabilities, or move that folder away)."
        )
    return soft
