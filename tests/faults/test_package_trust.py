"""A package names no patient and no path, and nothing in it runs before the user trusts it."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bundle.__main__ import main
from bundle.commands.evaluate import evaluate
from bundle.commands.export import export
from bundle.commands.publish import publish
from bundle.commands.report import report
from bundle.commands.segment import segment
from bundle.commands.serve import serve
from bundle.packaging.networks import cut_validation_patches
from bundle.packaging.package_check import check_trusted_files
from bundle.packaging.runs import read_run
from scripts.data.datalist import read_datalist
from scripts.inference.package_manifest import MANIFEST, write_manifest
from tests.made import ROOT, at_repository_root, refused


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


@pytest.fixture
def received(package, tmp_path, monkeypatch) -> Path:
    """A copy of the package on a machine where it was not exported."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Path(shutil.copytree(package, tmp_path / package.name))


@pytest.fixture
def hostile(received, tmp_path) -> Path:
    """A package with a sound manifest, whose config writes the file `ran` when it is evaluated."""
    config = received / "configs" / "inference.yaml"
    line = f"network_def: \"$__import__('pathlib').Path('{tmp_path / 'ran'}').touch()\"\n"
    config.write_text(config.read_text().replace("network_def:", f"{line}former_network_def:"))
    write_manifest(received)
    return received


COMMANDS = {
    "segment": lambda package, cohort, out: refused(segment, package, cohort.dataset_dir, out=out),
    "serve": lambda package, cohort, out: refused(serve, package, studies=cohort.dataset_dir, out=out),
    "publish": lambda package, cohort, out: refused(publish, package, out=out),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_in_a_package_runs_before_it_is_trusted(hostile, cohort, tmp_path, command):
    sentence = COMMANDS[command](hostile, cohort, tmp_path / "out")
    assert "is a program that is not trusted on this machine yet" in sentence
    assert "add --trust" in sentence
    assert not (tmp_path / "ran").exists()


def test_the_hostile_package_would_run_code_if_it_were_trusted(hostile, tmp_path):
    with pytest.raises(Exception, match="NoneType"):
        publish(hostile, out=tmp_path / "out", trust=True)
    assert (tmp_path / "ran").exists()


def test_an_untrusted_package_ends_the_command_with_code_2(received, cohort, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["segment", str(received), str(cohort.dataset_dir), "--out", str(tmp_path / "masks")])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: package {received} (sha256 ")


def test_trust_is_remembered_until_any_file_changes(received):
    check_trusted_files(received, trust=True)
    check_trusted_files(received)
    (received / "docs" / "README.md").write_text("another card")
    write_manifest(received)
    assert "not trusted on this machine yet" in refused(check_trusted_files, received)


def test_a_package_exported_here_is_trusted_wherever_it_lies(package, tmp_path):
    assert check_trusted_files(shutil.copytree(package, tmp_path / "elsewhere"))["version"] == "0.1.0"


def test_a_package_can_be_used_where_trust_cannot_be_kept(received, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(received / "LICENSE"))
    check_trusted_files(received, trust=True)
    assert "not trusted on this machine yet" in refused(check_trusted_files, received)


@pytest.mark.parametrize("answer", ["yes", "no", "y"])
def test_a_terminal_is_asked_and_only_yes_agrees(received, cohort, tmp_path, monkeypatch, answer):
    terminal, program = pty.openpty()
    with open(program) as stdin, open(os.dup(program), "w") as stderr:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stderr", stderr)
        os.write(terminal, f"{answer}\n".encode())
        sentence = COMMANDS["publish"](received, cohort, received / "inside")
        question = ""
        while select.select([terminal], [], [], 0.5)[0]:  # the echo of the answer and the question come in parts
            question += os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert "A package is a program" in question
    assert str(received) in question
    assert ("lies in the package" if answer == "yes" else "is not trusted: nothing in it was run") in sentence


def test_a_question_shows_control_characters_as_text(received):
    path, asked = received / "configs" / "metadata.json", []
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": "\x1b[2Jharmless"}))
    write_manifest(received)
    assert "is not trusted" in refused(
        check_trusted_files, received, ask=lambda question: asked.append(question) or False
    )
    assert "'\\x1b[2Jharmless'" in asked[0]


@pytest.mark.parametrize(
    "name", ["LICENSE", "configs/inference.yaml", "configs/logging.conf", "docs/README.md", "scripts/errors.py"]
)
def test_a_changed_file_is_refused_by_name(received, name):
    (received / name).write_text((received / name).read_text() + "\n")
    sentence = refused(check_trusted_files, received, trust=True)
    assert f"{name} is not the file that was exported" in sentence
    assert f"if it was changed on purpose, delete {MANIFEST}" in sentence


@pytest.mark.parametrize(
    "name", ["torch.py", "scripts/more.py", "scripts/__pycache__/more.py", "masks/scipy.so", "configs/more.json"]
)
def test_an_added_program_or_config_is_refused_by_name(received, name):
    (received / name).parent.mkdir(exist_ok=True)
    (received / name).write_text("")
    assert f"{name} is not part of the exported package" in refused(check_trusted_files, received, trust=True)


def test_a_missing_file_is_refused_by_name(received):
    (received / "scripts" / "recipes.py").unlink()
    assert "lacks scripts/recipes.py" in refused(check_trusted_files, received, trust=True)


@pytest.mark.parametrize("name", ["docs/link.md", "masks", "scripts/data/link.py"])
@pytest.mark.parametrize("target", ["/etc", "/etc/hostname", "nowhere"])
def test_a_link_in_a_package_is_refused_by_name(received, name, target):
    (received / name).symlink_to(target)
    assert f"{name} is a link" in refused(check_trusted_files, received, trust=True)


def test_compiled_python_in_a_package_is_never_run(received):
    compiled = received / "scripts" / "__pycache__" / f"errors.{sys.implementation.cache_tag}.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"other code than that of the source")
    check_trusted_files(received, trust=True)
    assert not compiled.exists()


def test_a_file_changed_on_purpose_is_accepted_without_the_manifest(received):
    (received / "configs" / "inference.yaml").open("a").write("# faster here\n")
    (received / MANIFEST).unlink()
    assert "not trusted on this machine yet" in refused(check_trusted_files, received)
    check_trusted_files(received, trust=True)
    check_trusted_files(received)


def test_masks_written_into_a_package_are_never_published(received, tmp_path):
    (received / "masks").mkdir()
    (received / "masks" / "patient.nii.gz").write_bytes(b"")
    check_trusted_files(received, trust=True)
    assert "patient.nii.gz is not part of the package" in refused(publish, received, out=tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_a_zipped_package_is_unpacked_by_the_user(package, cohort, tmp_path):
    zipped = package.with_name(f"{package.name}.zip")
    assert "is a file: unzip it and give its folder" in COMMANDS["segment"](zipped, cohort, tmp_path / "out")
