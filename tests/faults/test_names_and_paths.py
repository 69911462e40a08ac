"""Names of cases depend on their own paths alone; neither names nor paths lead out of the folder."""

import json
from pathlib import Path

import pandas as pd
import pytest

from bundle.cohort.datalist_maker import make_datalist, read_layout
from bundle.cohort.splits import SplitOptions
from bundle.commands.phantom import phantom
from bundle.commands.prepare import prepare
from scripts.data.case_files import find_cases
from scripts.data.datalist import read_datalist, select_cases
from scripts.errors import InputError
from scripts.inference.scans import find_input_scans
from scripts.scoring.cohort import COLUMNS, ScoreTables, read_cases, write_tables
from scripts.scoring.prediction_files import images_in
from scripts.scoring.tables import read_table, write_table

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


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "a\udcff"])
@pytest.mark.parametrize("file", ["t1.nii", "whole.nii.gz"])
def test_a_folder_whose_name_is_no_text_is_refused(tmp_path, name, file):
    make(tmp_path, f"{name}/week-000/t1.nii" if file == "t1.nii" else f"{name}.nii.gz")
    with pytest.raises(InputError, match=r"gives a case the name 'a\\.*: rename it without control") as refused:
        find_input_scans(tmp_path, ["T1"], {"T1": WEEKS["T1"]})
    assert str(refused.value).isprintable()


def test_files_of_two_patients_get_the_advice_to_name_them(tmp_path):
    make(tmp_path, "P1/week-000/t1.nii", "P2/week-000/t1.nii")
    with pytest.raises(
        InputError, match=r"case week-000 has two files .*two patients .*\{patient\}/\{case\}"
    ) as refused:
        find_cases(tmp_path, {"T1": ["{case}/t1.nii"]}, [])
    assert "keep one" not in str(refused.value)


# ---- data lists ----------------------------------------------------------------------------------------------------


def write_list(tmp_path: Path, **changes: object) -> Path:
    entry = {"image": ["a/t1.nii"], "label": "a/seg.nii", "case": "a", "patient": "p", "fold": 0, **changes}
    header = {"channels": ["T1"], "label_scheme": "demo", "labels": {}, "regions": {}, "hashes": {}}
    (tmp_path / "list.json").write_text(json.dumps({**header, "training": [entry]}))
    return tmp_path / "list.json"


@pytest.mark.parametrize(
    "case",
    [
        "../../x",
        "/x",
        "a/b",
        "a\\b",
        "..",
        ".",
        "",
        " ",
        ".records",
        "a\0b",
        "a\nb",
        "a\x1b[2J",
        "\udcff",
        7,
        None,
        ["a"],
    ],
)
def test_a_case_that_names_another_place_is_refused(tmp_path, case):
    with pytest.raises(InputError, match=r"has the case .*: expected a plain name in quotes"):
        read_datalist(write_list(tmp_path, case=case))


@pytest.mark.parametrize(
    "path", ["../t1.nii", "/etc/t1.nii", "a/../../t1.nii", "..\\t1.nii", "C:\\t1.nii", "C:t1.nii", "", ".", "a\0", 7]
)
@pytest.mark.parametrize("key", ["image", "label", "patient", "volume"])
def test_a_path_that_leaves_the_dataset_is_refused(tmp_path, key, path):
    with pytest.raises(InputError, match=rf"case a has the {key} .*expected text that leads nowhere else"):
        read_datalist(write_list(tmp_path, **{key: [path] if key == "image" else path}))


@pytest.mark.parametrize(
    "name", ["Patient 001", "BraTS-GLI-00000-000", "Müller_07", "患者1", "a..b", "2024_01_15", "-1", "scan 12:30"]
)
def test_ordinary_names_are_read(tmp_path, name):
    content = read_datalist(
        write_list(tmp_path, case=name, patient=name, volume=f"site/{name}", image=f"{name}/./t1.nii")
    )
    assert content["training"][0]["case"] == name


def test_a_link_in_the_dataset_may_lead_out_of_it(tmp_path):
    make(tmp_path, "elsewhere/t1.nii", "here/note")
    (tmp_path / "here/a").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (entry,) = select_cases(read_datalist(write_list(tmp_path)), tmp_path / "here", "labelled")
    assert Path(entry["image"][0]).is_file()


def test_prepare_lists_no_file_outside_the_folder(tmp_path):
    described = {"modality": {"0": "T1"}, "labels": {"0": "background", "1": "tumour"}, "test": []}
    described["training"] = [{"image": "../a.nii.gz", "label": "b.nii.gz"}]
    make(tmp_path, "a.nii.gz", "set/b.nii.gz")
    (tmp_path / "set/dataset.json").write_text(json.dumps(described))
    layout = read_layout(str(tmp_path / "set"), [])
    with pytest.raises(InputError, match=r"case a has the image .*\.\./a\.nii\.gz.*leads nowhere else"):
        make_datalist(str(tmp_path / "set"), layout, [], SplitOptions(folds=2))


def test_follow_up_scans_under_another_name_are_noted(tmp_path, capsys):
    phantom(str(tmp_path / "set"), cases=3, size=32, spacing=6.0)
    for number, name in enumerate(("P1_week-000", "P1_week-024", "P2_week-000")):
        folder = (tmp_path / "set" / f"BraTS2021_{number:05d}").rename(tmp_path / "set" / name)
        for file in list(folder.iterdir()):
            file.rename(folder / file.name.replace(f"BraTS2021_{number:05d}", name))
    prepare(str(tmp_path / "set"), out=str(tmp_path / "list.json"), folds=2, picture=False, workers=1)
    assert "P1_week-000 and P1_week-024. If so, give --group_by" in capsys.readouterr().out


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


# ---- tables --------------------------------------------------------------------------------------------------------

FORMULAS = ["=1+1", "+SUM(A1)", "-cmd|' /C calc'!A0", "@x", "\t=1", "\rx", "'=1", "''@x"]
PLAIN = ["-1", "+2.5e3", "007", "'quoted'", "a=b", "", "inf", "a,b"]


@pytest.mark.parametrize("name", FORMULAS)
def test_no_name_in_a_table_is_a_formula(tmp_path, name):
    write_table(pd.DataFrame({"case": [name], "note": [name]}), tmp_path / "t.csv")
    cells = pd.read_csv(tmp_path / "t.csv", dtype=str, keep_default_na=False).iloc[0]
    assert [cell[0] for cell in cells] == ["'", "'"]


@pytest.mark.parametrize("name", FORMULAS + PLAIN)
def test_a_table_gives_back_its_names_and_numbers(tmp_path, name):
    frame = pd.DataFrame(
        [(name, name, "WT", "dice", value, "", name) for value in (-0.1, float("inf"))], columns=COLUMNS
    )
    write_tables(ScoreTables(frame), tmp_path)
    pd.testing.assert_frame_equal(read_cases(tmp_path / "cases.csv"), frame)


@pytest.mark.parametrize("name", PLAIN)
def test_other_text_and_numbers_are_written_as_they_are(tmp_path, name):
    frame = pd.DataFrame({"case": [name], "value": [-0.1]})
    frame.to_csv(tmp_path / "plain.csv", index=False)
    write_table(frame, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()
    assert read_table(tmp_path / "t.csv", dtype={"case": str})["value"][0] == -0.1
