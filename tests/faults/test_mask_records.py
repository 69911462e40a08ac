"""Resumed inference and evaluation believe a mask only where its record matches weights, images, settings and file."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import run

from scripts.inference.mask_records import MaskRecords
from scripts.inference.scans import unsegmented_cases
from tests.made.masks import records_of, save_masks, scan

MASK = np.ones((5, 6, 7), np.uint8)


@pytest.fixture
def out(tmp_path) -> Path:
    """A folder with the mask of case a, as inference leaves it."""
    save_masks(tmp_path / "out", scan(tmp_path / "a.nii.gz"), MASK, records=records_of(tmp_path / "out"))
    return tmp_path / "out"


def is_kept(out: Path, image: str = "a.nii.gz", **made_of) -> bool:
    entry = {"case": "a", "image": str(out.parent / image)}
    return unsegmented_cases([entry], records_of(out, **made_of), resume=True) == []


def test_a_mask_of_the_same_origin_is_kept(out):
    assert is_kept(out)


def test_a_mask_of_other_weights_is_made_again(out):
    assert not is_kept(out, value=b"other weights")


def test_a_mask_of_other_settings_is_made_again(out):
    assert not is_kept(out, settings={"overlap": 0.25})


def test_a_mask_whose_scan_has_changed_is_made_again(out):
    scan(out.with_name("a.nii.gz"), qform=2)
    assert not is_kept(out)


def test_a_mask_of_another_patient_is_made_again(out):
    other = out.with_name("other") / "a.nii.gz"
    other.parent.mkdir()
    nib.save(nib.Nifti1Image(np.ones((5, 6, 7), np.float32), np.eye(4)), other)
    assert not is_kept(out, image="other/a.nii.gz")


def test_a_moved_scan_keeps_its_mask(out):
    shutil.copytree(out.parent, out.parent.with_name("moved"))
    assert is_kept(out.parent.with_name("moved") / "out")


@pytest.mark.parametrize("content", [b"", b"half"])
def test_a_damaged_or_empty_mask_is_made_again(out, content):
    (out / "a.nii.gz").write_bytes(content)
    assert not is_kept(out)


def test_a_mask_without_a_record_is_made_again(out, capsys):
    shutil.rmtree(out / ".records")
    assert not is_kept(out)
    assert "1 masks there were not made of these files" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"masks": {}}', '{"masks": 3}'])
def test_a_damaged_record_is_no_record(out, content):
    (out / ".records" / "a.json").write_text(content)
    assert not is_kept(out)


def test_missing_probabilities_are_made_again(tmp_path):
    out = tmp_path / "out"
    soft = np.zeros((1, 5, 6, 7), np.float32)
    save_masks(out, scan(tmp_path / "a.nii.gz"), MASK, soft, records=records_of(out))
    assert is_kept(out)
    (out / "probabilities" / "a.nii.gz").unlink()
    assert not is_kept(out)


def test_leftovers_of_a_kill_are_cleared_by_the_next_start(out):
    (out / ".writing-abc.nii.gz").write_bytes(b"half")
    (out / ".records" / ".writing-abc.json").write_bytes(b"half")
    assert is_kept(out)
    assert not list(out.rglob(".writing-*"))


def test_resumed_inference_segments_only_what_has_changed(package, cohort, tmp_path, at_root, monkeypatch):
    trained, written = package.parents[1] / "run", []
    given = {"output_dir": str(tmp_path / "out"), "device": "cpu", "input": str(tmp_path / "scans")}
    shutil.copytree(cohort.dataset_dir, tmp_path / "scans")
    write = MaskRecords.write

    def note(self, case, *rest) -> None:
        written.append(case)
        write(self, case, *rest)

    monkeypatch.setattr(MaskRecords, "write", note)

    def infer(**others) -> list[str]:
        written.clear()
        files = ["configs/inference.yaml", str(trained / "settings.yaml")]
        run("inferring", config_file=files, resume=True, **given, **others)
        return sorted(written)

    everyone = [f"BraTS2021_{number:05d}" for number in range(5)]
    assert infer() == everyone
    assert infer() == []
    first, second = ((tmp_path / "scans" / name) for name in everyone[:2])
    for name in ("t1", "t1ce", "t2", "flair"):  # another patient under the same name
        shutil.copyfile(first / f"{first.name}_{name}.nii.gz", second / f"{second.name}_{name}.nii.gz")
    assert infer() == [second.name]
    assert infer(overlap=0.25) == everyone
