"""Checks of the settings of a workflow: each is used, has an effect, and is of the kind of its default."""

import difflib
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.properties import InferProperties, TrainProperties
from monai.utils import BundlePropertyConfig, ensure_tuple

from scripts.config_names import find_references
from scripts.errors import InputError
from scripts.recipes import read_overrides

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
    used = {*find_references(config)} | _sections_of_monai()
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
            waiting += find_references(config[name])
    for name, source in given.items():
        if name in own and name in config and name not in used:
            raise InputError(
                f"{source} sets {name}, which has no effect: a recipe has replaced the part that uses it; leave it out."
            )


def _sections_of_monai() -> set[str]:
    """The sections that MONAI looks up by name."""
    properties = (*TrainProperties.values(), *InferProperties.values())
    return {str(p[BundlePropertyConfig.ID]).split("::")[0] for p in properties}
