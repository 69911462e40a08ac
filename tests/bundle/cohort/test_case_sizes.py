"""Tests of `bundle/cohort/case_sizes.py`."""

import json
import shutil

import numpy as np
import pytest

from bundle.cohort.case_sizes import FOLDER, LEVELS, CaseSize, pooled_percentiles, read_case_sizes
from scripts.data.datalist import read_datalist
from tests.made import save_nifti

CHANNELS = ("t1", "t1ce", "t2", "flair")


@pytest.fixture
def read(cohort, tmp_path, small_train):
    """Reads a copy of the cohort, after `change` has changed the content of its list."""
    shutil.copytree(cohort.dataset_dir, tmp_path / "patients")
    datalist = tmp_path / "list.json"
    shutil.copy(cohort.datalist, datalist)

    def read(change=lambda content: None) -> list[CaseSize]:
        content = read_datalist(datalist)
        change(content)
        return read_case_sizes(small_train(), content, datalist, tmp_path / "patients", workers=1)

    return read


def test_case_has_its_cropped_shape_and_components(read):
    first, *others = read()
    assert len(others) == 3
    assert first.spacing == (6.0, 6.0, 6.0)
    assert max(first.shape) < 32
    assert first.kept == pytest.approx(np.prod(first.shape) / 32**3)
    assert first.volume("WT") > first.volume("TC") > first.volume("ET") > 0
    assert first.components["WT"] == sorted(first.components["WT"], reverse=True)
    assert len(first.levels) == 4


def test_second_call_reads_no_scan(read, tmp_path):
    before = read()
    shutil.rmtree(tmp_path / "patients")
    assert read() == before


def test_case_whose_files_changed_is_read_again(read, tmp_path):
    names = [size.case for size in read()]
    kept = tmp_path / FOLDER / "list" / f"{names[0]}.json"
    kept.write_text(kept.read_text().replace('"kept": 0', '"kept": 5'))
    assert [size.kept > 1 for size in read()].count(True) == 1

    def change(content):
        content["hashes"] = {name: value[::-1] for name, value in content["hashes"].items()}

    assert [size.kept > 1 for size in read(change)].count(True) == 0


def test_patients_held_out_for_the_test_are_not_read(read):
    def change(content):
        entry = content["training"][0]
        del entry["fold"]
        entry["split"] = "test"

    assert len(read(change)) == 3


def test_another_constant_around_the_brain_is_cut_off(small_train, tmp_path):
    scan = np.full((24, 24, 24), -5.0, np.float32)
    scan[8:16, 6:18, 4:20] = np.random.default_rng(0).uniform(1, 2, (8, 12, 16))
    label = np.zeros((24, 24, 24), np.uint8)
    label[10:12, 10:12, 10:12] = 4
    for name in CHANNELS:
        save_nifti(tmp_path / "a" / f"a_{name}.nii.gz", scan, np.eye(4))
    save_nifti(tmp_path / "a" / "a_seg.nii.gz", label, np.eye(4))
    images = [f"a/a_{name}.nii.gz" for name in CHANNELS]
    entry = {"image": images, "label": "a/a_seg.nii.gz", "case": "a", "patient": "a", "fold": 0}
    (size,) = read_case_sizes(
        small_train(), {"training": [entry], "hashes": {}}, tmp_path / "list.json", tmp_path, workers=1
    )
    assert size.shape == (8, 12, 16)
    assert size.components == {"WT": [0.008], "TC": [0.008], "ET": [0.008]}


def test_intensities_are_those_of_all_cases_alike():
    levels = [[float(f) for f in np.linspace(low, low + 100, len(LEVELS))] for low in (0, 100)]
    cases = [CaseSize(name, name, (1, 1, 1), (9, 9, 9), 1.0, {}, [own]) for name, own in zip("ab", levels, strict=True)]
    assert pooled_percentiles(cases, (0, 50, 100)) == [0, 100, 200]


def test_damaged_record_is_read_again(read, tmp_path):
    before = read()
    for path in (tmp_path / FOLDER / "list").iterdir():
        path.write_text(json.dumps({"key": "?"}))
    assert read() == before
