"""Ablations: a baseline and its variants, trained with the same seeds and folds, and their raw results.

OUT/runs/NAME/ are the runs, OUT/results.csv the scores of each case, OUT/runs.csv one row per run with what it was
made of, so that the two tables alone let a study go on elsewhere.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from bundle.analysis.evaluation import read_evaluation
from bundle.studies.crossval import evaluation_step, training_step
from bundle.studies.jobs import StudyJob
from scripts.errors import InputError
from scripts.files import read_mapping, write_json
from scripts.scoring.run import merge_roles, rename_former_roles
from scripts.scoring.tables import read_table, write_table

BASELINE = "baseline"
RUN_KEYS = ["variant", "seed", "fold"]
SCORES = ["dice", "nsd_2mm", "hd95"]
RESULT_COLUMNS = [*RUN_KEYS, "case", "patient", "region", "note", *SCORES]
RUN_COLUMNS = [*RUN_KEYS, "settings", "datalist", "part", "steps", "minutes"]
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
KEYS = ("task", "recipes", "settings", "variants", "seeds", "folds", "part", "difference")
VARIANT_KEYS = ("recipes", "settings", "without", "against")


@dataclass(frozen=True)
class Variant:
    """One way of training: recipes and settings, those of the baseline included.

    `against` are other variants that it is compared with, next to the baseline.
    """

    name: str
    recipes: tuple[str, ...]
    settings: Mapping[str, Any]
    against: tuple[str, ...] = ()

    def options(self) -> dict[str, str]:
        """The settings as text, as on the command line."""
        return {name: format_setting(value) for name, value in self.settings.items()}


@dataclass(frozen=True)
class Study:
    """What is compared: a task, the baseline first among its variants, seeds, folds and the evaluated part.

    `difference` is the smallest difference in Dice that matters.
    """

    task: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    part: str
    difference: float

    def steps(self) -> list[tuple[str, str]]:
        """The variants that are compared with another one than the baseline, and that one."""
        return [(variant.name, other) for variant in self.variants for other in variant.against]

    def runs(self) -> list[tuple[str, int, int]]:
        """The runs: variant, seed and fold."""
        return list(product([variant.name for variant in self.variants], self.seeds, self.folds))


def read_study(path: Path) -> Study:
    """Read the YAML of a study; docs/studies.md describes it.

    Raises:
        InputError: a key is missing or unknown, or a value is of another form.
    """
    content = read_mapping(path)
    _refuse_unknown(content, KEYS, path)
    if not isinstance(content.get("task"), str) or not isinstance(content.get("variants"), dict):
        raise InputError(f"{path} needs a task, and variants with a name each: see configs/studies/ for examples.")
    recipes, settings = _recipes(content, path), _settings(content, path)
    variants = [Variant(BASELINE, recipes, settings)]
    for name, own in content["variants"].items():
        own = own or {}
        if not PLAIN.fullmatch(str(name)) or name == BASELINE or not isinstance(own, dict):
            raise InputError(
                f"{path}: the variant {name!r} needs a plain name other than {BASELINE} (letters, digits, _ . -), and"
                f" below it {', '.join(VARIANT_KEYS)}."
            )
        _refuse_unknown(own, VARIANT_KEYS, path)
        if missing := {*_recipes(own, path, "without")} - {*recipes}:
            raise InputError(f"{path}: {name} leaves out {min(missing)}, which is no recipe of the baseline.")
        kept = tuple(recipe for recipe in recipes if recipe not in _recipes(own, path, "without"))
        if unknown := {*_recipes(own, path, "against")} - ({*content["variants"]} - {name}):
            raise InputError(f"{path}: {name} is compared with {min(unknown)}, which is no other variant of the study.")
        own_settings = {**settings, **_settings(own, path)}
        variants.append(Variant(str(name), kept + _recipes(own, path), own_settings, _recipes(own, path, "against")))
    part, difference = content.get("part", "validation"), content.get("difference", 0.01)
    if part not in ("validation", "test"):
        raise InputError(f"{path}: part is {part!r}: expected validation or test.")
    if isinstance(difference, bool) or not isinstance(difference, int | float) or not 0 < difference < 1:
        raise InputError(f"{path}: difference is {difference!r}: expected a Dice between 0 and 1, such as 0.01.")
    numbers = {key: _numbers(content, key, path) for key in ("seeds", "folds")}
    return Study(content["task"], tuple(variants), part=part, difference=float(difference), **numbers)


def study_jobs(
    study: Study, datalist: Path, dataset_dir: Path, out: Path, processes: int = 1
) -> dict[tuple[str, int, int], StudyJob]:
    """The job of each run: a training and an evaluation."""
    jobs = {}
    variants = {variant.name: variant for variant in study.variants}
    for name, seed, fold in study.runs():
        key = f"{name}_seed{seed}_fold{fold}"
        run, variant = out / "runs" / key, variants[name]
        settings = {**variant.options(), "seed": str(seed), "fold": str(fold)}
        scored = run / "scored"
        steps = (
            training_step(study.task, variant.recipes, settings, datalist, dataset_dir, run),
            evaluation_step(run, scored, study.part, settings),
        )
        jobs[name, seed, fold] = StudyJob(key, steps, (f"{run}/model.pt", f"{scored}/cases.csv"), processes)
    return jobs


def describe_settings(study: Study, task_file: Path, recipe_files: Mapping[str, Path]) -> dict[str, str]:
    """A hash of all that a variant is made of: the content of its task and recipes, and its settings."""
    found = {}
    for variant in study.variants:
        recipes = [read_mapping(recipe_files[name]) for name in variant.recipes]
        whole = [read_mapping(task_file), recipes, dict(variant.settings)]
        found[variant.name] = hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return found


def read_results(out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """results.csv and runs.csv of a study, as far as both have a run; empty tables where there are none.

    Raises:
        InputError: a table cannot be read or lacks a column.
    """
    tables = []
    for name, columns in (("results.csv", RESULT_COLUMNS), ("runs.csv", RUN_COLUMNS)):
        path = out / name
        try:
            text = dict.fromkeys(("variant", "case", "patient", "region", "note", "settings", "datalist", "part"), str)
            table = read_table(path, dtype=text) if path.is_file() else pd.DataFrame(columns=columns)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as a table ({error}): restore it, or remove it.") from error
        if list(table.columns) != columns:
            raise InputError(f"{path} has the columns {', '.join(table)}: expected {', '.join(columns)}.")
        tables.append(table)
    known = [{*table[RUN_KEYS].itertuples(index=False, name=None)} for table in tables]
    both = [*set.intersection(*known)]  # a run that one of them lacks was not written, or copied, to its end
    results, runs = (select_runs(table, both) for table in tables)
    return results.astype(dict.fromkeys(SCORES, float)), runs


def select_runs(table: pd.DataFrame, runs: Sequence[tuple[str, int, int]]) -> pd.DataFrame:
    """The rows of these runs (variant, seed, fold)."""
    wanted = {*runs}
    return table.loc[[key in wanted for key in table[RUN_KEYS].itertuples(index=False, name=None)]]


def refuse_other_results(runs: pd.DataFrame, settings: Mapping[str, str], datalist: str, part: str, out: Path) -> None:
    """Refuse to mix results of a variant's earlier settings, of another data list or part, with new ones.

    Raises:
        InputError: names the variant.
    """
    for row in runs.itertuples(index=False):
        changed = "settings" if row.settings != settings.get(row.variant, row.settings) else ""
        changed = "part" if row.part != part else "data list" if row.datalist != datalist else changed
        if changed:
            raise InputError(
                f"{out / 'runs.csv'} holds results of {row.variant} with another {changed}: give the variant another"
                " name, or choose another --out."
            )


def collect_results(
    jobs: Mapping[tuple[str, int, int], StudyJob], out: Path, settings: Mapping[str, str], datalist: str, part: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add the finished runs of a study to its tables; returns both.

    The patients that were evaluated decide between variants: the record of each run says so from here on.
    """
    results, runs = read_results(out)
    known = {*runs[RUN_KEYS].itertuples(index=False, name=None)}
    rows, lines = [], []
    for key, job in jobs.items():
        if key in known or not job.is_finished(out / "jobs"):
            continue
        evaluation = read_evaluation(Path(job.results[1]).parent)
        scores = evaluation.scores.reindex(columns=["case", "patient", "region", "note", *SCORES])
        rows.append(scores.assign(**dict(zip(RUN_KEYS, key, strict=True)))[RESULT_COLUMNS])
        run = Path(job.results[0]).parent
        steps, minutes = read_length(run)
        lines.append([*key, settings[key[0]], datalist, part, steps, minutes])
        _record_decision(run, sorted(scores["patient"].unique()))
    if rows:
        results = pd.concat([table for table in (results, *rows) if len(table)], ignore_index=True)
        new = pd.DataFrame(lines, columns=RUN_COLUMNS)
        runs = pd.concat([runs, new], ignore_index=True) if len(runs) else new
        write_table(results, out / "results.csv")
        write_table(runs, out / "runs.csv")
    return results, runs


def read_length(run: Path) -> tuple[int, float]:
    """The steps and minutes of a run, by its history."""
    last = read_table(run / "history.csv").iloc[-1]
    return int(last["step"]), float(last["minutes"])


def format_setting(value: Any) -> str:
    """A value of a YAML file as the text of a command line."""
    return value if isinstance(value, str) else "null" if value is None else repr(value)


def _record_decision(run: Path, patients: Sequence[str]) -> None:
    """Patients that decide between variants have selected settings: an evaluation of this run will say so."""
    path = run / "environment.json"
    record = read_mapping(path)
    roles = rename_former_roles(record["patients"])
    new = [patient for patient in patients if patient not in roles["training"]]
    write_json(path, {**record, "patients": merge_roles(roles, {"validation": new})})


def _recipes(content: Mapping[str, Any], path: Path, key: str = "recipes") -> tuple[str, ...]:
    found = content.get(key) or []
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise InputError(f"{path}: {key} is {found!r}: expected a list of names, such as [focal_tversky].")
    return tuple(found)


def _settings(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    found = content.get("settings") or {}
    if not isinstance(found, dict):
        raise InputError(f"{path}: settings is {found!r}: expected names and values.")
    if taken := {"seed", "fold", "run_dir", "datalist", "dataset_dir"} & {*found}:
        raise InputError(f"{path} sets {min(taken)}, which the study sets for each run: use seeds and folds.")
    return found


def _numbers(content: Mapping[str, Any], key: str, path: Path) -> tuple[int, ...]:
    found = content.get(key, [0])
    whole = isinstance(found, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in found)
    if not found or not whole or len({*found}) < len(found):
        raise InputError(f"{path}: {key} is {found!r}: expected a list of different whole numbers, such as [0, 1].")
    return tuple(found)


def _refuse_unknown(content: Mapping[str, Any], known: Sequence[str], path: Path) -> None:
    if unknown := [key for key in content if key not in known]:
        raise InputError(f"{path} has the key {unknown[0]!r}: expected {', '.join(known)}.")
