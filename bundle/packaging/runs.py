"""Trained runs, and ensembles of them: configs, environment, weights, and length of training."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from scripts.data.datalist import hash_of_files
from scripts.errors import InputError
from scripts.files import read_mapping
from scripts.network.checkpoint_file import read_state
from scripts.network.ensemble import find_member_weights
from scripts.network.weights import read_min_component, read_weights, settings_file
from scripts.scoring.run import merge_roles, rename_former_roles
from scripts.workflow import refuse_moved_parts

ENSEMBLE = "scripts.network.ensemble.Ensemble"
KINDS = ("ml", "probability")  # of minima of a component


@dataclass(frozen=True)
class Run:
    """The content of a run's folder, or of an ensemble of runs of one configuration, with their patients and effort."""

    folder: Path
    config: dict[str, Any]  # config.yaml, all settings of training
    settings: dict[str, Any]  # settings.yaml, the settings for inference
    environment: dict[str, Any]  # environment.json
    weights: Path  # model.pt, of the first member
    sha256: str  # of the weights
    effort: dict[str, Any]  # epochs, steps, minutes, kept epoch and score, peak memory in GiB; {} without checkpoint.pt
    members: tuple["Run", ...] = ()  # of an ensemble

    @property
    def about(self) -> dict[str, Any]:
        """Title, modality, data, terms and references, as given by the task."""
        return self.settings.get("about") or {}

    @property
    def member_network(self) -> dict[str, Any]:
        """The network's section of the config, that of a member in an ensemble."""
        network = self.settings["network_def"]
        return network["network"] if self.members else network

    def read_weights(self) -> dict[str, torch.Tensor]:
        """The weights, under the names of the network, which in an ensemble are those of its members."""
        if not self.members:
            return read_weights(self.weights)
        several = {f"members.{k}": read_weights(member.weights) for k, member in enumerate(self.members)}
        return {f"{member}.{name}": tensor for member, own in several.items() for name, tensor in own.items()}


def read_run(folder: str | os.PathLike) -> Run:
    """Read runs/X.

    Raises:
        InputError: the folder is not a run, has no weights yet, or was made by an earlier version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no run {folder}: give the folder that training wrote (its --run_dir).")
    settings = settings_file(folder)
    for name in ("config.yaml", settings.name, "environment.json"):
        if not (folder / name).is_file():
            raise InputError(f"{folder} is not a run: it lacks {name}; give the folder that training wrote.")
    weights = folder / "model.pt"
    if not weights.is_file():
        raise InputError(
            f"{folder} has no weights yet: the first validation writes model.pt; resume with --resume {folder}."
        )
    config = read_mapping(folder / "config.yaml")
    refuse_moved_parts(folder, config, "export")
    return Run(
        folder=folder,
        config=config,
        settings=read_mapping(settings),
        environment=read_mapping(folder / "environment.json"),
        weights=weights,
        sha256=hash_of_files([weights]),
        effort=_effort(folder / "checkpoint.pt"),
    )


def read_ensemble(source: Path, folders: Sequence[Path]) -> Run:
    """The run of a folder, or an ensemble of the runs of several, named by `source`.

    Raises:
        InputError: one of them is not a run, has no weights or others than it wrote, or they differ in a setting.
    """
    if len(folders) == 1:
        return read_run(folders[0])
    members = tuple(read_run(folder) for folder in folders)
    files = find_member_weights("", ensemble=folders)
    first = members[0]

    def wrap(config: dict[str, Any]) -> dict[str, Any]:
        network = {"_target_": ENSEMBLE, "network": config["network_def"], "members": len(members)}
        return {**config, "network_def": network}

    records = [rename_former_roles(member.environment.get("patients", {})) for member in members]
    roles = merge_roles(*records) if all(records) else {}
    if roles:  # who trained one member selected the checkpoint of another
        roles["validation"] = sorted({*roles.get("validation", ())}.difference(roles.get("training", ())))
    return replace(
        first,
        folder=source.parent if source.is_file() else source,
        config=wrap(first.config),
        settings={
            **wrap(first.settings),
            **{f"min_component_{kind}": read_min_component(files, kind) for kind in KINDS},
        },
        environment={**first.environment, **({"patients": roles} if roles else {})},
        sha256=hash_of_files(files),
        effort=_total([member.effort for member in members]),
        members=members,
    )


def _total(efforts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The effort of several trainings: sums, the most memory, and the kept epoch and score of each."""
    if not all(efforts):
        return {}
    each = {name: [effort[name] for effort in efforts] for name in efforts[0]}
    memory = each["peak_memory_gib"]
    sums = {name: round(sum(each[name]), 1) for name in ("epochs", "steps", "minutes")}
    return {**each, **sums, "peak_memory_gib": None if None in memory else max(memory)}


def describe_code_changes(run: Run, root: Path) -> str | None:
    """A warning if scripts or configs have changed since the run started, according to git; else None."""
    revision = run.environment.get("git")
    if not revision or run.environment.get("git_changes"):
        return "the run was made with uncommitted changes, or outside git: its code may differ from what is exported."
    compared = subprocess.run(
        ["git", "diff", "--quiet", revision, "--", "scripts", "configs"], cwd=root, capture_output=True, check=False
    )
    if compared.returncode == 0:
        return None
    return f"scripts or configs have changed since the run's revision {revision[:7]}: the package has the present ones."


def _effort(checkpoint: Path) -> dict[str, Any]:
    if not checkpoint.is_file():
        return {}
    state = read_state(checkpoint)
    return {
        "epochs": state["engine"]["epoch"],
        "steps": state["engine"]["iteration"],
        "minutes": round(state["budget"]["spent"] / 60, 1),
        "kept_epoch": state["best"]["epoch"],
        "kept_score": round(state["best"]["score"], 4),
        "peak_memory_gib": state.get("peak_memory_gib"),
    }
