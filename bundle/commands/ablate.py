"""The `ablate` command: train a baseline and its variants, and say what each variant changes."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import PositiveInt
from rich.console import Console
from rich.table import Column
from rich.text import Text

from bundle.analysis.ablation import compare_variants, rank_variants
from bundle.analysis.strict_json import to_strict_json
from bundle.commands.arguments import Optional, check_arguments
from bundle.commands.shared import Outcome, print_lines, score_table
from bundle.commands.workflows import find_config, training_files
from bundle.studies import ablation as studies
from bundle.studies.crossval import JOBS, choose_folds
from bundle.studies.jobs import StudyJob
from bundle.studies.local import run_locally, visible_gpus
from bundle.studies.slurm import run_by_slurm
from scripts.data.datalist import check_datalist, datalist_hash, read_datalist
from scripts.errors import EXIT_SOME_FAILED, InputError
from scripts.files import read_mapping

COSTS = "costs"


@check_arguments
def ablate(
    study: Path,
    *runs: Path,
    datalist: Optional[Path] = None,
    out: Path,
    dataset_dir: Optional[Path] = None,
    dry_run: bool = False,
    costs: bool = True,
    executor: Literal["local", "slurm"] = "local",
    parallel: Optional[PositiveInt] = None,
    processes: PositiveInt = 1,
    sbatch: str = "",
) -> Outcome | None:
    """Train a baseline and its variants, and say what each changes: one page, one table, paired by patient.

    STUDY is a short YAML file: the baseline (task, recipes, settings), variants on top of it, seeds and folds; see
    configs/studies/ and docs/studies.md. The same command continues after any interruption; OUT/results.csv and
    OUT/runs.csv alone let it continue on another machine. With run folders in place of STUDY, the command compares runs
    that exist by the settings in which they differ: a table and a figure.

    Examples:
        python -m bundle ablate configs/studies/defaults.yaml --datalist brats.json --out studies/defaults --dry_run
        python -m bundle ablate configs/studies/defaults.yaml --datalist brats.json --dataset_dir /data/BraTS2021 \\
            --out studies/defaults
        python -m bundle ablate mine.yaml --datalist brats.json --out studies/mine --executor slurm \\
            --sbatch="--partition=gpu --gpus=1 --time=12:00:00"
        python -m bundle ablate runs/a runs/b runs/c --out compared

    Args:
        study: the YAML file, or the folder of a run.
        runs: further folders of runs.
        datalist: the data list (`python -m bundle prepare`); for a study.
        out: a new folder for all runs and results, or that of a study to continue.
        dataset_dir: the folder that the list's paths start from; by default the one that holds the list.
        dry_run: print the runs and their estimated hours, and end.
        costs: measure a training step of each variant in turn with the baseline's.
        executor: local, on this machine, one training per GPU; or slurm, as an array of jobs.
        parallel: trainings at a time on this machine; by default as many as the GPUs allow.
        processes: of each training, by torchrun, one per GPU.
        sbatch: options of sbatch for each job, in quotes.
    """
    if study.is_dir() or runs:
        return _compare_runs([study, *runs], out)
    if datalist is None:
        raise InputError("ablate needs --datalist: the data list that the variants are trained with.")
    plan = studies.read_study(study)
    for variant in plan.variants:
        training_files(plan.task, variant.recipes)  # of names that do not exist, or recipes that conflict
    content, start = read_datalist(datalist), dataset_dir or datalist.parent
    for fold in plan.folds:
        choose_folds(content, str(fold))
    recipes = {name: Path(find_config("recipe", name)) for variant in plan.variants for name in variant.recipes}
    settings = studies.describe_settings(plan, Path(find_config("task", plan.task)), recipes)
    given = {"settings": settings, "datalist": datalist_hash(content), "part": plan.part}
    _, known = studies.read_results(out)
    studies.refuse_other_results(known, **given, out=out)
    jobs = studies.study_jobs(plan, datalist, start, out, processes)
    done = {*known[studies.RUN_KEYS].itertuples(index=False, name=None)}
    to_train = {key: job for key, job in jobs.items() if key not in done}
    if dry_run:
        _print_plan(plan, to_train, known)
        return None
    check_datalist(content, start)
    folder = out / JOBS
    folder.mkdir(parents=True, exist_ok=True)
    asked = [*to_train.values(), *([_cost_job(study, datalist, start, out, plan, settings)] if costs else [])]
    collect = partial(studies.collect_results, jobs, out, **given)
    if executor == "slurm":
        run_by_slurm(asked, folder, sbatch, after_job=collect)
    else:
        run_locally(asked, folder, parallel, visible_gpus(), after_job=collect)
    results, finished = (studies.select_runs(table, plan.runs()) for table in collect())
    if studies.BASELINE not in {*finished["variant"]}:
        raise InputError(f"no run of the baseline has finished: {_failures(to_train, folder, studies.BASELINE)[0]}.")
    rows = compare_variants(results, studies.BASELINE, plan.difference, plan.steps())
    failed = {name: _failures(to_train, folder, name) for name in settings}
    page = _write_page(out, study.stem, plan, rows, results, finished, failed)
    _print_rows(study.stem, rows, plan.difference)
    print(f"written: {page}, {out / 'table.csv'}; every number: {out / 'results.csv'}")
    lost = any(failed.values())
    return Outcome(lambda: to_strict_json(rows), EXIT_SOME_FAILED if lost else 0)


def _compare_runs(runs: Sequence[Path], out: Path) -> Outcome:
    from bundle.analysis.run_settings import compare_runs
    from bundle.reporting.run_table import write_run_table

    table, settings = compare_runs(runs)
    written = write_run_table(table, settings, out)
    print(table.to_string(index=False))
    print(f"written: {written[0]} and {written[1]}")
    return Outcome(lambda: to_strict_json(table.to_dict("records")))


def _cost_job(
    study: Path, datalist: Path, start: Path, out: Path, plan: studies.Study, settings: Mapping[str, str]
) -> StudyJob:
    device = plan.variants[0].options().get("device")
    words = ("bench", "variants", "--study", str(study), "--datalist", str(datalist), "--dataset_dir", str(start))
    words += ("--out", str(out / f"{COSTS}.json"), *(("--device", device) if device else ()))
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return StudyJob(f"{COSTS}-{digest}", (words,), (str(out / f"{COSTS}.json"),))


def _failures(jobs: Mapping[tuple[str, int, int], StudyJob], folder: Path, variant: str) -> list[str]:
    return [job.why_failed(folder) for key, job in jobs.items() if key[0] == variant and not job.is_finished(folder)]


def _print_plan(plan: studies.Study, to_train: Mapping[tuple[str, int, int], Any], runs: pd.DataFrame) -> None:
    """The runs, and their hours as far as they are known."""
    measured = runs.groupby("variant")["minutes"].mean().to_dict() if len(runs) else {}
    limits = {variant.name: variant.settings.get("max_minutes") for variant in plan.variants}
    total, unknown = 0.0, 0
    for name, seed, fold in to_train:
        minutes = measured.get(name) or limits[name] or measured.get(studies.BASELINE)
        unknown += minutes is None
        total += (minutes or 0) / 60
        print(f"{name}: seed {seed}, fold {fold}" + (f", about {minutes / 60:.2f} h" if minutes else ""))
    left = f"; {unknown} of unknown length: set max_minutes, or see after the first run" if unknown else ""
    print(f"{len(to_train)} runs to train, {len(plan.runs()) - len(to_train)} finished; {total:.1f} hours{left}")


def _write_page(
    out: Path,
    title: str,
    plan: studies.Study,
    rows: Sequence[Mapping[str, Any]],
    results: pd.DataFrame,
    runs: pd.DataFrame,
    failed: Mapping[str, list[str]],
) -> Path:
    from bundle.reporting.ablation_page import write_ablation

    costs = _read_costs(out / f"{COSTS}.json")
    minutes = runs.groupby("variant")["minutes"].mean()
    baseline, variants = plan.variants[0], []
    for variant in plan.variants:
        own = costs.get(variant.name, {})
        own |= {"minutes": float(minutes[variant.name])} if variant.name in minutes else {}
        variants.append(
            {
                "name": variant.name,
                "changes": _changes(baseline, variant) if variant is not baseline else _describe(baseline, plan.task),
                "runs": int((runs["variant"] == variant.name).sum()),
                "failed": failed[variant.name],
                "costs": own or None,
            }
        )
    patients = int(results["patient"].nunique())
    warnings = [f"{patients} patients decided between these variants: a score of the best one is too high on them."]
    if plan.part == "validation":
        warnings.append("They also selected the checkpoint of each run.")
    if len(plan.seeds) == 1:
        warnings.append("One seed: the intervals leave out the variation between trainings, which can be larger.")
    about = {"part": plan.part, "seeds": plan.seeds, "folds": plan.folds, "patients": patients}
    about |= {"difference": plan.difference, "warnings": warnings}
    return write_ablation(out, title, rows, variants, rank_variants(results), about)


def _read_costs(path: Path) -> dict[str, dict[str, float]]:
    """Of each variant: seconds and ratio of a step, million weights, GiB of a step's tensors."""
    if not path.is_file():
        return {}
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in read_mapping(path)["subjects"][0]["rows"]:
        name, _, kind = row["name"].partition(": ")
        key = {"weights": "weights", "tensors of a step": "memory"}.get(kind, "seconds")
        found[name][key] = row["median"]
        found[name] |= {"ratio": row["ratio"]} if key == "seconds" else {}
    return found


def _describe(baseline: studies.Variant, task: str) -> str:
    return ", ".join([f"task {task}", *baseline.recipes, *(f"{k}: {_short(v)}" for k, v in baseline.settings.items())])


def _changes(baseline: studies.Variant, variant: studies.Variant) -> str:
    """What differs from the baseline, and only that."""
    changes = [f"without {name}" for name in baseline.recipes if name not in variant.recipes]
    changes += [name for name in variant.recipes if name not in baseline.recipes]
    new = {name: value for name, value in variant.settings.items() if baseline.settings.get(name, ...) != value}
    return ", ".join([*changes, *(f"{name}: {_short(value)}" for name, value in new.items())])


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _print_rows(title: str, rows: Sequence[Mapping[str, Any]], difference: float) -> None:
    from bundle.reporting.ablation_page import variant_sentence
    from bundle.reporting.words import NOTHING, format_change, format_p, format_range, format_share3

    words = Column("variant", overflow="fold"), Column("region")
    table = score_table(title, *words, "n", "Dice", "difference", "95 %", "p, Holm")
    for row in rows:
        table.add_row(
            Text(row["variant"]),
            Text(row["region"]),
            str(row["patients"]),
            format_share3(row["mean"]),
            format_change(row["difference"]),
            format_range(row["interval"], format_change),
            NOTHING if row["p_holm"] is None else format_p(row["p_holm"]),
        )
    console = Console()
    console.print(table)
    names = dict.fromkeys(row["variant"] for row in rows)
    own = {name: [row for row in rows if row["variant"] == name] for name in names}
    print_lines(console, [f"{name}: {variant_sentence(found, difference)}" for name, found in own.items()])
