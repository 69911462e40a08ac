"""Trained runs: configs, environment, and length of training."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.data.datalist import file_hash
from scripts.errors import InputError
from scripts.files import read_mapping
from scripts.network.checkpoint_file import read_state
from scripts.network.weights import settings_file
from scripts.workflow import refuse_moved_parts


@dataclass(frozen=True)
class Run:
    """The content of a run's folder."""

    folder: Path
    config: dict[str, Any]  # config.yaml, all settings of training
    settings: dict[str, Any]  # settings.yaml, the settings for inference
    environment: dict[str, Any]  # environment.json
    weights: Path  # model.pt
    sha256: str  # of the weights
    effort: dict[str, Any]  # epochs, steps, minutes, kept epoch and score, peak memory in GiB; {} without checkpoint.pt

    @property
    def about(self) -> dict[str, Any]:
        """Title, modality, data, terms and references, as given by the task."""
        return self.settings.get("about") or {}


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
        sha256=file_hash(weights),
        effort=_effort(folder / "checkpoint.pt"),
    )


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
