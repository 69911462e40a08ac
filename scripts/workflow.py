"""Checks before a workflow starts: settings, names and devices that exist, and errors in one sentence."""

import ast
import builtins
import contextlib
import difflib
import functools
import json
import os
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from monai.bundle import ComponentLocator, ConfigParser, run
from monai.bundle.properties import InferProperties, TrainProperties
from monai.utils import BundlePropertyConfig, ensure_tuple
from rich.console import Console
from rich.table import Table

from scripts.errors import InputError, install_excepthook
from scripts.files import read_mapping
from scripts.recipes import NOTHING, read_overrides, refuse_conflicts
from scripts.stopping import catch_signals

RUN_IDS = (
    "imports",
    "initialize",
    "finalize",
    "run",
    "check",
    "check_network",
    "training",
    "evaluating",
    "inferring",
    "answering",
)
# keys of tasks and runs for other workflows and `prepare`; a workflow that does not use them accepts them
EXTRA_KEYS = (
    "label_scheme",
    "labels",
    "channel_files",
    "label_files",
    "rater_files",
    "ignore",
    "case_names",
    "patient_names",
    "empty_labels",
    "boundaries",
    "centre_regions",
    "added_metrics",
    "class_weights",
    "about",
    "fold",
)
# the Model Zoo's names, and what `--tracking mlflow` adds
TRACKING = ("output_dir", "save_execute_config", "tracking_uri", "experiment_name", "run_name", "is_not_rank0")
MONAI_KEYS = ("_meta_", "handlers", *TRACKING)
PATHS = [
    "bundle_root",
    "cache_dir",
    "checkpoint",
    "datalist",
    "dataset_dir",
    "init_from",
    "input",
    "output_dir",
    "run_dir",
]
PATH = ((str,), """a path; one that looks like a number or a list is quoted twice: '"2024_01_15"'""")
KINDS = {  # of a default: the types that may take its place, and how a message describes them
    bool: ((bool,), "True or False"),
    int: ((int,), "a whole number, 0 or more"),
    float: ((int, float), "a number, 0 or more, such as 2, 0.5 or 1.0e-4 (with a dot)"),
    list: ((list, tuple), 'a list, such as "[96,96,96]"'),
}
NOT_IN_MASKS = ("weights_files", "profile", "quality", "device", "preprocessing_device", "window_batch", "bundle_root")
REFERENCE = re.compile(r"@(\w+)")
WHOLE_REFERENCE = re.compile(r"@\w+(?:(?:::|#)\w+)*")
MODULES = (("monai", "monai"), ("torch", "torch"), ("np", "numpy"), ("numpy", "numpy"))  # that MONAI imports itself
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


def refuse_other_kinds(config: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse a setting whose value is not of the kind of its default: a number, a list, true or false, text, a part.

    Not checked: expressions, references, and settings that are null by default, unless they are paths.

    Args:
        config: the whole config as it runs.
        own: the workflow's own file, with the defaults; imported ones are looked up in the file that defines them.

    Raises:
        InputError: names the setting, its value and the expected kind.
    """
    read = functools.cache(ConfigParser.load_config_file)  # reading YAML is slow, and many settings are of one file
    for name, default in own.items():
        while isinstance(default, str) and default.startswith("%"):
            file, _, key = default[1:].partition("::")
            default = read(file)[key]
        value = config.get(name)
        if isinstance(value, str) and value.startswith(("$", "@", "%")):
            continue
        if isinstance(default, Mapping) and "_target_" in default:
            _refuse_other_part(name, value, default)
            continue
        is_path = name in PATHS or (name == "resume" and default is None)
        kind = PATH if is_path else KINDS.get(type(default))
        if kind is None or (is_path and value is None):
            continue
        types, expected = kind
        fits = isinstance(value, types) and isinstance(value, bool) == (bool in types)
        if not fits or (isinstance(value, int | float) and not value >= 0):
            raise InputError(f"{name} is {value!r}: expected {expected}.")


def _refuse_other_part(name: str, value: Any, default: Mapping[str, Any]) -> None:
    """Refuse a section that names no part, and a `loss` that does not wrap the loss of one head."""
    target = value.get("_target_") if isinstance(value, Mapping) else None
    if isinstance(value, Mapping) and target is None:
        raise InputError(
            f"section {name} has no _target_: a file replaces a section whole; name the part, or write +{name}: to"
            " change some of its values."
        )
    if name == "loss" and target is not None and target != default["_target_"]:
        raise InputError(
            f"loss is {target}: `loss` applies the loss of one head to all heads of the network; write"
            " `region_loss:` in place of `loss:`."
        )


def refuse_unused_settings(config: Mapping[str, Any], own: Iterable[str] = ()) -> None:
    """Refuse settings that nothing refers to, such as mistyped ones: MONAI accepts and ignores them.

    Args:
        config: the whole config as it runs.
        own: the top-level keys of the workflow's own file.

    Raises:
        InputError: names the key and the nearest settings.
    """
    used = {name for text in _texts(config) for name in REFERENCE.findall(text)} | _sections_of_monai()
    used |= {*RUN_IDS, *EXTRA_KEYS, *MONAI_KEYS, *own}
    for key in config:
        if key not in used:
            near = difflib.get_close_matches(key, [k for k in config if k in used], n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else "."
            raise InputError(f"there is no setting '{key}' in this workflow: nothing refers to it{hint}")


def refuse_settings_without_effect(config: Mapping[str, Any], own: Iterable[str], call: Mapping[str, Any]) -> None:
    """Refuse settings of a recipe or the command line that a recipe has cut off, such as the norm of another network.

    Args:
        config: the whole config as it runs.
        own: the top-level keys of the workflow's own file.
        call: the arguments of MONAI's `run` that started the workflow.

    Raises:
        InputError: names the setting, and where it was given.
    """
    files = [str(file) for file in ensure_tuple(call.get("config_file") or ())]
    given = dict.fromkeys({**call, **(call.get("override") or {})}, "the command")
    for file in files:
        if Path(file).parent.name == "recipes":
            given |= dict.fromkeys(read_overrides(file), f"recipe {Path(file).stem}")
    used, waiting = set(EXTRA_KEYS), [*RUN_IDS, *_sections_of_monai()]
    while waiting:
        name = waiting.pop()
        if name in config and name not in used:
            used.add(name)
            waiting += [reference for text in _texts(config[name]) for reference in REFERENCE.findall(text)]
    for name, source in given.items():
        if name in own and name in config and name not in used:
            raise InputError(
                f"{source} sets {name}, which has no effect: a recipe has replaced the part that uses it; leave it out."
            )


def refuse_unresolved_names(config: Mapping[str, Any]) -> None:
    """Refuse names in a config that do not exist: MONAI would notice on first use, maybe after an hour of training.

    Raises:
        InputError: names the first missing one and the nearest names.
    """
    for name in unresolved_names(config):
        parent, _, last = name.rpartition(".")
        if parent:
            module = pkgutil.resolve_name(parent)
            known = {*dir(module), *(found.name for found in pkgutil.iter_modules(getattr(module, "__path__", ())))}
        else:
            known = {own for key, module in [*sys.modules.items()] if key.startswith("monai.") for own in dir(module)}
        near = difflib.get_close_matches(last, known, n=3, cutoff=0.7)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise InputError(f"the config names {name}, which does not exist{hint}")


def unresolved_names(config: Mapping[str, Any]) -> list[str]:
    """The components, modules and attributes of modules that a config names and that do not exist, as dotted paths.

    Args:
        config: the whole config, its macros resolved; expressions know what its import statements import.
    """
    expressions = [[*ast.walk(tree)] for tree in _expressions(config)]
    aliases, paths, missing, locator = dict(MODULES), set(), set(), ComponentLocator()
    for target in _targets(config):
        if "." in target:
            paths.add(target)
        elif locator.get_component_module_name(target) is None and not hasattr(builtins, target):
            missing.add(target)
    for node in (node for nodes in expressions for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)):
        for alias in node.names:
            path = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
            aliases[alias.asname or alias.name] = path
            paths.add(path)
    for nodes in expressions:
        own = {node.arg for node in nodes if isinstance(node, ast.arg)}  # of a lambda, and below of a comprehension
        own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        for first, *rest in (chain for node in nodes if (chain := _chain(node)) and chain[0] not in own):
            if first in aliases:
                paths.add(".".join([aliases[first], *rest]))
            elif not hasattr(builtins, first):
                missing.add(first)
    return sorted(missing | {gap for path in paths if (gap := _first_missing(path))})


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
            waiting += [reference for text in _texts(config[key]) for reference in REFERENCE.findall(text)]
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


def _sections_of_monai() -> set[str]:
    """The sections that MONAI looks up by name."""
    properties = (*TrainProperties.values(), *InferProperties.values())
    return {str(p[BundlePropertyConfig.ID]).split("::")[0] for p in properties}


def _targets(content: Any) -> Iterator[str]:
    """The `_target_` names in a config, without those that are expressions."""
    if isinstance(content, Mapping):
        if isinstance(target := content.get("_target_"), str) and target.replace(".", "_").isidentifier():
            yield target
        content = content.values()
    if not isinstance(content, str) and isinstance(content, Iterable):
        for item in content:
            yield from _targets(item)


def _expressions(config: Mapping[str, Any]) -> Iterator[ast.AST]:
    """The expressions of a config, with `None` for each reference to another item."""
    for text in _texts(config):
        if text.startswith("$"):
            with contextlib.suppress(SyntaxError):  # MONAI reports it, with its place
                yield ast.parse(WHOLE_REFERENCE.sub("None", text[1:]).strip())


def _chain(node: ast.AST) -> list[str]:
    """The names of `a.b.c`; nothing for any other expression."""
    if isinstance(node, ast.Name):
        return [node.id]
    return [*chain, node.attr] if isinstance(node, ast.Attribute) and (chain := _chain(node.value)) else []


def _first_missing(path: str) -> str | None:
    """The shortest beginning of a dotted path that does not exist."""
    parts = path.split(".")
    for name in (".".join(parts[: count + 1]) for count in range(len(parts))):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError, ValueError):
            return name
    return None


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        yield from _all_texts(content.values())
    elif isinstance(content, list | tuple):
        yield from _all_texts(content)


def _all_texts(items: Iterable[Any]) -> Iterator[str]:
    for item in items:
        yield from _texts(item)
