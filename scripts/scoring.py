"""How good is each prediction? Judges a folder of label maps against a data list: `cases.csv`, one row a number.

The rows are (case, patient, region, metric, value, unit, note), in the order of the list, its regions and
`scripts.metrics.METRICS`. `note` says `absent`, `missed` or `hallucinated` where a mask is empty. What concerns the
whole case stands under region `all`: `ece` and `brier`, `resampled` (1, with the reason), and `failed` (1, with the
reason) for a case that could not be judged: it has no other row, and counts.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from scripts import datalist as lists
from scripts.case_scores import Job, definitions, judge_case
from scripts.errors import InputError
from scripts.files import write_json, written_whole
from scripts.lesions import BRATS_2023, BratsRule
from scripts.predictions import PROBABILITY_SUFFIXES, images_in, match, nearest_names

COLUMNS = ["case", "patient", "region", "metric", "value", "unit", "note"]
LOW_DICE = 0.7


def judge(
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
    about: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Judge a folder of label maps: writes `cases.csv` and `judged.json` to `output_dir` and returns the rows.

    Cases run in parallel processes. Interrupted, the same call goes on where it stopped.

    Args:
        datalist: what `scripts.datalist.read` gave.
        dataset_dir: the folder that the list's paths start from.
        predictions: the folder of label maps, named after the cases (see `scripts.predictions`).
        output_dir: the folder to write to.
        part: `test`, `validation` (with `fold`) or `labelled`.
        fold: the fold that `validation` means.
        probabilities: a folder of NIfTI files named like the predictions, with one map a region along the last axis.
        label_map: value in the predictions to value of the scheme.
        resample: take predictions on another grid, by nearest neighbour, and note it.
        brats: the parameters of the BraTS 2023 lesion-wise scores.
        workers: number of processes; as many as there are cores by default.
        about: what else to write down about the predictions (checkpoint, command ...).

    Raises:
        InputError: no case can be judged, a label is missing or has changed, or a folder is wrong. A single case that
            cannot be judged is a row instead.
    """
    chosen = lists.select(datalist, dataset_dir, part, fold)
    names = {entry["case"] for entry in chosen}
    labels = [{"image": [], "label": entry["label"]} for entry in datalist["training"] if entry["case"] in names]
    lists.check_files(datalist, labels, dataset_dir)
    files = images_in(predictions)
    found = match(files, [entry["case"] for entry in chosen])
    spare = set(files) - set(found.values())
    soft = _find_probabilities(probabilities, found)
    output_dir = Path(output_dir)
    kept = output_dir / ".scoring"
    regions = {name: [int(value) for value in values] for name, values in datalist["regions"].items()}
    label_map = {int(a): int(b) for a, b in (label_map or {}).items()}
    jobs = [
        Job(
            case=entry["case"],
            patient=entry["patient"],
            label=entry["label"],
            prediction=str(found[entry["case"]]) if entry["case"] in found else None,
            hint="" if entry["case"] in found else nearest_names(entry["case"], spare),
            probability=str(soft[entry["case"]]) if entry["case"] in soft else None,
            regions=regions,
            known=sorted({*datalist["labels"].values(), *(value for values in regions.values() for value in values)}),
            rename=label_map,
            unit=datalist.get("unit", "mm"),
            resample=bool(resample),
            brats=brats,
            kept=str(kept / f"{entry['case']}.json"),
        )
        for entry in chosen
    ]
    rows = _judge_all(jobs, workers)
    frame = pd.DataFrame([row for job in jobs for row in rows[job.case]], columns=COLUMNS)
    failed = frame[frame["metric"] == "failed"]
    with written_whole(output_dir / "cases.csv") as temporary:
        frame.to_csv(temporary, index=False)
    write_json(
        output_dir / "judged.json",
        {
            "cases": len(jobs),
            "patients": len({job.patient for job in jobs}),
            "failed": dict(zip(failed["case"], failed["note"], strict=True)),
            "part": part if fold is None else f"{part} (fold {fold})",
            "predictions": str(predictions),
            "files_of_no_case": len(spare),
            "datalist": lists.list_hash(datalist),
            "label_map": label_map,
            "resampled": list(frame.loc[frame["metric"] == "resampled", "case"]),
            "definitions": definitions(brats),
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("numpy", "scipy", "nibabel")},
            "about": dict(about or {}),
        },
    )
    shutil.rmtree(kept, ignore_errors=True)
    if len(failed) == len(jobs):
        first = failed.iloc[0]
        raise InputError(f"none of the {len(jobs)} cases could be judged; case {first['case']}: {first['note']}")
    return frame


def read_cases(path: str | os.PathLike) -> pd.DataFrame:
    """The rows of a `cases.csv`: text stays text (a case may be called 007), inf stays inf.

    Raises:
        InputError: the file is missing or is no such table.
    """
    try:
        frame = pd.read_csv(path, dtype={name: str for name in COLUMNS if name != "value"}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a table ({error}): make it with `python -m bundle score`."
        ) from error
    if list(frame.columns) != COLUMNS:
        raise InputError(f"{path} has columns {', '.join(frame.columns)}: expected {', '.join(COLUMNS)}.")
    try:
        return frame.astype({"value": float})
    except ValueError as error:
        raise InputError(f"{path} has a value that is no number ({error}): each row needs one.") from error


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a region: `n` cases, Dice (median, q1, q3, minimum, how many below 0.7), HD95 (median, how many inf).

    A failed case counts as Dice 0 and HD95 inf in every region.
    """
    n_failed = int((frame["metric"] == "failed").sum())
    rows = {}
    for region in frame.loc[frame["metric"] == "dice", "region"].unique():
        own = frame[frame["region"] == region]
        dice = np.append(own.loc[own["metric"] == "dice", "value"], np.zeros(n_failed))
        hd95 = np.append(own.loc[own["metric"] == "hd95", "value"], np.full(n_failed, np.inf))
        q1, median, q3 = np.quantile(dice, [0.25, 0.5, 0.75])
        rows[region] = {
            "n": len(dice),
            "failed": n_failed,
            "median": median,
            "q1": q1,
            "q3": q3,
            "minimum": dice.min(),
            "low": int((dice < LOW_DICE).sum()),
            "hd95_median": np.median(hd95),
            "hd95_inf": int(np.isinf(hd95).sum()),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("region")


def print_summary(frame: pd.DataFrame, console: Console | None = None) -> None:
    """Print `summary` as a table, then every case that failed with its reason."""
    console = console or Console()
    units = frame.loc[frame["metric"] == "hd95", "unit"]
    unit = units.iloc[0] if len(units) else "mm"
    failed = frame[frame["metric"] == "failed"]
    table = Table(title=f"{frame['case'].nunique()} cases of {frame['patient'].nunique()} patients")
    table.add_column("region", overflow="fold")
    for heading in ("n", "Dice median", "q1", "q3", "minimum", f"< {LOW_DICE}", f"HD95 {unit} median", "inf"):
        table.add_column(heading, justify="right")
    for region, row in summary(frame).iterrows():
        dice = (f"{row[name]:.3f}" for name in ("median", "q1", "q3", "minimum"))
        table.add_row(
            str(region),
            f"{row['n']:.0f}",
            *dice,
            f"{row['low']:.0f}",
            f"{row['hd95_median']:.1f}",
            f"{row['hd95_inf']:.0f}",
        )
    console.print(table)
    if len(failed):
        console.print(f"{len(failed)} of them failed and counts as Dice 0 and HD95 inf:", style="red", soft_wrap=True)
    for case, reason in zip(failed["case"], failed["note"], strict=True):
        console.print(f"  {case}: {reason}", markup=False, highlight=False, soft_wrap=True)


def _judge_all(jobs: list[Job], workers: int | None) -> dict[str, list[list]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers or cores, len(jobs))
    rows: dict[str, list[list]] = {}
    if workers <= 1:
        for job in tqdm(jobs, desc="scoring", unit="case"):
            rows[job.case] = judge_case(job)
        return rows
    with ProcessPoolExecutor(workers, initializer=_leave_interrupts_to_the_parent) as pool:
        waiting = {pool.submit(judge_case, job): job.case for job in jobs}
        try:
            for done in tqdm(as_completed(waiting), total=len(waiting), desc="scoring", unit="case"):
                rows[waiting[done]] = done.result()
        except BrokenProcessPool as error:
            raise InputError(
                f"a scoring process was killed, most likely for memory: take fewer than {workers} --workers; what was"
                " judged is kept."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
    return rows


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _find_probabilities(folder: str | os.PathLike | None, found: Mapping[str, Path]) -> dict[str, Path]:
    if folder is None:
        return {}
    soft = match(images_in(folder), found, PROBABILITY_SUFFIXES)
    if missing := [case for case in found if case not in soft]:
        raise InputError(
            f"{folder} holds no probabilities for case {missing[0]}: give one file for every prediction, or leave out"
            " --probabilities."
        )
    return soft
