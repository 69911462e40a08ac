"""Command-line tools, `python -m bundle COMMAND`. They stay here; `scripts/` travels in an exported package."""

import os

# OpenMP's threads sleep while they wait: spinning ones would take the cores from other programs and from each other
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
