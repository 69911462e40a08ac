"""The import contracts in pyproject.toml hold."""

from importlinter.cli import lint_imports


def test_folders_import_downwards_only(at_root):
    assert lint_imports(no_cache=True) == 0
