"""Names of cases depend on their own paths alone; neither names nor paths lead out of the folder."""

from pathlib import Path

import pytest

from scripts.data.case_files import find_cases
from scripts.errors import InputError
from scripts.inference.scans import find_input_scans
from scripts.scoring.prediction_files import images_in

WEEKS = {"T1": ["{patient}/{case}/t1.nii"], "T2": ["{patient}/{case}/t2.nii"]}
SECTIONS = {"EM": ["image/{slice}.png"]}


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    return root


def names_of(root: Path, patterns: dict[str, list[str]]) -> list[str]:
    return [case.case for case in find_cases(root, patterns)]


# ---- names ---------------------------------------------------------------------------------------------------------


def test_another_patient_does_not_change_a_cases_name(tmp_path):
    alone = names_of(make(tmp_path, "P1/week-000/t1.nii"), WEEKS)
    assert alone == ["P1_week-000"]
    assert names_of(make(tmp_path, "P2/week-000/t1.nii"), WEEKS) == [*alone, "P2_week-000"]


@pytest.mark.parametrize("folder", ["", "P1", "P1/week-000"])
def test_the_folder_that_is_given_does_not_change_a_name(tmp_path, folder):
    make(tmp_path, "P1/week-000/t1.nii")
    assert names_of(tmp_path / folder, WEEKS) == ["P1_week-000"]


@pytest.mark.parametrize("folder", ["train", "train/image"])
def test_another_volume_does_not_change_a_slices_name(tmp_path, folder):
    alone = names_of(make(tmp_path, "train/image/7.png") / folder, SECTIONS)
    assert names_of(make(tmp_path, "other/image/7.png"), SECTIONS) == ["other_7", *alone]


def test_a_label_does_not_change_a_slices_name(tmp_path):
    alone = names_of(make(tmp_path, "v/image/007.png"), SECTIONS)
    make(tmp_path, "v/drawn/7.png")
    assert [case.case for case in find_cases(tmp_path, SECTIONS, ["drawn/{slice}.png"])] == alone


def test_a_name_that_starts_with_the_patient_stays(tmp_path):
    make(tmp_path, "P1/P1_w0/t1.nii", "P1/P10/t1.nii")
    assert names_of(tmp_path, WEEKS) == ["P1_P10", "P1_w0"]


def test_a_single_file_has_the_name_that_its_folder_gives(tmp_path):
    file, patterns = make(tmp_path, "P1/week-000/t1.nii") / "P1/week-000/t1.nii", {"T1": WEEKS["T1"]}
    assert find_input_scans(file, ["T1"], patterns) == [{"image": [str(file)], "case": "P1_week-000"}]
    assert find_input_scans(tmp_path, ["T1"], patterns) == find_input_scans(file, ["T1"], patterns)


def test_files_of_two_patients_get_the_advice_to_name_them(tmp_path):
    make(tmp_path, "P1/week-000/t1.nii", "P2/week-000/t1.nii")
    with pytest.raises(
        InputError, match=r"case week-000 has two files .*two patients .*\{patient\}/\{case\}"
    ) as refused:
        find_cases(tmp_path, {"T1": ["{case}/t1.nii"]}, [])
    assert "keep one" not in str(refused.value)


# ---- walks ---------------------------------------------------------------------------------------------------------


def test_links_to_the_folder_itself_are_not_walked(tmp_path):
    make(tmp_path, "P1/week-000/t1.nii", "P1/week-000/P1_week-000.nii.gz")
    for name in ("again", "P1/and_again", "P1/week-000/up"):
        (tmp_path / name).symlink_to(tmp_path, target_is_directory=True)
    assert names_of(tmp_path, WEEKS) == ["P1_week-000"]
    assert [path.name for path in images_in(tmp_path)] == ["P1_week-000.nii.gz", "t1.nii"]


def test_a_folder_has_its_own_name_not_a_links(tmp_path):
    make(tmp_path, "z/week-000/t1.nii")
    (tmp_path / "a").symlink_to(tmp_path / "z", target_is_directory=True)
    assert names_of(tmp_path, WEEKS) == ["z_week-000"]


def test_linked_folders_outside_are_read(tmp_path):
    make(tmp_path, "elsewhere/P1/week-000/t1.nii", "here/P2/week-000/t1.nii")
    (tmp_path / "here/P1").symlink_to(tmp_path / "elsewhere/P1", target_is_directory=True)
    assert names_of(tmp_path / "here", WEEKS) == ["P1_week-000", "P2_week-000"]
