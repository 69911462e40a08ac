"""The `smoke` command: the full pipeline on synthetic patients in minutes, from data to a new scan segmented."""

import datetime
import time
from pathlib import Path

from pydantic import NonNegativeInt
from rich.console import Console

from bundle.cohort.case_views import view_case
from bundle.commands.arguments import Optional, check_arguments
from bundle.commands.evaluate import evaluate
from bundle.commands.phantom import phantom
from bundle.commands.prepare import prepare
from bundle.commands.segment import segment
from bundle.commands.train import train
from bundle.commands.workflows import require_root
from bundle.drawing.slices import draw_predictions, evenly_spaced
from scripts.data import datalist
from scripts.data.case_files import Case
from scripts.errors import InputError
from scripts.scoring.cohort import read_cases
from scripts.scoring.summary import print_score_tables

PATIENTS, SCANS = 16, 1  # with a label, and without: the new scan that is segmented at the end


@check_arguments
def smoke(*, out: Optional[Path] = None, seed: NonNegativeInt = 0) -> None:
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
    folder = out or Path(f"runs/smoke_{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} already holds files: give a new folder with --out.")
    require_root()
    patients, cases, results, evaluation, predictions = (
        folder / name for name in ("patients", "datalist.json", "run", "evaluation", "predictions")
    )

    _say(f"phantom {patients} --cases {PATIENTS} --unlabelled {SCANS} --seed {seed}")
    phantom(patients, cases=PATIENTS, unlabelled=SCANS, seed=seed)

    _say(f"prepare {patients} --out {cases} --folds 4 --test 0.25 --allow_unlabelled --seed {seed}")
    prepare(patients, out=cases, folds=4, test=0.25, allow_unlabelled=True, seed=seed)

    _say(f"train phantom smoke --datalist {cases} --dataset_dir {patients} --out {results} --seed {seed}")
    train("phantom", "smoke", datalist=cases, dataset_dir=patients, out=results, seed=str(seed))

    _say(f"evaluate {results} --out {evaluation}")
    evaluate(results, out=evaluation)

    _say(f"segment {results} {cases} --dataset_dir {patients} --out {predictions}")
    segment(results, cases, dataset_dir=patients, out=predictions)

    picture = folder / "predictions.png"
    _draw(cases, patients, evaluation / "masks", picture)
    print("\nScored on patients that took no part in training:")
    print_score_tables(read_cases(evaluation / "cases.csv"))
    print(f"picture: {picture}")
    print(f"new scan: {', '.join(map(str, sorted(predictions.glob('*.nii.gz'))))}")
    print(f"its page: {', '.join(map(str, sorted(predictions.glob('*/answer.html'))))}")
    print(f"all of it in {time.monotonic() - began:.0f} s: {folder}")


def _say(command: str) -> None:
    Console(soft_wrap=True, highlight=False).print(f"\n$ python -m bundle {command}", style="bold", markup=False)


def _draw(cases: Path, patients: Path, masks: Path, path: Path) -> None:
    """Up to three test cases: input, label, prediction."""
    content = datalist.read_datalist(cases)
    shown = []
    for entry in evenly_spaced(datalist.select_cases(content, patients, "test"), 3):
        case = Case(entry["case"], [Path(name) for name in entry["image"]], Path(entry["label"]))
        shown.append(view_case(case, prediction=masks / f"{case.case}.nii.gz"))
    draw_predictions(shown, path, content["channels"], content["labels"], title="held-out patients")
