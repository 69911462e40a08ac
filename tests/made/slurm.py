"""Commands of SLURM, for tests that submit jobs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.made import ROOT


def slurm(*command: str | Path) -> str:
    """What a command of SLURM prints."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout.strip()


def require_slurm() -> None:
    """Skip the test where no SLURM answers (`SLURM_CONF` names the configuration of one)."""
    if shutil.which("sbatch") is None:
        pytest.skip("SLURM is not installed")
    try:
        slurm("sinfo", "--noheader")
    except subprocess.SubprocessError:
        pytest.skip("no SLURM answers")
