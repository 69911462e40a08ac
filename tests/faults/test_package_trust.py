"""A package names no patient and no path, and nothing in it runs before the user trusts it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bundle.commands.evaluate import evaluate
from bundle.commands.export import export
from bundle.commands.report import report
from bundle.packaging.networks import cut_validation_patches
from bundle.packaging.runs import read_run
from scripts.data.datalist import read_datalist
from tests.made import ROOT, at_repository_root


@pytest.fixture(scope="module")
def exported(package, tmp_path_factory) -> Path:
    """The folder with an evaluated run's package in all formats, and its zip."""
    folder, run = tmp_path_factory.mktemp("exported"), package.parents[1] / "run"
    with at_repository_root():
        evaluate(run, out=folder / "evaluation", part="validation", device="cpu")
        report(folder / "evaluation")
        export(run, out=folder / "dist", evaluation=folder / "evaluation", formats="ts,pt2,onnx")
    return folder / "dist"


def read_members(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """A file and, of an archive, all that is inside, by name."""
    yield name, content
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield from read_members(f"{name}: {member}", archive.read(member))


def contents(exported: Path) -> dict[str, bytes]:
    files = [path for path in exported.rglob("*") if path.is_file()]
    return {name: part for path in files for name, part in read_members(str(path), path.read_bytes())}


def test_no_file_of_a_package_names_a_case_or_path(exported, package, cohort):
    cases = read_datalist(cohort.datalist)["training"]
    names = {entry[key] for entry in cases for key in ("case", "patient")}
    paths = [cohort.dataset_dir, cohort.datalist, package.parents[1], exported.parent, ROOT, f"{Path.home()}/"]
    secrets = [*names, *map(str, paths), str(Path(torch.__file__).parents[1])]
    held = contents(exported)
    assert any(name.endswith("model.pt2: archive/data/sample_inputs/model.pt: archive/data/0") for name in held)
    found = [(name, secret) for name, part in held.items() for secret in secrets if secret.encode() in part]
    assert found == []


def test_no_file_of_a_package_holds_voxels_of_patients(exported, package):
    patches, _ = cut_validation_patches(read_run(package.parents[1] / "run"), None, None, 1)
    row = next(row for row in patches.flatten(0, -2) if row.count_nonzero() > 8).numpy().tobytes()
    assert [name for name, part in contents(exported).items() if row in part] == []
