"""Fixtures for the tests of serving."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def patients(cohort, tmp_path) -> Path:
    """Two patients, which a test may break."""
    for name in ("BraTS2021_00000", "BraTS2021_00001"):
        shutil.copytree(cohort.dataset_dir / name, tmp_path / "patients" / name)
    return tmp_path / "patients"
