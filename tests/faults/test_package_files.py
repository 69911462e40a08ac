"""A package whose weights are damaged, or whose format is newer, is refused before anything in it runs."""

import json
import random
import shutil
from pathlib import Path

import pytest

from bundle.commands.segment import segment
from bundle.packaging.package_check import check_package
from scripts.inference.package_manifest import MANIFEST
from tests.made import refused

TRIALS = 100


@pytest.fixture
def inside(package, tmp_path) -> Path:
    """A copy of a package that a test may change."""
    return Path(shutil.copytree(package, tmp_path / package.name))


def commands(folder: Path, cohort, tmp_path) -> list[str]:
    """The sentences of those who would use the package."""
    segmenting = refused(segment, str(folder), str(cohort.dataset_dir), out=str(tmp_path / "out"))
    return [refused(check_package, folder), segmenting]


def test_flipped_bits_of_a_packages_weights_are_noticed(inside, cohort, tmp_path):
    model, draw = inside / "models" / "model.pt", random.Random(0)
    content = model.read_bytes()
    for _ in range(TRIALS):
        damaged = bytearray(content)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        model.write_bytes(damaged)
        assert "is not the file that was exported" in refused(check_package, inside)
    assert all("is not the file that was exported" in sentence for sentence in commands(inside, cohort, tmp_path))


def test_a_newer_package_format_is_refused_by_its_number(inside, cohort, tmp_path):
    path = inside / "configs" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "package_format": 99}))
    assert all("is of package format 99" in sentence for sentence in commands(inside, cohort, tmp_path))


def test_a_package_without_a_format_is_of_an_earlier_version(inside):
    path = inside / "configs" / "metadata.json"
    content = json.loads(path.read_text())
    assert content.pop("package_format") == 1
    path.write_text(json.dumps(content))
    (inside / MANIFEST).unlink()  # which earlier versions did not write
    assert check_package(inside, trust=True) == content
