"""nnU-Net's time on the same case, run in its own environment or in this one."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from scripts.errors import InputError


def python_with_nnunet(named: str | None) -> str | None:
    """The given Python, or this one if nnU-Net is installed in it, or None.

    Raises:
        InputError: it cannot import nnU-Net.
    """
    python = named or (sys.executable if importlib.util.find_spec("nnunetv2") else None)
    if python:
        _run(python, "-c", "import nnunetv2")
    return python


def time_nnunet(
    python: str,
    subject: str,
    case: Mapping[str, np.ndarray],
    filters: list[int],
    patch: int,
    repeats: int,
    half: bool,
    device: str = "cpu",
) -> dict[str, list[float]]:
    """The seconds that `speed.py` measures on this case, patch, features and precision.

    Raises:
        InputError: that Python cannot run nnU-Net.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "case.npz"
        np.savez(file, **case)
        script = str(Path(__file__).with_name("speed.py"))
        numbers = (json.dumps(filters), str(patch), str(repeats), str(int(half)), device)
        printed = _run(python, script, subject, str(file), *numbers)
    return json.loads(printed.splitlines()[-1])


def _run(python: str, *arguments: str) -> str:
    try:
        return subprocess.run([python, *arguments], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        raise InputError(
            f"{python} could not run nnU-Net ({said[:200]}): expected the Python of an environment with nnunetv2."
        ) from error
