"""The `smoke` command: the full pipeline on synthetic patients in about a minute, from data to a new scan segmented."""

import datetime
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import run
from rich.console import Console

from bundle.cohort.case_views import view_case
from bundle.commands.phantom import phantom
from bundle.commands.prepare import prepare
from bundle.drawing.slices import draw_predictions, evenly_spaced
from scripts.data import datalist
from scripts.data.case_files import Case
from scripts.errors import InputError
from scripts.scoring.cohort import read_cases
from scripts.scoring.summary import print_summary

TASK = "configs/tasks/phantom.yaml"
RECIPE = "configs/recipes/smoke.yaml"
PATIENTS, SCANS = 16, 1  # with a label, and without: the new scan that is segmented at the end


def smoke(out: str | None = None, seed: int = 0) -> None:
    """Make synthetic patients, train on some, evaluate on others, segment a new scan; about a minute on two CPU cores.

    Each step is printed as the command that does it alone. Run it from the repository's root.

    Examples:
        python -m bundle smoke
        python -m bundle smoke --out /data/smoke

    Args:
        out: a new folder for everything that is made; by default runs/smoke_<time>.
        seed: of patients, split and training.
    """
    began = time.monotonic()
    folder = Path(str(out) if out is not None else f"runs/smoke_{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} already holds files: give a new folder with --out.")
    if not Path("configs/train.yaml").is_file():
        raise InputError(f"{Path.cwd()} has no configs/train.yaml: run this from the repository's root.")
    warnings.filterwarnings("ignore", message="parsing config_file")  # the configs are our own
    patients, cases, results, evaluation, predictions = (
        str(folder / name) for name in ("patients", "datalist.json", "run", "evaluation", "predictions")
    )

    _say(f"phantom {patients} --cases {PATIENTS} --unlabelled {SCANS} --seed {seed}")
    phantom(patients, cases=PATIENTS, unlabelled=SCANS, seed=seed)

    _say(f"prepare {patients} --out {cases} --folds 4 --test 0.25 --allow-unlabelled --seed {seed}")
    prepare(patients, out=cases, folds=4, test=0.25, allow_unlabelled=True, seed=seed)

    given = {"datalist": cases, "dataset_dir": patients}
    _workflow("training", ["configs/train.yaml", TASK, RECIPE], **given, run_dir=results, seed=seed)
    settings = f"{results}/settings.yaml"
    _workflow("evaluating", ["configs/evaluate.yaml", settings], **given, output_dir=evaluation)
    inference = ["configs/inference.yaml", settings]
    _workflow("inferring", inference, input=cases, dataset_dir=patients, output_dir=predictions)

    picture = folder / "predictions.png"
    _draw(cases, patients, Path(evaluation, "masks"), picture)
    print("\nScored on patients that took no part in training:")
    print_summary(read_cases(Path(evaluation, "cases.csv")))
    print(f"picture: {picture}")
    print(f"new scan: {', '.join(map(str, sorted(Path(predictions).glob('*.nii.gz'))))}")
    print(f"all of it in {time.monotonic() - began:.0f} s: {folder}")


def _say(command: str, program: str = "bundle") -> None:
    Console(soft_wrap=True, highlight=False).print(f"\n$ python -m {program} {command}", style="bold", markup=False)


def _workflow(run_id: str, files: Sequence[str], **settings: Any) -> None:
    quoted = "[" + ",".join(f"'{name}'" for name in files) + "]"
    options = "".join(f" --{name} {value}" for name, value in settings.items())
    _say(f'run {run_id} --config_file "{quoted}"{options}', "monai.bundle")
    run(run_id=run_id, config_file=list(files), **settings)


def _draw(cases: str, patients: str, masks: Path, path: Path) -> None:
    """Up to three test cases: input, label, prediction."""
    content = datalist.read_datalist(cases)
    shown = []
    for entry in evenly_spaced(datalist.select_cases(content, patients, "test"), 3):
        case = Case(entry["case"], [Path(name) for name in entry["image"]], Path(entry["label"]))
        shown.append(view_case(case, prediction=masks / f"{case.case}.nii.gz"))
    draw_predictions(shown, path, content["channels"], content["labels"], title="patients set aside")
