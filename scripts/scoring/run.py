"""Evaluation of a run: its masks scored, and the role of each evaluated patient in training."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts import distributed
from scripts.data import datalist
from scripts.scoring import cohort
from scripts.scoring.summary import print_score_tables

ROLES = {
    "test": "took no part in training",
    "validation": "were used to select the checkpoint and the smallest components, so their scores are too high",
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
    checkpoint: str | os.PathLike,
    workers: int | None = None,
) -> None:
    """Write the tables and evaluation.json, and print the summary and what the evaluated patients had been used for.

    Under torchrun each process scores its part of the cases; the first one writes and prints. Ends the program with
    exit code 1 where cases failed.

    Args:
        data: the data list.
        dataset_dir: where its paths start.
        masks: the folder with one label map a case, and maybe a folder `probabilities`.
        output_dir: gets cases.csv and the other tables (`scripts.scoring.cohort`).
        part: test, validation or labelled.
        fold: for part validation.
        checkpoint: whose masks these are; the environment.json beside it tells which patients its training used.
        workers: processes that score; None: one a core, shared among the processes of torchrun.
    """
    patients = sorted({entry["patient"] for entry in datalist.select_cases(data, dataset_dir, part, fold)})
    roles = patient_roles(checkpoint, patients)
    about = {"checkpoint": str(checkpoint), "sha256": datalist.file_hash(checkpoint), "patients": roles}
    probabilities = Path(masks) / "probabilities"
    evaluation = cohort.score_predictions(
        data,
        dataset_dir,
        masks,
        output_dir,
        part=part,
        fold=fold if part == "validation" else None,
        probabilities=probabilities if probabilities.is_dir() else None,
        workers=workers,
        about=about,
    )
    if distributed.is_first_process():
        print_score_tables(evaluation.cases, patients=evaluation.patients)
        if not roles:
            print("It is not known which patients this checkpoint was trained on: no environment.json beside it tells.")
        for role, names in roles.items():
            if names:
                print(f"{len(names)} of {len(patients)} evaluated patients {ROLES[role]}.")
        print(f"every number: {Path(output_dir) / 'cases.csv'}")
        print(f"next: python -m bundle report {shlex.quote(str(output_dir))}")
    cohort.exit_if_some_failed(evaluation.cases)


def patient_roles(checkpoint: str | os.PathLike, patients: Sequence[str]) -> dict[str, list[str]]:
    """The patients in each role (`test`, `validation`, `training`); empty if the run's record is not there."""
    used = _record(checkpoint)
    if used is None:
        return {}
    roles: dict[str, list[str]] = {role: [] for role in ROLES}
    for patient in patients:
        role = next((role for role in ("training", "validation") if patient in used[role]), "test")
        roles[role].append(patient)
    return roles


def used_patients(checkpoint: str | os.PathLike | None) -> list[str]:
    """The training and validation patients of a checkpoint, as far as the record beside it tells; none without one."""
    used = _record(checkpoint) if checkpoint is not None else None
    return sorted({*used["training"], *used["validation"]}) if used else []


def _record(checkpoint: str | os.PathLike) -> dict[str, list[str]] | None:
    record = Path(checkpoint).parent / "environment.json"
    written = json.loads(record.read_text(encoding="utf-8")).get("patients") if record.is_file() else None
    return None if written is None else rename_former_roles(written)


def rename_former_roles(roles: Mapping[str, Any]) -> dict[str, Any]:
    """Roles of patients under their present names, whatever the version that wrote them."""
    return {FORMER_ROLES.get(role, role): names for role, names in roles.items()}
