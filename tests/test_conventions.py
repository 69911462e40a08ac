"""Conventions of the test files themselves."""

import ast
from pathlib import Path

NAMED_TUPLE = ("_replace", "_asdict", "_fields", "_make")  # public, in spite of their names
TESTS = Path(__file__).parent
TREES = {path.relative_to(TESTS): ast.parse(path.read_text(encoding="utf-8")) for path in TESTS.rglob("*.py")}


def test_names_have_at_most_ten_words():
    names = [
        node.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert len(names) > 1000
    assert [name for name in names if name.count("_") > 10] == []


def test_tests_use_public_names_alone():
    reached = [
        f"{path}:{node.lineno} {name}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        for name in private(node)
    ]
    assert reached == []


def test_slow_markers_give_their_reason():
    nodes = [node for tree in TREES.values() for node in ast.walk(tree)]
    markers = [node for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node) == "pytest.mark.slow"]
    reasons = [ast.unparse(node) for node in nodes if isinstance(node, ast.Call) and node.func in markers]
    assert len(reasons) == len(markers) > 0
    assert all(reason.startswith("pytest.mark.slow(reason='") for reason in reasons)


def private(node: ast.AST) -> list[str]:
    """The private names of other modules and objects that a piece of code uses."""
    match node:
        case ast.ImportFrom(module=module, names=names):
            found = [*(module or "").split("."), *(alias.name for alias in names)]
        case ast.Import(names=names):
            found = [part for alias in names for part in alias.name.split(".")]
        case ast.Attribute(value=value, attr=name) if not (isinstance(value, ast.Name) and value.id == "self"):
            found = [name]
        case ast.Call(func=ast.Attribute(attr="setattr" | "delattr" | "patch") | ast.Name(id="getattr" | "setattr")):
            strings = [
                text.value for text in node.args if isinstance(text, ast.Constant) and isinstance(text.value, str)
            ]
            found = [part for text in strings for part in text.split(".")]
        case _:
            found = []
    return [name for name in found if name.startswith("_") and not name.startswith("__") and name not in NAMED_TUPLE]
