"""Tests of `scripts/inference/scans.py`."""

import json
import os
import shutil

import numpy as np
import pytest

from scripts.data import pictures
from scripts.errors import InputError
from scripts.inference.scans import find_input_scans, unsegmented_cases
from tests.made.masks import MASK, TWO, names, oblique, records_of, save_masks, save_picture_masks, scan, stack_of

CHANNELS = ["T1", "T1c", "T2", "FLAIR"]
FILES = {"T1": ["{case}/{case}_t1.nii*"], "T1c": ["{case}/{case}_t1ce.nii*"], "T2": ["{case}/{case}_t2.nii*"],
         "FLAIR": ["{case}/{case}_flair.nii*"]}  # fmt: skip


def found(source, **others) -> list[dict]:
    return find_input_scans(source, CHANNELS, FILES, **others)


def test_folder_of_patients_gives_all_with_channels_in_order(cohort):
    cases = found(cohort.dataset_dir)
    assert names(cases) == [f"BraTS2021_{k:05d}" for k in range(5)]
    assert [name.rsplit("_", 1)[1] for name in cases[0]["image"]] == [
        f"{c}.nii.gz" for c in ("t1", "t1ce", "t2", "flair")
    ]
    assert cases[0].keys() == {"image", "case"}  # a label beside a scan must not be looked at


def test_the_folder_of_one_patient_is_that_patient(cohort):
    assert names(found(cohort.dataset_dir / "BraTS2021_00002")) == ["BraTS2021_00002"]


def test_patients_that_are_linked_together_are_found(cohort, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "BraTS2021_00001").symlink_to(cohort.dataset_dir / "BraTS2021_00001")
    assert names(found(tmp_path / "linked")) == ["BraTS2021_00001"]


def test_data_list_gives_its_unlabelled_cases_if_any_otherwise_all(cohort, tmp_path):
    assert names(found(cohort.datalist, dataset_dir=cohort.dataset_dir)) == ["BraTS2021_00004"]
    content = json.loads(cohort.datalist.read_text())
    content["testing"] = []
    (tmp_path / "labelled.json").write_text(json.dumps(content))
    cases = found(tmp_path / "labelled.json", dataset_dir=cohort.dataset_dir)
    assert len(cases) == 4
    assert all("label" not in case for case in cases)
    assert cases[0]["image"][0].startswith(str(cohort.dataset_dir))


def test_one_4d_file_is_one_case_named_after_it(tmp_path):
    (tmp_path / "BRATS_001.nii.gz").write_text("")
    expected = [{"image": str(tmp_path / "BRATS_001.nii.gz"), "case": "BRATS_001"}]
    assert found(tmp_path / "BRATS_001.nii.gz") == expected


def test_folder_of_4d_files_gives_one_case_each(tmp_path):
    for name in ("b.nii.gz", "a.nii", "readme.txt", "._a.nii"):  # macOS leaves the last beside a.nii
        (tmp_path / name).write_text("")
    assert names(found(tmp_path)) == ["a", "b"]


def test_patient_slices_with_all_channels_in_one_file_are_found(tmp_path):
    for name in ("P/P_2.tif", "P/P_10.tif", "P/P_2_mask.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    files = {channel: ["{patient}/{patient}_{slice}.tif"] for channel in ("T1", "FLAIR", "T1c")}
    found = find_input_scans(tmp_path, list(files), files)
    assert found == [{"image": str(tmp_path / "P" / f"P_{k}.tif"), "case": f"P_{k}"} for k in (2, 10)]


def test_picture_or_folder_of_pictures_gives_one_case_each(tmp_path):
    for name in ("b.png", "a.jpg", "notes.txt"):
        (tmp_path / name).write_text("")
    assert found(tmp_path / "b.png") == [{"image": str(tmp_path / "b.png"), "case": "b"}]
    assert names(found(tmp_path)) == ["a", "b"]


def test_pictures_next_to_scans_are_ignored(tmp_path):
    for name in ("a.nii.gz", "a.png"):
        (tmp_path / name).write_text("")
    assert found(tmp_path) == [{"image": str(tmp_path / "a.nii.gz"), "case": "a"}]


def test_a_stack_is_a_case_for_each_page(tmp_path):
    pictures.write_picture(tmp_path / "a.tif", *np.zeros((3, 4, 5), np.uint8))
    expected = [{"image": f"{tmp_path / 'a.tif'}#{k}", "case": f"a_{k}"} for k in range(3)]
    assert found(tmp_path / "a.tif") == found(tmp_path) == expected


def test_two_files_whose_masks_would_have_one_name_are_refused(tmp_path):
    for name in ("a.nii.gz", "a.nii"):
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=r"a\.nii and .*a\.nii\.gz would both give the mask of case a"):
        found(tmp_path)


def test_case_without_a_modality_is_refused_the_others_are_found(cohort, tmp_path):
    shutil.copytree(cohort.dataset_dir, tmp_path / "patients")
    (tmp_path / "patients" / "BraTS2021_00003" / "BraTS2021_00003_t2.nii.gz").unlink()
    cases = found(tmp_path / "patients")
    assert ["refused" in case for case in cases] == [False, False, False, True, False]
    assert "case BraTS2021_00003 lacks channel T2: expected " in cases[3]["refused"]
    with pytest.raises(InputError, match=r"case BraTS2021_00003 lacks channel T2: expected .*_t2"):
        found(tmp_path / "patients" / "BraTS2021_00003")


def test_missing_or_empty_source_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist: give a folder of patients, one scan, or a data list"):
        found(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no scan: expected files like \{case\}/\{case\}_t1\.nii"):
        found(tmp_path)


def test_a_bundle_can_be_loaded_without_any_input():
    assert found(None) == []


def test_full_disk_leaves_no_partial_mask_that_resume_would_skip(tmp_path, full_disk):
    source = scan(tmp_path / "scan.nii.gz", shape=(40, 40, 40))
    mask = np.random.default_rng(0).integers(0, 255, (40, 40, 40)).astype(np.uint8)
    with full_disk(10_000), pytest.raises(InputError, match="cannot be written"):
        save_masks(tmp_path / "out", source, mask)
    assert list((tmp_path / "out").iterdir()) == []
    assert names(unsegmented_cases(TWO, records_of(tmp_path / "out"), resume=True)) == ["a", "b"]


def test_masks_of_a_stack_become_one_stack_when_complete(tmp_path):
    images = stack_of(tmp_path / "a-volume.tif", 3)
    save_picture_masks(tmp_path / "out", dict(list(images.items())[:2]), records=records_of(tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").glob("*.tif")} == {"a_0.tif", "a_1.tif"}
    waiting = [{"case": case, "image": image} for case, image in images.items()]
    assert names(unsegmented_cases(waiting, records_of(tmp_path / "out"), resume=True)) == ["a_2"]
    save_picture_masks(tmp_path / "out", images, records=records_of(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").glob("*.tif")] == ["a.tif"]
    assert all(np.array_equal(pictures.read_picture(f"{tmp_path / 'out' / 'a.tif'}#{k}"), MASK - k) for k in range(3))
    assert unsegmented_cases(waiting, records_of(tmp_path / "out"), resume=True) == []


def test_masks_of_other_files_do_not_stay_when_resumed(tmp_path):
    source = scan(tmp_path / "a.nii")
    mask, soft = np.zeros((5, 6, 7), np.uint8), np.zeros((1, 5, 6, 7), np.float32)
    save_masks(tmp_path / "out", source, mask, soft, records=records_of(tmp_path / "out"))
    waiting = [{"case": "a", "image": str(tmp_path / "a.nii")}]
    assert unsegmented_cases(waiting, records_of(tmp_path / "out"), resume=True) == []
    other = records_of(tmp_path / "out", settings={"n4": True})
    assert names(unsegmented_cases(waiting, other, resume=True)) == ["a"]
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_scan_replaced_while_it_was_segmented_is_made_again(tmp_path):
    source, records = scan(tmp_path / "a.nii"), records_of(tmp_path / "out")
    waiting = [{"case": "a", "image": str(tmp_path / "a.nii")}]
    unsegmented_cases(waiting, records, resume=True)
    scan(tmp_path / "a.nii", affine=oblique(3.0))
    os.utime(tmp_path / "a.nii", (0, 0))
    save_masks(tmp_path / "out", source, np.zeros((5, 6, 7), np.uint8), records=records)
    assert names(unsegmented_cases(waiting, records_of(tmp_path / "out"), resume=True)) == ["a"]
