"""Parts of workflows that configs call: their start, devices, processes, and what they record of their own config."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from monai.bundle import ConfigParser, run
from monai.utils import ensure_tuple
from rich.console import Console
from rich.table import Table

from scripts.config_names import find_references, refuse_unresolved_names, unresolved_names
from scripts.config_settings import refuse_other_kinds, refuse_settings_without_effect, refuse_unused_settings
from scripts.errors import InputError, install_excepthook
from scripts.files import read_mapping
from scripts.recipes import NOTHING, refuse_conflicts
from scripts.stopping import catch_signals

NOT_IN_MASKS = ("weights_files", "profile", "quality", "device", "preprocessing_device", "window_batch", "bundle_root")
PROCESS_TIMEOUT = timedelta(hours=6)  # for a process that waits for another; one that has died is noticed at once


def begin_workflow(workflow: str, requeue: bool = False) -> None:
    """Start a workflow: wrong input ends in one sentence from here on; every setting and name in the config must exist.

    Args:
        workflow: the workflow's own file; its settings exist even where a recipe has replaced what refers to them.
        requeue: whether SIGTERM, once results are saved, gives exit code 75, which asks a scheduler to start it again.
            A training then needs a `run_dir`.

    Raises:
        InputError: nothing refers to a top-level key, which is what a mistyped override looks like; or a name in the
            config does not exist.
    """
    install_excepthook()
    catch_signals(requeue)
    config, own, call = running_config(), ConfigParser.load_config_file(workflow), _running_call()
    if (run_id := call.get("run_id") or "run") not in config:
        known = [
            name for name in ("run", "training", "evaluating", "inferring", "answering", "check") if name in config
        ]
        raise InputError(f"there is no run id '{run_id}' in this workflow: expected {', '.join(known)}.")
    for name, value in (call.get("override") or {}).items():
        if value is None and config.get(name) is not None:
            raise InputError(f"--{name} None has no effect in MONAI's command line: write --{name} '{NOTHING}'.")
    files = call.get("config_file") or ()
    refuse_conflicts(file for file in ensure_tuple(files) if Path(str(file)).parent.name == "recipes")
    if requeue and str(config.get("run_dir")).startswith("$") and config.get("resume") is None:
        raise InputError("requeue needs a run_dir, or each start would begin a new run: add --run_dir runs/NAME.")
    refuse_unused_settings(config, own)
    refuse_settings_without_effect(config, own, call)
    refuse_other_kinds(config, own)
    refuse_unresolved_names(config)


def running_config() -> dict[str, Any]:
    """The config that is being evaluated, its macros resolved, without metadata.

    MONAI gives an expression no reference to its own config, so the config is taken from the calling parser.

    Raises:
        RuntimeError: not called from a config's expression or component.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, ConfigParser):
            return {key: None if value == NOTHING else value for key, value in caller.get().items() if key != "_meta_"}
        frame = frame.f_back
    raise RuntimeError("running_config() was called outside a config")


def _running_call() -> dict[str, Any]:
    """The arguments of the `run` of MONAI that started this workflow; empty if something else started it."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is run.__code__:
            arguments = dict(frame.f_locals)
            given = ConfigParser.load_config_file(file) if (file := arguments.get("args_file")) else {}
            return {**given, **{name: value for name, value in arguments.items() if value is not None}}
        frame = frame.f_back
    return {}


def refuse_moved_parts(folder: Path, config: Mapping[str, Any], purpose: str) -> None:
    """Refuse the config of an older run if it names parts of scripts/ that have moved since.

    Args:
        folder: of the run.
        config: its config.yaml.
        purpose: what is to be done with the run, such as `resume`.

    Raises:
        InputError: names the revision in environment.json.
    """
    if any(name.startswith("scripts.") for name in unresolved_names(config)):
        environment = folder / "environment.json"
        known = read_mapping(environment).get("git") if environment.is_file() else None
        raise InputError(
            f"{folder} was made at {f'revision {known[:7]}' if known else 'an unknown revision'} by an earlier version"
            f" whose parts have moved: check out that revision to {purpose} it, or start a new run."
        )


def section_as_written(name: str, without: Iterable[str] = ()) -> dict[str, Any]:
    """A section of the running config and all that it refers to, unresolved.

    With it a run records its network, whichever recipe has defined it. Items named in `without` are left out.
    """
    config, found, waiting = running_config(), {}, [name]
    while waiting:
        key = waiting.pop(0)
        if key in config and key not in found and key not in without:
            found[key] = config[key]
            waiting += find_references(config[key])
    return found


def mask_settings(
    min_component_ml: Mapping[str, float], min_component_probability: Mapping[str, float]
) -> dict[str, Any]:
    """All settings of the running config that decide over a mask, unresolved, without paths and the machine."""
    minima = {"ml": dict(min_component_ml), "probability": dict(min_component_probability)}
    own = {f"min_component_{kind}": found for kind, found in minima.items()}
    found = {}
    for section in ("network_def", "preprocessing", "inferer", "postprocessing"):
        found.update(section_as_written(section, without=(*NOT_IN_MASKS, *own)))
    return {**found, **own}


def replaced_sections(shared: str, *names: str) -> dict[str, Any]:
    """The sections that a task or recipe has replaced, unresolved, with those settings that they bring along.

    Args:
        shared: the file of the shared settings, whose sections are the default.
        names: the sections to look at, where the running config has them.
    """
    config, own = running_config(), ConfigParser.load_config_file(shared)
    found: dict[str, Any] = {}
    for name in filter(config.__contains__, names):
        if json.dumps(config[name]).replace("#", "::") != json.dumps(own[name]).replace("#", "::"):
            found |= section_as_written(name, without=own.keys() - {name})
    return found


def check_device(device: str | torch.device) -> None:
    """Check that the device exists.

    Raises:
        InputError: CUDA is requested but not available, or the name is not a device.
    """
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device is '{device}': expected cpu, cuda or cuda:N.") from error
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device is {wanted}, but this machine has {torch.cuda.device_count()} CUDA devices: use --device cpu,"
            " fewer processes, or a CUDA build of torch."
        )
    if wanted.type == "cuda" and wanted.index is not None:
        torch.cuda.set_device(wanted)  # or random numbers, memory and streams of GPU 0 would be meant


def require_host_preparation(preprocessing_device: str | torch.device) -> None:
    """Check that a training prepares its cases on the CPU.

    Raises:
        InputError: on another device.
    """
    if torch.device(preprocessing_device).type != "cpu":
        raise InputError(
            f"preprocessing_device is {preprocessing_device}: a training prepares its cases on the CPU and keeps them"
            " there; leave it out."
        )


def default_device() -> str:
    """The GPU if there is one; under torchrun, each process of a machine gets its own."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"


def check_world_size(world_size: int) -> None:
    """Check that `world_size` is the number of processes that torchrun has started.

    Raises:
        InputError: it is not, so processes would repeat each other's work, or leave it to processes that do not exist.
    """
    started = int(os.environ.get("WORLD_SIZE", 1))
    if world_size != started:
        raise InputError(
            f"world_size is {world_size}, processes started: {started}. To train with several, start them with torchrun"
            " and add configs/multi_gpu_train.yaml after configs/train.yaml."
        )


def join_processes(device: str, alone: bool = False) -> None:
    """Join the processes that torchrun has started.

    Args:
        device: what this process computes on; for `cuda`, each takes its own GPU.
        alone: whether a single process is enough; several then share the cases, over gloo.

    Raises:
        InputError: the workflow was not started by torchrun, or has more processes than the machine has GPUs.
    """
    if "RANK" in os.environ:
        on_gpu = str(device).startswith("cuda")
        if on_gpu:
            own = default_device() if str(device) == "cuda" else device
            check_device(own)
            torch.cuda.set_device(own)
        torch.distributed.init_process_group("nccl" if on_gpu and not alone else "gloo", timeout=PROCESS_TIMEOUT)
        install_excepthook()  # again: torch has replaced ours by its own
    elif not alone:
        raise InputError(
            "multi_gpu_train.yaml needs several processes: start it with `torchrun --standalone --nproc_per_node=N -m"
            " monai.bundle run training ...`, or leave it out."
        )


def require_settings(**settings: Any) -> None:
    """Check that settings without a default were given.

    Raises:
        InputError: names the first missing one.
    """
    for name, value in settings.items():
        if value is None:
            raise InputError(f"{name} is not given: add --{name} ... to the command.")


def print_components(network: torch.nn.Module, **facts: Any) -> None:
    """Print the main components of a workflow: the last step of `check`, when all have been instantiated."""
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    table = Table(title="All components built", show_header=False)
    for name, value in {"network": f"{type(network).__name__}, {parameters:,} trainable parameters", **facts}.items():
        table.add_row(name.replace("_", " "), str(value))
    Console().print(table)
