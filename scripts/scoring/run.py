"""Evaluation of a run: its masks scored, and the role of each evaluated patient in training."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts import distributed
from scripts.data import datalist
from scripts.files import read_mapping
from scripts.scoring import cohort
from scripts.scoring.summary import print_score_tables

ROLES = {
    "test": "took no part in training",
    "validation": "were used to select the checkpoint, so their scores are too high",
    "training": "were used for training, so their scores say nothing about new patients",
}
FORMER_ROLES = {"set_aside": "test", "chose": "validation", "taught": "training"}


def evaluate_run(
    data: Mapping[str, Any],
    dataset_dir: str | os.PathLike,
    masks: str | os.PathLike,
    output_dir: str | os.PathLike,
    part: str,
    fold: int,
    checkpoints: Sequence[str | os.PathLike],
    workers: int | None = None,
    added: Sequence[str] = (),
    without: Sequence[str] = (),
    by_class: bool = False,
) -> None:
    """Score a run's masks: write the tables and evaluation.json, print the summary and the patients' roles in training.

    Under torchrun each process scores its part of the cases; the first one writes and prints. Ends the program with
    exit code 1 if cases failed.

    Args:
        data: the data list.
        dataset_dir: where its paths start.
        masks: the folder with one label map per case, and optionally a subfolder `probabilities`.
        output_dir: gets cases.csv and the other tables (`scripts.scoring.cohort`).
        part: test, validation or labelled.
        fold: for part validation.
        checkpoints: that produced the masks, several for an ensemble; environment.json in the folder of each lists the
            patients used in training.
        workers: processes that score; None: one per core, divided among the processes of torchrun.
        added: metrics of the user's own (`scripts.scoring.added_metrics`).
        without: the channels that were left out, for evaluation.json.
        by_class: whether the probabilities are those of classes, which are not scored, in place of regions.
    """
    patients = sorted({entry["patient"] for entry in datalist.select_cases(data, dataset_dir, part, fold)})
    roles = patient_roles(checkpoints, patients)
    about = {
        "checkpoint": ", ".join(map(str, checkpoints)),
        "sha256": datalist.hash_of_files(checkpoints),
        "patients": roles,
        **({"without": list(without)} if without else {}),
    }
    probabilities = Path(masks) / "probabilities"
    evaluation = cohort.score_predictions(
        data,
        dataset_dir,
        masks,
        output_dir,
        part=part,
        fold=fold if part == "validation" else None,
        probabilities=probabilities if probabilities.is_dir() and not by_class else None,
        workers=workers,
        added=added,
        about=about,
    )
    if distributed.is_first_process():
        name = part if part != "validation" else f"{part} (fold {fold})"
        print_score_tables(evaluation.cases, patients=evaluation.patients, part=name)
        if not roles:
            print(
                f"Unknown which patients this {'checkpoint' if len(checkpoints) == 1 else 'ensemble'} was trained on:"
                " there is no environment.json in its folder, or it started from weights without one."
            )
        for role, names in roles.items():
            if names:
                print(f"{len(names)} of {len(patients)} evaluated patients {ROLES[role]}.")
        print(f"every number: {Path(output_dir) / 'cases.csv'}")
        print(f"next: python -m bundle report {shlex.quote(str(output_dir))}")
    cohort.exit_if_some_failed(evaluation.cases)


def patient_roles(checkpoints: Sequence[str | os.PathLike], patients: Sequence[str]) -> dict[str, list[str]]:
    """The patients in each role (`test`, `validation`, `training`); empty without a record of every run.

    Of several checkpoints, the members of an ensemble, a patient has the role that weighs most in any of them. Also
    empty if a run started from weights without a record, and a patient is not among those known to be used.
    """
    records = [_record(checkpoint) for checkpoint in checkpoints]
    if None in records:
        return {}
    used = merge_roles(*(record for record in records if record is not None))
    roles: dict[str, list[str]] = {role: [] for role in ROLES}
    for patient in patients:
        role = next((role for role in ("training", "validation") if patient in used.get(role, ())), "test")
        roles[role].append(patient)
    return {} if used.get("unrecorded") and roles["test"] else roles


def training_roles(
    data: Mapping[str, Any], fold: int, init_from: str | os.PathLike | None = None
) -> dict[str, list[str]]:
    """The training and validation patients of a run, for its record.

    Those of its initial weights are training patients too. If these have no record, `unrecorded` names their file, so
    that no patient counts as unseen.
    """
    roles = {part: datalist.patients_in_part(data, part, fold) for part in ("training", "validation")}
    if init_from is None:
        return roles
    used = _record(init_from)
    if used is None:
        return {**roles, "unrecorded": [str(init_from)]}
    earlier = {"training": [*used["training"], *used["validation"]]}
    return merge_roles(roles, earlier | ({"unrecorded": used["unrecorded"]} if "unrecorded" in used else {}))


def merge_roles(*records: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The patients of several records by role."""
    roles = dict.fromkeys(role for record in records for role in record)
    return {role: sorted({name for record in records for name in record.get(role, ())}) for role in roles}


def _record(checkpoint: str | os.PathLike) -> dict[str, list[str]] | None:
    file = Path(checkpoint).parent / "environment.json"
    record = read_mapping(file) if file.is_file() else {}
    of_others = "weights" in record and record["weights"] != datalist.file_hash(checkpoint)
    return None if "patients" not in record or of_others else rename_former_roles(record["patients"])


def rename_former_roles(roles: Mapping[str, Any]) -> dict[str, Any]:
    """Roles of patients with the former names of roles replaced by the present ones."""
    return {FORMER_ROLES.get(role, role): names for role, names in roles.items()}
