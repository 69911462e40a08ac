"""The workbench, `python -m bundle COMMAND`: phantoms, data lists, plans, reports and packages. It stays at home."""
