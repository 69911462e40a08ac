"""The workbench that stays at home, `python -m bundle COMMAND`. `scripts/` is what travels in a package."""
