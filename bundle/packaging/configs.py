"""Self-contained configs: the workflow files with a run's values in place of overlays and macros.

MONAI Label and the Model Zoo's checks read each config alone, from another folder, so none may refer to another file.
ruamel.yaml keeps the comments.
"""

import io
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from scripts.config_settings import EXTRA_KEYS, TRACKING

MACRO = re.compile(r"^%configs/inference\.yaml::(\w+)$")
PADDING = re.compile(r"(?<=\S) {2,}# ")  # a comment keeps its column when the text before it becomes shorter
# paths and machine of a run: a package keeps the defaults
OF_THE_MACHINE = {"bundle_root", "datalist", "dataset_dir", "run_dir", "resume", "init_from", *TRACKING}
OF_THE_MACHINE |= {
    "checkpoint",
    "checkpoint_sha256",
    "device",
    "preprocessing_device",
    "cache",
    "cache_dir",
    "num_workers",
}


def make_self_contained(
    folder: Path, settings: Mapping[str, Any], config: Mapping[str, Any], head: str
) -> dict[str, str]:
    """The text of inference.yaml, train.yaml and evaluate.yaml for a package, with `head` above each.

    `folder` is the repository's configs/; `settings` and `config` are those of the run's settings.yaml and config.yaml.
    """
    inference, train, evaluate = (_read(folder / f"{name}.yaml") for name in ("inference", "train", "evaluate"))
    _override(inference, settings)
    for document in (train, evaluate):
        _inline(document, inference)
    config = _without_multi_gpu(config, _read(folder / "multi_gpu_train.yaml"), train)
    _override(train, config)
    _override(evaluate, settings)
    documents = {"inference.yaml": inference, "train.yaml": train, "evaluate.yaml": evaluate}
    return {name: _text(document, head) for name, document in documents.items()}


def _without_multi_gpu(
    config: Mapping[str, Any], several: Mapping[str, Any], train: Mapping[str, Any]
) -> dict[str, Any]:
    """The config without the overrides of multi_gpu_train.yaml, which is in the package too."""
    if config.get("world_size") == train["world_size"]:
        return dict(config)
    single = dict(config)
    for key, value in several.items():
        if key.startswith("+"):
            single[key[1:]] = [item for item in config[key[1:]] if item not in value]
        elif key in train:
            single[key] = train[key]
        else:
            single.pop(key, None)
    return single


def _inline(document: CommentedMap, source: CommentedMap) -> None:
    """Replace each macro by the value it imports, with its comment."""
    keys = list(document)
    for key, following in zip(keys, [*keys[1:], None], strict=True):
        imported = MACRO.match(document[key]) if isinstance(document[key], str) else None
        if imported:
            name = imported[1]
            comment, section = _comment(source, name)[0], _comment(document, key)[1]
            document.ca.items.pop(key, None)
            document[key] = deepcopy(source[name])
            if comment:
                document.yaml_add_eol_comment(comment, key)
            if section and following:
                document.yaml_set_comment_before_after_key(following, before=section)


def _override(document: CommentedMap, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        needed = key in document or key not in EXTRA_KEYS or f"@{key}'" in str(values)  # by a recipe's component
        if key not in OF_THE_MACHINE and needed:
            document[key] = _merged(document.get(key), value)


def _merged(old: Any, new: Any) -> Any:
    """The new value, kept as the old one where they are equal, so that its comments stay."""
    if isinstance(old, CommentedMap) and isinstance(new, Mapping):
        for key in [key for key in old if key not in new]:
            del old[key]
        if list(old) != list(new)[: len(old)]:
            return _written(new)  # the order of regions is that of the network's channels
        for key, value in new.items():
            old[key] = _merged(old.get(key), value)
        return old
    if isinstance(old, CommentedSeq) and isinstance(new, list) and len(old) == len(new):
        for place, value in enumerate(new):
            old[place] = _merged(old[place], value)
        return old
    if isinstance(old, str) and isinstance(new, str) and old.startswith(("@", "$")):
        return old if old.replace("#", "::") == new.replace("#", "::") else _written(new)  # MONAI writes `::` for `#`
    same = old == new and isinstance(old, bool) == isinstance(new, bool)
    return old if same else _written(new)


def _written(value: Any) -> Any:
    """A plain value for ruamel.yaml: short lists on one line, text that YAML would misread in quotes."""
    if isinstance(value, Mapping):
        return CommentedMap((key, _written(item)) for key, item in value.items())
    if isinstance(value, list):
        written = CommentedSeq(_written(item) for item in value)
        if not any(isinstance(item, Mapping | list) for item in value):
            written.fa.set_flow_style()
        return written
    return DoubleQuotedScalarString(value) if isinstance(value, str) and not _is_word(value) else value


def _is_word(text: str) -> bool:
    """Whether YAML 1.1, which MONAI reads, keeps the text without quotes: not `yes`, `1e3` or `{case}`."""
    try:
        return yaml.safe_load(text) == text
    except yaml.YAMLError:
        return False


def _comment(document: CommentedMap, key: str) -> tuple[str, str]:
    """The comment next to a key, and the comment lines below it, which belong to the next key."""
    tokens = document.ca.items.get(key)
    inline, _, below = (tokens[2].value if tokens and tokens[2] else "").partition("\n")
    return inline.strip(), "\n".join(line.removeprefix("# ") for line in below.splitlines())


def _yaml() -> YAML:
    parser = YAML()
    parser.preserve_quotes, parser.width = True, 4096
    parser.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    return parser


def _read(path: Path) -> CommentedMap:
    return _yaml().load(path.read_text(encoding="utf-8"))


def _text(document: CommentedMap, head: str) -> str:
    stream = io.StringIO()
    _yaml().dump(document, stream)
    above = "".join(f"# {line}\n" for line in head.splitlines())
    return f"{above}#\n{PADDING.sub(' # ', stream.getvalue())}"
