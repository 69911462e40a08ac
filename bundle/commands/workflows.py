"""Workflows of MONAI started by a command: their config files, the long form of the command, and the run itself."""

import logging
import os
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue
from rich.console import Console

from bundle.commands.arguments import CONSTANTS, nearest
from scripts import distributed
from scripts.errors import InputError
from scripts.files import read_mapping
from scripts.recipes import NOTHING, read_overrides, refuse_conflicts

FOLDERS = {"task": Path("configs/tasks"), "recipe": Path("configs/recipes")}
SETTINGS = ("settings.yaml", "knobs.yaml")  # of a run; the second is the former name


def training_files(task: str, recipes: Sequence[str]) -> list[str]:
    """The config files of a training, later ones override earlier ones; several processes add their own.

    Raises:
        InputError: a task or recipe does not exist, or two recipes set the same section.
    """
    require_root()
    chosen = [find_config("recipe", name) for name in recipes]
    refuse_conflicts(chosen)
    several = ["configs/multi_gpu_train.yaml"] if int(os.environ.get("WORLD_SIZE", 1)) > 1 else []
    return ["configs/train.yaml", *several, find_config("task", task), *chosen]


def training_settings(
    datalist: Path | None, dataset_dir: Path | None, out: Path | None, resume: Path | None, settings: Mapping[str, str]
) -> dict[str, Any]:
    """The settings of a training; the paths of a data list start in its own folder, unless `dataset_dir` is given."""
    if out is not None and resume is not None:
        raise InputError(
            f"--out {out} and --resume {resume} are both given: --out for a new run, --resume for that one."
        )
    start = dataset_dir or (datalist.parent if datalist else None)
    given = {"datalist": datalist, "dataset_dir": start, "run_dir": out, "resume": resume}
    paths = {name: path.as_posix() for name, path in given.items() if path is not None}
    return {**paths, **parse_settings(settings)}


def run_files(run: Path, workflow: str) -> list[str]:
    """The config files of a workflow that uses a run: the workflow's own, and the run's settings.

    Raises:
        InputError: the folder holds no run, or its settings are empty or damaged.
    """
    require_root()
    for name in SETTINGS:
        if (run / name).is_file():
            read_mapping(run / name)  # MONAI's own reader ends in a traceback where it is empty
            return [workflow, (run / name).as_posix()]
    raise InputError(f"{run} is not a run: expected {run / SETTINGS[0]}, as `python -m bundle train` writes it.")


def find_config(kind: str, name: str) -> str:
    """The YAML file of a task or recipe that is given by its name or by its path."""
    folder = FOLDERS[kind]
    if Path(name).suffix in (".yaml", ".yml"):
        if Path(name).is_file():
            return Path(name).as_posix()
        raise InputError(f"the {kind} {name} does not exist: give the path of a YAML file, or a name of {folder}.")
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        other = next((other for other in FOLDERS if (FOLDERS[other] / f"{name}.yaml").is_file()), None)
        hint = f"; it is a {other}: give the task first, then recipes" if other else nearest(name, known)
        raise InputError(f"there is no {kind} '{name}'{hint}; there are: {', '.join(known)}.")
    return (folder / f"{name}.yaml").as_posix()


def list_configs() -> str:
    """The tasks and recipes, each with the first line of its file."""
    lines = []
    for kind, folder in FOLDERS.items():
        lines.append(f"{kind.capitalize()}s ({folder}/, or a YAML file of your own):")
        for path in sorted(folder.glob("*.yaml")):
            with open(path, encoding="utf-8") as file:
                lines.append(f"    {path.stem:<24}{file.readline().lstrip('# ').rstrip()}")
    return "\n".join(lines)


def parse_settings(settings: Mapping[str, str]) -> dict[str, Any]:
    """Values of settings from their text: numbers, lists and dictionaries as MONAI's command line reads them.

    `null`, `true` and `false` are what they are in YAML, and 2024_01_15 is a name rather than a number. null becomes
    the expression "$None": an override that is None would leave the value of a task or recipe as it is.
    """
    return {name: parse_value(text) for name, text in settings.items()}


def parse_value(text: str) -> Any:
    """One value; see `parse_settings`."""
    if text in CONSTANTS:
        return NOTHING if CONSTANTS[text] is None else CONSTANTS[text]
    value = DefaultParseValue(text)
    return text if isinstance(value, int | float) and "_" in text else value


def long_form(run_id: str, files: Iterable[str], settings: Mapping[str, Any]) -> str:
    """The same as a command of MONAI's own."""
    program = "torchrun [...]" if "RANK" in os.environ else "python"
    quoted = ",".join(f"'{name}'" for name in files)
    command = f'{program} -m monai.bundle run {run_id} --config_file "[{quoted}]"'
    return command + "".join(f" --{name} {quote_value(value)}" for name, value in settings.items())


def quote_value(value: Any) -> str:
    """A value as it is typed in a shell, so that MONAI's command line reads it as it is."""
    text = value if isinstance(value, str) and DefaultParseValue(value) == value else repr(value)
    return shlex.quote(text)


def run_workflow(run_id: str, files: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Print the long form of a workflow, and run it in this process.

    Raises:
        InputError: a setting of a section (`optimizer::lr`) names a section that no config file has.
    """
    sections = {place.lstrip("+").split("::")[0] for file in files for place in read_overrides(file)}
    for name in settings:
        section, *inner = name.replace("#", "::").split("::")
        if inner and section not in sections:
            raise InputError(f"--{name}: there is no section '{section}'{nearest(section, sections)}.")
    if distributed.is_first_process():
        Console(soft_wrap=True, highlight=False).print(
            f"\n$ {long_form(run_id, files, settings)}", style="bold", markup=False
        )
    hide_warnings()
    from monai.bundle import run

    run(run_id=run_id, config_file=list(files), **settings)


def hide_warnings() -> None:
    """Hide what MONAI says of our own configs: that they are trusted, that they lie in two folders, the settings."""
    warnings.filterwarnings("ignore", message="parsing config_file")
    logging.getLogger("monai.bundle.workflows").addFilter(lambda record: "Not all config files" not in record.msg)
    for name in ("scripts", "workflows"):  # the long form of the command has the settings already
        logging.getLogger(f"monai.bundle.{name}").setLevel(logging.WARNING)


def read_run_config(run: Path) -> dict[str, Any]:
    """The whole config that a run was started with; empty where it is not there."""
    path = run / "config.yaml"
    return read_mapping(path) if path.is_file() else {}


def require_root() -> None:
    """The working directory is the repository's root, from which configs name each other.

    Raises:
        InputError: it is another folder.
    """
    if not Path("configs/train.yaml").is_file():
        raise InputError(f"{Path.cwd()} has no configs/train.yaml: run this from the repository's root.")
