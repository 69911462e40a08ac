"""A second `prepare` reads only cases that have changed since they passed, and gives the same list."""

import os
import shutil
from pathlib import Path

import nibabel as nib
import pytest

from bundle.cohort import kept_checks
from bundle.commands.prepare import prepare
from scripts.errors import InputError


@pytest.fixture
def patients(cohort, tmp_path) -> Path:
    """Five patients whose data list has been made."""
    shutil.copytree(cohort.dataset_dir, tmp_path / "patients")
    prepared(tmp_path / "patients")
    return tmp_path / "patients"


def prepared(folder: Path, **options: object) -> bytes:
    """The bytes of a list next to the folder."""
    common = {"folds": 2, "allow_unlabelled": True, "picture": False, "workers": 1, "overwrite": True}
    prepare(str(folder), out=str(folder.with_name("list.json")), **{**common, **options})
    return folder.with_name("list.json").read_bytes()


def unchanged_of(capsys) -> str:
    return next((line.split()[0] for line in capsys.readouterr().out.splitlines() if "--recheck" in line), "0")


def test_the_second_list_has_the_same_bytes_without_reading(patients, capsys):
    first = patients.with_name("list.json").read_bytes()
    capsys.readouterr()
    assert prepared(patients) == first
    assert unchanged_of(capsys) == "5"


@pytest.mark.parametrize(
    "options", [{"recheck": True}, {"channels": "T1={case}/{case}_t1.nii*"}, {"allow_empty": True}]
)
def test_other_settings_or_recheck_read_all_again(patients, capsys, options):
    capsys.readouterr()
    prepared(patients, **options)
    assert unchanged_of(capsys) == "0"


def test_a_changed_file_is_read_again(patients, capsys):
    path = patients / "BraTS2021_00000" / "BraTS2021_00000_t1.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(image.get_fdata().astype("float32") + 1, image.affine), path)
    capsys.readouterr()
    prepared(patients)
    assert unchanged_of(capsys) == "4"


def test_damage_that_keeps_size_and_time_is_found(patients):
    path = patients / "BraTS2021_00000" / "BraTS2021_00000_t1.nii.gz"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match="1 of 5 cases are bad"):
        prepared(patients)


def test_bad_cases_are_read_again_others_are_not(patients, capsys):
    path = patients / "BraTS2021_00000" / "BraTS2021_00000_t1.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    for _ in range(2):
        with pytest.raises(InputError, match="1 of 5 cases are bad"):
            prepared(patients)
    path.write_bytes(whole)
    capsys.readouterr()
    prepared(patients)
    assert unchanged_of(capsys) == "4"


def test_other_code_of_the_checks_reads_all_again(patients, capsys, monkeypatch):
    monkeypatch.setattr(kept_checks, "CODE", kept_checks.CODE[1:])
    capsys.readouterr()
    prepared(patients)
    assert unchanged_of(capsys) == "0"


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"[]", lambda b: b.replace(b'"volume": ', b'"volume": 1')]
)
def test_a_damaged_file_of_checks_is_not_believed(patients, capsys, damage):
    first = patients.with_name("list.json").read_bytes()
    (kept,) = patients.with_name(".checks").iterdir()
    kept.write_bytes(damage(kept.read_bytes()))
    capsys.readouterr()
    assert prepared(patients) == first
    assert unchanged_of(capsys) == "0"
