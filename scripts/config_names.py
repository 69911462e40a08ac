"""Names that a config uses: references to its own items, and components, modules and functions, which must exist."""

import ast
import builtins
import contextlib
import difflib
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from monai.bundle import ComponentLocator

from scripts.errors import InputError

REFERENCE = re.compile(r"@(\w+)")
WHOLE_REFERENCE = re.compile(r"@\w+(?:(?:::|#)\w+)*")
MODULES = (("monai", "monai"), ("torch", "torch"), ("np", "numpy"), ("numpy", "numpy"))  # that MONAI imports itself


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


def list_texts(content: Any) -> Iterator[str]:
    """All texts in a config or a part of one."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping | list | tuple):
        for item in content.values() if isinstance(content, Mapping) else content:
            yield from list_texts(item)


def find_references(content: Any) -> list[str]:
    """The names of the top-level items that a config, or a part of one, refers to."""
    return [name for text in list_texts(content) for name in REFERENCE.findall(text)]


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
    for text in list_texts(config):
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
