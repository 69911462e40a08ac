"""Names of public functions and classes, and first lines of modules."""

import ast
from collections import defaultdict

import pytest

from tests.made import ROOT

TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("scripts", "bundle")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
COMMANDS = "bundle/commands/"  # their functions are called as the command is
GENERIC = {"check", "compare", "count", "draw", "each", "find", "load", "match", "measure", "part", "read", "save"}
GENERIC |= {"select", "spread", "summary", "write"}
SHARED = {"main"}  # of programs


def public_names(path: str) -> list[str]:
    """The public functions and classes at the top level of a module."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [node.name for node in TREES[path].body if isinstance(node, kinds) and not node.name.startswith("_")]


def test_public_name_is_defined_once():
    places = defaultdict(list)
    for path in TREES:
        for name in public_names(path):
            if not path.startswith(COMMANDS) and name not in SHARED:
                places[name].append(path)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize("path", TREES)
def test_public_name_says_what_it_acts_on(path):
    assert path.startswith(COMMANDS) or not GENERIC.intersection(public_names(path))


@pytest.mark.parametrize("path", TREES)
def test_first_line_states_what_the_module_holds(path):
    first_line = (ast.get_docstring(TREES[path]) or "").partition("\n")[0]
    assert first_line.endswith((".", "`"))
