"""Command-line tools, `python -m bundle COMMAND`. They stay here; `scripts/` travels in an exported package."""
