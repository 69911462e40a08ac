"""Does everything work here? The whole story in about a minute: data, training, judging and a new scan segmented."""

from __future__ import annotations

import datetime
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import run
from monai.data import MetaTensor
from monai.transforms import LoadImage, Orientation
from rich.console import Console

from bundle.commands.phantom import phantom
from bundle.commands.prepare import prepare
from bundle.drawing.slices import evenly_spaced as spread
from bundle.drawing.slices import prediction_picture
from scripts.data import datalist
from scripts.errors import InputError
from scripts.scoring.cohort import read_cases
from scripts.scoring.summary import print_summary

TASK = "configs/tasks/phantom.yaml"
RECIPE = "configs/recipes/smoke.yaml"
PATIENTS, SCANS = 16, 1  # with a label, and without: the new scan that is segmented at the end


def smoke(out: str | None = None, seed: int = 0) -> None:
    """Make synthetic patients, train on some, judge on others, segment a new scan; about a minute on two CPU cores.

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
    patients, cases, results = folder / "patients", folder / "datalist.json", folder / "run"

    _say(f"phantom {patients} --cases {PATIENTS} --unlabelled {SCANS} --seed {seed}")
    phantom(str(patients), cases=PATIENTS, unlabelled=SCANS, seed=seed)

    _say(f"prepare {patients} --out {cases} --folds 4 --test 0.25 --allow-unlabelled --seed {seed}")
    prepare(str(patients), out=str(cases), folds=4, test=0.25, allow_unlabelled=True, seed=seed)

    given = {"datalist": str(cases), "dataset_dir": str(patients)}
    _workflow("training", ["configs/train.yaml", TASK, RECIPE], **given, run_dir=str(results), seed=seed)
    knobs = str(results / "knobs.yaml")
    _workflow("evaluating", ["configs/evaluate.yaml", knobs], **given, output_dir=str(folder / "evaluation"))
    _workflow(
        "inferring",
        ["configs/inference.yaml", knobs],
        input=str(cases),
        dataset_dir=str(patients),
        output_dir=str(folder / "predictions"),
    )

    picture = folder / "predictions.png"
    _draw(cases, patients, folder / "evaluation" / "masks", picture)
    print("\nJudged on patients that took no part in training:")
    print_summary(read_cases(folder / "evaluation" / "cases.csv"))
    print(f"picture: {picture}")
    print(f"new scan: {', '.join(map(str, sorted((folder / 'predictions').glob('*.nii.gz'))))}")
    print(f"all of it in {time.monotonic() - began:.0f} s: {folder}")


def _say(command: str, program: str = "bundle") -> None:
    Console(soft_wrap=True, highlight=False).print(f"\n$ python -m {program} {command}", style="bold", markup=False)


def _workflow(run_id: str, files: Sequence[str], **knobs: Any) -> None:
    quoted = "[" + ",".join(f"'{name}'" for name in files) + "]"
    options = "".join(f" --{name} {value}" for name, value in knobs.items())
    _say(f'run {run_id} --config_file "{quoted}"{options}', "monai.bundle")
    run(run_id=run_id, config_file=list(files), **knobs)


def _draw(cases: str | os.PathLike, patients: Path, masks: Path, path: Path) -> None:
    """Up to three judged cases: input, truth, prediction."""
    content = datalist.read(cases)
    load = LoadImage(image_only=True, ensure_channel_first=True)
    orient = Orientation(axcodes="RAS", labels=None)

    def volume(name: str | os.PathLike) -> MetaTensor:
        return orient(load(str(name)))[0]

    shown = []
    for entry in spread(datalist.select(content, patients, "test"), 3):
        label = volume(entry["label"])
        shown.append(
            {
                "case": entry["case"],
                "image": [np.asarray(volume(name)) for name in entry["image"]],
                "label": np.asarray(label),
                "prediction": np.asarray(volume(masks / f"{entry['case']}.nii.gz")),
                "spacing": label.pixdim.tolist(),
            }
        )
    prediction_picture(shown, path, content["channels"], content["labels"], title="patients set aside")
