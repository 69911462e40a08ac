"""The `score` command: a folder of label maps of any system becomes `cases.csv`."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from bundle.commands.arguments import CommaList, Optional, check_arguments
from bundle.commands.shared import Outcome, print_agreement, read_numbers
from scripts import distributed, stopping
from scripts.data import datalist as lists
from scripts.errors import InputError
from scripts.scoring.cohort import exit_if_some_failed, score_predictions
from scripts.scoring.lesions import BRATS_2023
from scripts.scoring.summary import print_score_tables


@check_arguments
def score(
    predictions: Path,
    *,
    datalist: Path,
    out: Path,
    dataset_dir: Optional[Path] = None,
    part: Optional[Literal["test", "validation", "labelled"]] = None,
    fold: Optional[int] = None,
    labels: str = "",
    probabilities: Optional[Path] = None,
    resample: bool = False,
    dilations: NonNegativeInt = BRATS_2023.dilations,
    smallest: Annotated[float, Field(ge=0)] = BRATS_2023.smallest,
    metrics: CommaList[str] = (),
    workers: Optional[PositiveInt] = None,
) -> Outcome:
    """Score the label maps of any system against a data list: cases.csv, one row per case, region and metric.

    Next to it lesions.csv, one row per true lesion; where the cases are slices also patients.csv, the slices of each
    patient as one volume; with probabilities also reliability.csv, how well they are calibrated; where several raters
    have drawn the cases also raters.csv, every comparison with one of them, of which cases.csv has the means.

    The file of case X is X.nii.gz, or X_pred, X_seg, X_mask ... (.nii, .nii.gz, .png, .tif), at any depth, or the only
    image in a folder X. Interrupted, the same command continues where it stopped. A case that cannot be scored is a row
    `failed` with the reason, and the exit code is 1. docs/evaluation.md defines each metric; docs/cluster.md shows how
    several machines share the cases.

    Examples:
        python -m bundle score predictions --datalist datalist.json --dataset_dir /data/BraTS --out scored
        python -m bundle score predictions --datalist datalist.json --dataset_dir /data --out scored --labels "3=4"
        python -m bundle score predictions --datalist datalist.json --out scored --part validation --fold 0
        torchrun --standalone --nproc_per_node=2 -m bundle score predictions --datalist datalist.json --out scored

    Args:
        predictions: the folder of label maps.
        datalist: the data list (`python -m bundle prepare`).
        out: the folder to write to.
        dataset_dir: the folder that the list's paths start from; by default the one that holds the list.
        part: test, validation (with --fold) or labelled; by default the test patients, all labelled cases without any.
        fold: the fold that `--part validation` means.
        labels: what the predictions' values mean where they differ, "3=4,1=2": their 3 is our 4, their 1 our 2.
        probabilities: a folder of NIfTI files, one map a region along the last axis, for calibration.
        resample: take predictions on another grid than the label's, by nearest neighbour, and note it.
        dilations: steps of the BraTS 2023 lesion-wise rule; 1 for meningioma and metastases.
        smallest: mm^3 up to which that rule leaves a true lesion out; 2 for metastases.
        metrics: metrics of your own, by name, such as my_metrics.volumetric_similarity (CONTRIBUTING.md).
        workers: processes; by default as many as there are cores, shared among those of torchrun.
    """
    if "RANK" in os.environ:
        from scripts.workflow import join_processes

        join_processes("cpu", alone=True)
    stopping.set_how_to_continue("the same command continues")
    content = lists.read_datalist(datalist)
    if part is None:
        part = "test" if any(entry.get("split") == "test" for entry in content["training"]) else "labelled"
    dataset_dir = dataset_dir or datalist.parent
    if distributed.is_first_process():
        print(f"scoring {part} cases of {datalist}")
    evaluation = score_predictions(
        content,
        dataset_dir,
        predictions,
        out,
        part=part,
        fold=fold,
        probabilities=probabilities,
        label_map=parse_labels(labels),
        resample=resample,
        brats=BRATS_2023._replace(dilations=dilations, smallest=smallest),
        workers=workers,
        added=metrics,
        about={"command": "score"},
    )
    if distributed.is_first_process():
        print_score_tables(evaluation.cases, patients=evaluation.patients, part=part)
        print_agreement(out)
        print(f"wrote {out / 'cases.csv'}")
        options = ["--datalist", str(datalist), "--dataset_dir", str(dataset_dir)]
        print("next: python -m bundle report", shlex.join([str(out), *options]))
    code = 0
    try:
        exit_if_some_failed(evaluation.cases)
    except SystemExit as ended:
        code = int(ended.code or 0)
    return Outcome(lambda: read_numbers(out), code)


def parse_labels(text: str) -> dict[int, int]:
    """`"3=4,1=2"` as `{3: 4, 1: 2}`.

    Raises:
        InputError: the text has another form.
    """
    try:
        return {int(old): int(new) for old, new in (pair.split("=") for pair in text.split(",") if pair.strip())}
    except ValueError as error:
        raise InputError(f"labels are '{text}': expected pairs such as \"3=4,1=2\", theirs = ours.") from error
