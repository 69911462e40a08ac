"""The folder of a run, `runs/<name>/`, and its files.

config.yaml        the whole config of the run, macros resolved
environment.json   versions, device, seed, git revision, the data list's hash, the patients that the run has used
datalist.json      a copy of the data list
settings.yaml      settings of the weights, to be added to evaluate.yaml or inference.yaml
model.pt           the averaged weights of the best epoch; checkpoint.pt the state of the last one
profile.json       numbers of the training cases, which inference compares scans with (`scripts.data.profile`)
validation/        cases.csv and evaluation.json of the last validation; validation_best/ of the epoch of model.pt
history.csv        one row per epoch, drawn in history.png (`scripts.training.history`)
log.txt            the lines of the log; log/ TensorBoard
"""

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ignite
import monai
import nibabel
import numpy as np
import pandas as pd
import torch
import yaml
from filelock import FileLock
from torch import distributed

from scripts import stopping
from scripts.config_settings import TRACKING
from scripts.data.datalist import file_hash
from scripts.data.datalist_changes import describe_datalist_changes
from scripts.errors import InputError
from scripts.files import read_mapping, remove_leftovers, write_json, write_text
from scripts.network.checkpoint_file import save_state
from scripts.network.weights import MODEL, NEW_MODEL, complete_replacement, read_settings
from scripts.scoring.cohort import ScoreTables, write_tables
from scripts.scoring.run import merge_roles, patient_roles, rename_former_roles
from scripts.training.run_lock import HOLDER, LOCK, lock_folder
from scripts.workflow import refuse_moved_parts, running_config

MAY_DIFFER = (  # between a run and its resumption
    "resume",
    "requeue",
    "run_dir",
    "device",
    "cache",
    "cache_dir",
    "num_workers",
    "max_epochs",
    "max_minutes",
    "datalist",  # whose content is compared
    "dataset_dir",
    "bundle_root",
    "init_from",
    *TRACKING,
)


class RunFolder:
    """The folder of one training run.

    Args:
        path: the folder.
        resume: whether an interrupted run in it resumes.
        settings: the settings that inference and evaluation need, for settings.yaml.
        about: the content of environment.json besides versions (seed, device, the data list).
        writes: whether this process writes (rank 0 does).
        datalist: the content of the data list; a copy is kept, so that a resumed run can report changes.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        resume: bool,
        settings: Mapping[str, Any],
        about: Mapping[str, Any],
        writes: bool = True,
        datalist: Mapping[str, Any] | None = None,
    ) -> None:
        self.datalist = datalist
        self.lock: FileLock | None = None
        self.path, self.resume, self.writes = Path(path), resume, writes
        self.settings, self.about = dict(settings), dict(about)

    def open(self) -> None:
        """Create the folder and record the config; called before anything costly.

        Raises:
            InputError: another run is in the folder, another process trains in it, there is nothing to resume, the
                config or data list is not the run's or names parts that have moved, or the folder cannot be written.
        """
        if self.writes:
            self._open()
        command = f"--resume {self.path}"
        way = f"resume with {command}" if self.resume else f"nothing was trained yet: start it again with {command}"
        stopping.set_how_to_continue(way, saved=self.resume)
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()  # the others wait until the first has checked

    def _open(self) -> None:
        config = self.path / "config.yaml"
        if self.resume:
            if not config.is_file():
                raise InputError(f"{self.path} holds no run to resume: expected {config}; check the path.")
            old = read_mapping(config)
            refuse_moved_parts(self.path, old, "resume")
            self._require_same_config(old)
            self.lock = lock_folder(self.path)
            self._take_over_record()
        elif self.path.exists() and (not self.path.is_dir() or {p.name for p in self.path.iterdir()} - {LOCK, HOLDER}):
            raise InputError(
                f"{self.path} already holds files: choose another folder, or resume an interrupted run with"
                f" --resume {self.path}."
            )
        else:
            self.lock = lock_folder(self.path)
        for folder in (self.path, *(self.path / name for name in ("validation", "validation_best"))):
            remove_leftovers(folder, locked=True)
        if self.datalist is not None:
            write_json(self.path / "datalist.json", self.datalist)
        write_text(config, "# The whole config of this run.\n" + _as_yaml(running_config()))
        write_json(self.path / "environment.json", {**describe_environment(), **_plain(self.about)})
        if not (self.path / "settings.yaml").is_file():
            self.write_settings(min_component_ml={}, chosen=None)

    def write_settings(
        self, min_component_ml: Mapping[str, float], chosen: Mapping[str, Any] | None, sha256: str | None = None
    ) -> None:
        """Write settings.yaml: the run's settings, its checkpoint, and what was selected on the validation cases.

        `sha256` is the hash of model.pt, None before it is written.
        """
        head = (
            "# Settings of this run's weights; add them to a workflow:\n"
            f"#   --config_file \"['configs/evaluate.yaml','{(self.path / 'settings.yaml').as_posix()}']\"\n"
        )
        if chosen is not None:
            head += f"# Selected on the validation cases: {json.dumps(_plain(chosen))}\n"
        if min_component_ml:
            head += "# min_component_ml is in ml; of pictures, in thousands of pixels.\n"
        model = (self.path / MODEL).as_posix()
        own = {"checkpoint": model, "checkpoint_sha256": {model: sha256}, "min_component_ml": dict(min_component_ml)}
        write_text(self.path / "settings.yaml", head + _as_yaml({**_plain(self.settings), **own}))

    def keep_weights(
        self, weights: Mapping[str, Any], min_component_ml: Mapping[str, float], chosen: Mapping[str, Any]
    ) -> None:
        """Replace the run's weights, and settings.yaml with them.

        settings.yaml decides which weights are valid, so that a run killed at any moment has either all of the old ones
        or all of the new ones (`scripts.network.weights.complete_replacement`).
        """
        new = self.path / NEW_MODEL
        save_state(new, weights)
        sha256 = file_hash(new)
        self.write_settings(min_component_ml, chosen, sha256)
        complete_replacement(self.path, sha256)

    def write_scores(self, name: str, cases: pd.DataFrame, epoch: int, weights: str) -> None:
        """Write the scores of a validation into a folder that `python -m bundle report` reads.

        Args:
            name: of the folder, inside this one.
            cases: rows of `scripts.scoring.cohort.COLUMNS`.
            epoch: that was validated.
            weights: the file of the scored weights in this folder.
        """
        checkpoint = self.path / weights
        write_tables(
            ScoreTables(cases),
            self.path / name,
            added=self.settings.get("added_metrics", ()),
            part=f"validation (fold {self.about.get('fold')}; on the prepared grid, not the original label files)",
            datalist=self.about.get("datalist", {}).get("sha256"),
            about={
                "checkpoint": str(checkpoint),
                "epoch": epoch,
                "patients": patient_roles([checkpoint], sorted(cases["patient"].unique())),
            },
        )

    def measure_once(self, setting: str, measure: Callable[[], Any]) -> Any:
        """A setting measured on the data before the first step, written, and read again when the run resumes.

        Args:
            setting: its name in settings.yaml.
            measure: returns its value, of plain lists, dictionaries, numbers and strings.
        """
        old = self.path / "settings.yaml"
        known = read_mapping(old).get(setting) if self.resume and old.is_file() else None
        self.settings[setting] = measure() if known is None else known
        if known is None and self.writes:
            self.write_settings(min_component_ml={}, chosen=None)
        return self.settings[setting]

    def close(self) -> None:
        """Let other processes train in the folder."""
        if self.lock is not None:
            self.lock.release(force=True)

    def _take_over_record(self) -> None:
        """Refuse another data list than the run's; patients that it has trained or validated stay in its record.

        Raises:
            InputError: names what differs; or the record is missing.
        """
        file = self.path / "environment.json"
        try:
            old = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{file} cannot be read ({error}): it records which patients the run has used; start a new run."
            ) from error
        known, new = (about.get("datalist", {}).get("sha256") for about in (old, self.about))
        if known != new:
            copy = self.path / "datalist.json"
            before = json.loads(copy.read_text(encoding="utf-8")) if copy.is_file() else None
            changes = describe_datalist_changes(before, self.datalist) if before and self.datalist else []
            named = "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")
            raise InputError(
                f"{self.path} was trained on another data list than {self.about.get('datalist', {}).get('path')}"
                f" ({named or f'sha256 {known} against {new}'}): resume it with its own, or start a new run."
            )
        if "patients" in old:
            self.about["patients"] = merge_roles(rename_former_roles(old["patients"]), self.about.get("patients", {}))
        if (sha256 := next(iter((read_settings(self.path).get("checkpoint_sha256") or {}).values()), None)) is not None:
            complete_replacement(self.path, sha256)

    def _require_same_config(self, old: Mapping[str, Any]) -> None:
        new = _plain(running_config())
        changed = [k for k in {*old, *new} if old.get(k) != new.get(k) and k not in MAY_DIFFER]
        if changed:
            raise InputError(
                f"{self.path} was started with other values of {', '.join(sorted(changed))}: resume it with the same"
                f" command and --resume, or start a new run; its config is {self.path / 'config.yaml'}."
            )


def describe_environment() -> dict[str, Any]:
    """Versions, machine, time and git revision."""
    return {
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {module.__name__: module.__version__ for module in (torch, monai, ignite, nibabel, np)},
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cpus": os.cpu_count(),
        "git": _git("rev-parse", "HEAD"),
        "git_changes": bool(_git("status", "--porcelain")),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _plain(content: Any) -> Any:
    """Plain lists, dictionaries, numbers and strings, as YAML loads them."""
    return json.loads(json.dumps(content, default=str))


def _as_yaml(content: Any) -> str:
    return yaml.safe_dump(_plain(content), sort_keys=False, allow_unicode=True, width=120)
