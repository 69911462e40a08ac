"""The `crossval` command: train every fold, and score each patient by the network that never saw them."""

from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from bundle.analysis.mask_quality import describe_calibration, summarise_predictions
from bundle.commands.arguments import Optional, check_arguments
from bundle.commands.calibrate import print_predictions
from bundle.commands.report import print_summary
from bundle.commands.shared import Outcome
from bundle.commands.workflows import list_configs as list_choices
from bundle.commands.workflows import require_root, training_files
from bundle.studies import crossval as studies
from bundle.studies.calibrating import calibrate_runs
from bundle.studies.jobs import refuse_unfinished
from bundle.studies.local import run_locally, visible_gpus
from bundle.studies.postprocessing import choose_postprocessing
from bundle.studies.slurm import run_by_slurm
from scripts.data.datalist import check_datalist, datalist_hash, read_datalist
from scripts.errors import InputError
from scripts.files import write_json
from scripts.inference.mask_quality import NUMBERS
from scripts.inference.predicted_dice import QUALITY
from scripts.network.weights import read_settings

__all__ = ["crossval", "list_choices"]


@check_arguments
def crossval(
    task: str,
    *recipes: str,
    datalist: Path,
    out: Path,
    dataset_dir: Optional[Path] = None,
    folds: str = "all",
    sites: bool = False,
    executor: Literal["local", "slurm"] = "local",
    parallel: Optional[PositiveInt] = None,
    processes: PositiveInt = 1,
    sbatch: str = "",
    **settings: str,
) -> Outcome:
    """Train every fold, and score each patient by the network that was trained without them: one table, one report.

    Trains OUT/fold0 and so on, segments each fold's validation patients, gathers OUT/masks, OUT/cases.csv and
    OUT/report.html, chooses which small components to drop, and calibrates the Dice that is predicted for new masks
    (docs/quality.md). The same command continues after any interruption.
    Each patient has selected the checkpoint of their fold's network, which the report says; held-out test patients
    take no part.

    Examples:
        python -m bundle crossval brats --datalist brats.json --dataset_dir /data/BraTS2021 --out runs/cv
        python -m bundle crossval brats focal_tversky --datalist brats.json --out runs/cv --max_minutes 240
        python -m bundle crossval brats --datalist brats.json --out runs/sites --sites
        python -m bundle crossval brats --datalist brats.json --out runs/cv --executor slurm \\
            --sbatch="--partition=gpu --gpus=1 --cpus-per-task=12 --time=24:00:00"

    Args:
        task: what is segmented: a name from the list below, or a YAML file.
        recipes: how it is trained, each changing one idea; no two may set the same section.
        datalist: the data list (`python -m bundle prepare`), with its folds.
        out: a new folder for all runs, or that of a cross-validation to continue.
        dataset_dir: the folder that the list's paths start from; by default the one that holds the list.
        folds: the folds to train, such as 0,2; all by default. Others can be added later by the same command.
        sites: leave one site out at a time, in place of the list's folds (`prepare --sites`).
        executor: local, on this machine, one training per GPU; or slurm, as an array of jobs.
        parallel: trainings at a time on this machine; by default as many as the GPUs allow.
        processes: of each training, by torchrun, one per GPU.
        sbatch: options of sbatch for each job, in quotes.
        settings: any setting of configs/train.yaml, such as --max_minutes 240; those of inference, such as --overlap,
            count in the evaluation too, and --save_probabilities True keeps probabilities.
    """
    if "fold" in settings or "run_dir" in settings:
        raise InputError("crossval sets the fold and the folder of each run: choose with --folds and --out.")
    if sbatch and executor == "local":
        raise InputError("--sbatch is for --executor slurm.")
    require_root()
    training_files(task, recipes)  # of names that do not exist, or recipes that conflict
    content, start = read_datalist(datalist), dataset_dir or datalist.parent
    named: dict[int, str] = {}
    if sites:
        content, named = studies.hold_out_sites(content)
    check_datalist(content, start)
    chosen = studies.choose_folds(content, folds)
    record = {
        "task": task,
        "recipes": list(recipes),
        "settings": settings,
        "sites": {str(fold): site for fold, site in named.items()},
        "folds": chosen,
        "datalist": (out / "datalist.json" if sites else datalist).as_posix(),
        "dataset_dir": start.as_posix(),
        "sha256": datalist_hash(content),
    }
    record = studies.open_crossval(out, record)
    if sites:
        write_json(out / "datalist.json", content)
    folder = out / studies.JOBS
    folder.mkdir(exist_ok=True)
    jobs = studies.fold_jobs(record, out, processes)
    left = [job.name for job in jobs if not job.is_finished(folder)]
    print(
        f"{len(jobs)} folds, {len(jobs) - len(left)} finished before" + (f"; to do: {', '.join(left)}" if left else "")
    )
    if executor == "slurm":
        run_by_slurm(jobs, folder, sbatch)
    else:
        run_locally(jobs, folder, parallel, visible_gpus())
    refuse_unfinished(jobs, folder)
    studies.pool_folds(out, record, content)
    runs = [out / f"fold{fold}" for fold in record["folds"]]
    chosen_before = all("min_component_probability" in read_settings(run) for run in runs)
    if not studies.ALL_COMPONENTS.keys() & settings.keys() and (left or not chosen_before):
        print("components: " + "\n  ".join(choose_postprocessing(out, content, start, runs).notes))
    measured = all((run / studies.EVALUATED / NUMBERS).is_file() for run in runs)
    if measured and (left or not all((run / QUALITY).is_file() for run in runs)):
        found = calibrate_runs(out)
        title = "Predicted Dice, each patient by a calibration without them"
        print_predictions(summarise_predictions(found.predicted), title, describe_calibration(found.content["regions"]))

    from bundle.analysis.evaluation import read_evaluation
    from bundle.analysis.scored_scans import open_scans
    from bundle.reporting.report_page import write_report

    evaluation = read_evaluation(out)
    scans = open_scans(evaluation, record["datalist"], record["dataset_dir"])
    written = write_report(evaluation, out.resolve().name, scans=scans)
    print_summary(written.summary)
    print(f"written: {written.page}; masks: {out / 'masks'}")
    return Outcome(lambda: written.summary, int(bool(written.summary["failed"] or written.summary["missing"])))
