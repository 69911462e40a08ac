"""Conventions of the test files themselves."""

import ast
from pathlib import Path

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
