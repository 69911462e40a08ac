from pathlib import Path

import numpy as np
import pytest

from bundle.cohort.recognise import recognise_folder, unlabelled_among_labelled
from bundle.cohort.tasks import choose_task, known_tasks
from scripts.data import pictures
from scripts.errors import InputError

TASKS = known_tasks()


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def brats2021(case, *leave_out, ending=".nii.gz"):
    return [f"{case}/{case}_{c}{ending}" for c in ("t1", "t1ce", "t2", "flair", "seg") if c not in leave_out]


def brats2023(case, *leave_out):
    return [f"{case}/{case}-{c}.nii.gz" for c in ("t1n", "t1c", "t2w", "t2f", "seg") if c not in leave_out]


@pytest.mark.parametrize(
    ("files", "scheme"),
    [
        (brats2021("BraTS2021_00001"), "brats2021"),
        (brats2021("BraTS20_Training_001", ending=".nii"), "brats2021"),
        ([f"HGG/{name}" for name in brats2021("Brats18_2013_2_1")], "brats2021"),
        (brats2023("BraTS-GLI-00000-000"), "brats2023"),
        (brats2023("BraTS-MEN-00004-000"), "brats2023"),
        (brats2023("BraTS-MET-00004-000"), "brats2023"),
        (brats2023("BraTS-SSA-00002-000"), "brats2023"),
        (brats2023("BraTS-PED-00001-000"), "brats_ped"),
    ],
)
def test_brats_of_each_year_is_recognised_with_channels_in_order(tmp_path, files, scheme):
    layout = recognise_folder(make(tmp_path, *files), TASKS)
    assert layout.task.label_scheme == scheme
    (case,) = layout.cases
    assert [path.name for path in case.images] == [Path(name).name for name in files[:4]]
    assert case.label.name == Path(files[4]).name


def test_a_scheme_with_the_same_file_names_is_mentioned(tmp_path):
    layout = recognise_folder(make(tmp_path, *brats2023("BraTS-GLI-00000-000")), TASKS)
    assert any("brats2024_post also fits" in note and "RC=4" in note for note in layout.notes)


def test_adult_and_paediatric_cases_in_one_folder_are_refused(tmp_path):
    make(tmp_path, *brats2023("BraTS-GLI-00000-000"), *brats2023("BraTS-PED-00001-000"))
    with pytest.raises(InputError, match=r"two kinds.*--task"):
        recognise_folder(tmp_path, TASKS)
    chosen = recognise_folder(tmp_path, TASKS, choose_task("brats_ped", TASKS))
    assert [case.case for case in chosen.cases] == ["BraTS-PED-00001-000"]


def test_chosen_task_reads_cases_of_other_names_and_reports_it(tmp_path):
    layout = recognise_folder(make(tmp_path, *brats2023("BraTS-PED-00001-000")), TASKS, choose_task("brats2023", TASKS))
    assert len(layout.cases) == 1
    assert "because --task names it" in layout.notes[0]


def test_case_without_a_channel_is_kept_with_its_reason(tmp_path):
    make(tmp_path, *brats2021("a"), *brats2021("b", "t2"))
    problems = {case.case: case.problems for case in recognise_folder(tmp_path, TASKS).cases}
    assert problems["a"] == []
    assert "lacks channel T2" in problems["b"][0]


def test_a_channel_that_every_case_lacks_is_named(tmp_path):
    with pytest.raises(InputError, match=r"have the names of brats, but even case a lacks T2"):
        recognise_folder(make(tmp_path, *brats2021("a", "t2")), TASKS)


def test_brats2023_files_under_other_case_names_require_a_scheme(tmp_path):
    with pytest.raises(InputError, match=r"have the names of brats2023; if they are that, give --task brats2023"):
        recognise_folder(make(tmp_path, *brats2023("patient1")), TASKS)


def test_a_dataset_json_of_something_else_does_not_hide_brats(tmp_path):
    (tmp_path / "dataset.json").write_text('{"title": "a paper\'s supplement"}')
    assert recognise_folder(make(tmp_path, *brats2021("a")), TASKS).task.name == "brats"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], "has no .nii, .nii.gz, .nrrd or .mha file"),
        (
            ["a/scan.nii.gz", "b/scan.nii.gz"],
            r"has 2 .nii, .nii.gz, .nrrd or .mha files, such as a/scan.nii.gz, b/scan.nii.gz; give",
        ),
        (["imagesTr/a_0000.nii.gz"], "looks like nnU-Net raw but has no dataset.json"),
        (["Task01/dataset.json"], "Task01 has a dataset.json: give that folder"),
    ],
)
def test_an_unknown_folder_is_described_with_what_to_do(tmp_path, files, sentence):
    with pytest.raises(InputError, match=sentence):
        recognise_folder(make(tmp_path, *files), TASKS)


def test_file_and_missing_folder_have_different_messages(tmp_path):
    (tmp_path / "file.nii.gz").touch()
    with pytest.raises(InputError, match="is a file, not a folder"):
        recognise_folder(tmp_path / "file.nii.gz", TASKS)
    with pytest.raises(InputError, match="does not exist"):
        recognise_folder(tmp_path / "nowhere", TASKS)


def test_forgotten_label_differs_from_a_folder_without_labels(tmp_path):
    make(tmp_path, *(f"Training/{name}" for name in brats2021("a") + brats2021("b", "seg")))
    make(tmp_path, *(f"Validation/{name}" for name in brats2021("c", "seg")))
    cases = recognise_folder(tmp_path, TASKS).cases
    assert [case.case for case in unlabelled_among_labelled(cases, tmp_path)] == ["b"]


def test_task_without_file_names_cannot_read_a_folder(tmp_path):
    with pytest.raises(InputError, match="has no patterns of file names"):
        recognise_folder(make(tmp_path, *brats2021("a")), TASKS, choose_task("phantom", TASKS))


# ---- pictures and slices -------------------------------------------------------------------------------------------


def lgg(patient, *numbers):
    return [f"{patient}/{patient}_{k}{kind}.tif" for k in numbers for kind in ("", "_mask")]


def test_patient_slices_are_recognised_with_all_channels_in_one_file(tmp_path):
    layout = recognise_folder(
        make(tmp_path, *lgg("TCGA_CS_1_1999", 1, 2, 10), *lgg("TCGA_DU_2_1999", 1), "data.csv"), TASKS
    )
    assert layout.task.name == "lgg"
    assert [(case.patient[:9], case.slice) for case in layout.cases] == [
        ("TCGA_CS_1", 1), ("TCGA_CS_1", 2), ("TCGA_CS_1", 10), ("TCGA_DU_2", 1)
    ]  # fmt: skip
    first = layout.cases[0]
    assert first.stacked
    assert ([path.name for path in first.images], first.label.name) == (
        ["TCGA_CS_1_1999_1.tif"],
        "TCGA_CS_1_1999_1_mask.tif",
    )


def test_sections_with_labels_are_recognised_as_one_volume(tmp_path):
    layout = recognise_folder(
        make(tmp_path, *(f"train/{kind}/{k}.png" for k in range(3) for kind in ("image", "label"))), TASKS
    )
    assert layout.task.name == "isbi2012"
    assert [(case.case, case.volume, case.slice, case.patient) for case in layout.cases] == [
        (f"train_{k}", "train", k, None) for k in range(3)
    ]
    assert not layout.cases[0].stacked


def test_stacks_are_recognised_and_unlabelled_ones_are_not_errors(tmp_path):
    for name in ("train-volume", "train-labels", "test-volume"):
        pictures.write_picture(tmp_path / f"{name}.tif", *np.zeros((2, 4, 5), np.uint8))
    layout = recognise_folder(tmp_path, TASKS)
    assert layout.task.name == "isbi2012"
    assert [(case.case, case.label and case.label.name) for case in layout.cases] == [
        ("test_0", None), ("test_1", None), ("train_0", "train-labels.tif#0"), ("train_1", "train-labels.tif#1")
    ]  # fmt: skip
    assert unlabelled_among_labelled(layout.cases, tmp_path) == []


def test_missing_mask_is_reported_unless_the_patient_has_none(tmp_path):
    make(tmp_path, *lgg("TCGA_a", 1, 2), *lgg("TCGA_b", 1, 2))
    for name in ("TCGA_a/TCGA_a_2_mask.tif", "TCGA_b/TCGA_b_1_mask.tif", "TCGA_b/TCGA_b_2_mask.tif"):
        (tmp_path / name).unlink()
    doubted = unlabelled_among_labelled(recognise_folder(tmp_path, TASKS).cases, tmp_path)
    assert [case.case for case in doubted] == ["TCGA_a_2"]


def test_unrecognised_pictures_get_instructions_for_pictures(tmp_path):
    with pytest.raises(InputError, match=r"it has 2 pictures, such as images/a\.png.*grey=images/\{case\}\.png"):
        recognise_folder(make(tmp_path, "images/a.png", "masks/a.png"), TASKS)
