"""Calibration of the predicted Dice of runs, on masks of patients that did not train them.

RUN/quality.json is what `segment`, `inferring` and `export` use. A cross-validation is calibrated on the masks that
each fold made of its own patients, without rules for small components; what these rules change in the Dice is added.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bundle.analysis.mask_quality import calibrate_region, leave_patients_out, predict_masks, read_measured_masks
from bundle.studies.component_trials import apply_rules, find_masks, read_scheme
from bundle.studies.crossval import EVALUATED
from bundle.studies.members import find_configurations
from scripts.data.datalist import file_hash, hash_of_files, read_datalist
from scripts.errors import InputError
from scripts.files import read_mapping, write_json
from scripts.inference.mask_quality import MINIMA, NUMBERS
from scripts.inference.predicted_dice import QUALITY, QUALITY_VERSION, read_quality
from scripts.network.weights import MODEL, read_min_component, read_settings
from scripts.parallel import map_in_processes


class MaskCalibration(NamedTuple):
    """What a calibration found.

    Attributes:
        content: of quality.json.
        predicted: each mask, with the prediction of a calibration without its patient.
        files: quality.json of each run.
    """

    content: dict[str, Any]
    predicted: pd.DataFrame
    files: list[Path]


def calibrate_runs(source: Path, evaluation: Path | None = None) -> MaskCalibration:
    """Calibrate the runs of `source`, and write quality.json to each.

    Args:
        source: a run, or a cross-validation.
        evaluation: of these runs together; by default RUN/evaluation, or of a cross-validation those of its folds.

    Raises:
        InputError: an evaluation is missing, or of other weights, or of patients that trained the runs, or its masks
            were made by other rules for small components than the runs have.
    """
    runs = _find_runs(source)
    if evaluation is None and len(runs) > 1:
        folders = {run / EVALUATED: [run] for run in runs}
    else:
        own = source / EVALUATED if (source / EVALUATED).is_dir() else source / "evaluation"
        folders = {evaluation or own: runs}
    read = [read_unseen_masks(folder, of) for folder, of in folders.items()]
    made_with = read[0][1]
    if other := next((folder for folder, (_, own) in zip(folders, read, strict=True) if own != made_with), None):
        raise InputError(f"{other} was made with other settings than {next(iter(folders))}: evaluate all folds alike.")
    masks = pd.concat([table for table, _ in read], ignore_index=True)
    files = [run / MODEL for run in runs]
    rules = {name: _without_zeros(read_min_component(files, name.removeprefix("min_component_"))) for name in MINIMA}
    if rules != {name: made_with[name] for name in MINIMA}:
        if any(made_with[name] for name in MINIMA):
            raise InputError(
                f"{next(iter(folders))} was made with other smallest components than the run has now: evaluate again."
            )
        masks, made_with = _apply_components(masks, [*folders], runs, rules), {**made_with, **rules}
    content = {
        "quality_version": QUALITY_VERSION,
        "patients": int(masks["patient"].nunique()),
        "weights": [file_hash(file) for file in files],
        "made_with": made_with,
        "regions": {
            region: calibrate_region(masks[masks["region"] == region]) for region in read_settings(runs[0])["regions"]
        },
    }
    for run in runs:
        write_json(run / QUALITY, content)
    return MaskCalibration(content, leave_patients_out(masks), [run / QUALITY for run in runs])


def apply_calibration(source: Path, evaluation: Path) -> pd.DataFrame:
    """Each mask of an evaluation of patients that took no part, with the prediction by the calibration of `source`.

    Raises:
        InputError: there is no calibration, or the evaluation is of other weights or of patients that trained them.
    """
    runs = _find_runs(source)
    if not (runs[0] / QUALITY).is_file():
        raise InputError(f"{runs[0]} has no {QUALITY}: start `python -m bundle calibrate {source}` first.")
    content = read_quality(runs[0] / QUALITY)
    masks, made_with = read_unseen_masks(evaluation, runs)
    if different := [name for name, value in content["made_with"].items() if made_with.get(name) != value]:
        raise InputError(
            f"{evaluation} was made with {different[0]} {made_with.get(different[0])}, the calibration with"
            f" {content['made_with'][different[0]]}: evaluate with the same settings."
        )
    return predict_masks(masks, content["regions"])


def read_unseen_masks(evaluation: Path, runs: Sequence[Path]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The masks of an evaluation of these runs, without those of patients that trained them, and what made them.

    Raises:
        InputError: it is of other weights, or it is unknown who trained them, or everybody did.
    """
    masks, made_with = read_measured_masks(evaluation, NUMBERS)
    about = read_mapping(evaluation / "evaluation.json").get("about", {})
    if about.get("sha256") != hash_of_files([run / MODEL for run in runs]):
        named = ", ".join(map(str, runs))
        raise InputError(f"{evaluation} is of other weights than {named}: give an evaluation of these, all together.")
    if not about.get("patients"):
        raise InputError(f"{evaluation} does not say which patients the run was trained on, so that none may count.")
    unseen = masks[~masks["patient"].isin(about["patients"].get("training", []))]
    if unseen.empty and len(masks):
        raise InputError(
            f"all patients of {evaluation} trained {', '.join(map(str, runs))}: evaluate others, --part test."
        )
    return unseen, made_with


def _find_runs(source: Path) -> list[Path]:
    configurations = find_configurations([source])
    if len(configurations) > 1:
        raise InputError(
            f"{source} has runs of {len(configurations)} configurations, whose masks get no predicted Dice: give those"
            " of one configuration."
        )
    return configurations[0]


def _apply_components(
    masks: pd.DataFrame, folders: Sequence[Path], runs: Sequence[Path], rules: Mapping[str, Mapping[str, float]]
) -> pd.DataFrame:
    """The masks with the Dice that they have once small components are dropped by the rules."""
    trained = read_mapping(runs[0] / "config.yaml")
    content = read_datalist(Path(trained["datalist"]))
    scheme = read_scheme(runs[0], content)
    files = [one for folder in folders for one in find_masks(folder / "masks", content, Path(trained["dataset_dir"]))]
    several = {entry["case"] for entry in content["training"] if "labels" in entry}  # of raters
    if unknown := sorted({*masks["case"]} - {one.case for one in files} | {*masks["case"]} & several):
        raise InputError(
            f"what the run's smallest components change in the Dice of {unknown[0]} is unknown: evaluate with them."
        )
    ml, probability = (rules[name] for name in MINIMA)
    minima = {name: (ml.get(name, 0.0), probability.get(name, 0.0)) for name in {*ml, *probability}}
    trials = map_in_processes(
        partial(apply_rules, scheme=scheme, rules=minima), files, None, "dropping components", "case"
    )
    gains = {
        (one.case, region): gain[0]
        for one, trial in zip(files, trials, strict=True)
        for region, gain in trial.gains.items()
    }
    keys = zip(masks["case"], masks["region"], strict=True)
    changed = masks["dice"] + [gains.get(key, 0.0) for key in keys]
    return masks.assign(dice=changed)


def _without_zeros(limits: Mapping[str, float]) -> dict[str, float]:
    return {region: least for region, least in limits.items() if least}
