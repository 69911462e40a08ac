import json
from pathlib import Path

import numpy as np
import pytest

from bundle.cohort.recognise import choose_task, known_tasks, read_task, recognise, unlabelled_among_labelled
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


def describe(root, **content):
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(content))
    return root


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
def test_the_brats_of_each_year_are_recognised_with_channels_in_order(tmp_path, files, scheme):
    layout = recognise(make(tmp_path, *files), TASKS)
    assert layout.task.label_scheme == scheme
    (case,) = layout.cases
    assert [path.name for path in case.images] == [Path(name).name for name in files[:4]]
    assert case.label.name == Path(files[4]).name


def test_a_scheme_with_the_same_file_names_is_mentioned(tmp_path):
    layout = recognise(make(tmp_path, *brats2023("BraTS-GLI-00000-000")), TASKS)
    assert any("brats2024_post would fit too" in note and "RC=4" in note for note in layout.notes)


def test_adults_and_children_in_one_folder_are_not_read_by_one_scheme(tmp_path):
    make(tmp_path, *brats2023("BraTS-GLI-00000-000"), *brats2023("BraTS-PED-00001-000"))
    with pytest.raises(InputError, match=r"two kinds.*--task"):
        recognise(tmp_path, TASKS)
    chosen = recognise(tmp_path, TASKS, choose_task("brats_ped", TASKS))
    assert [case.case for case in chosen.cases] == ["BraTS-PED-00001-000"]


def test_a_chosen_task_reads_cases_of_another_name_and_says_so(tmp_path):
    layout = recognise(make(tmp_path, *brats2023("BraTS-PED-00001-000")), TASKS, choose_task("brats2023", TASKS))
    assert len(layout.cases) == 1
    assert "because you chose it" in layout.notes[0]


def test_a_case_that_lacks_a_channel_is_kept_with_its_reason(tmp_path):
    make(tmp_path, *brats2021("a"), *brats2021("b", "t2"))
    problems = {case.case: case.problems for case in recognise(tmp_path, TASKS).cases}
    assert problems["a"] == []
    assert "lacks channel T2" in problems["b"][0]


def test_a_channel_that_every_case_lacks_is_named(tmp_path):
    with pytest.raises(InputError, match=r"called as in brats, but not even case a has T2"):
        recognise(make(tmp_path, *brats2021("a", "t2")), TASKS)


def test_files_of_brats_2023_under_other_case_names_ask_for_the_scheme(tmp_path):
    with pytest.raises(InputError, match=r"called as in brats2023; if they are that, give --task brats2023"):
        recognise(make(tmp_path, *brats2023("patient1")), TASKS)


def test_a_decathlon_folder_is_described_by_its_dataset_json(tmp_path):
    describe(
        tmp_path,
        name="BRATS",
        modality={"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        labels={"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        training=[{"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}],
        test=["./imagesTs/BRATS_002.nii.gz"],
    )
    make(tmp_path, "imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz", "imagesTs/BRATS_002.nii.gz")
    layout = recognise(tmp_path, TASKS)
    assert layout.name == "Medical Segmentation Decathlon"
    assert layout.task.name == "msd_brain"
    assert [(case.case, case.stacked, case.label is None) for case in layout.cases] == [
        ("BRATS_001", True, False),
        ("BRATS_002", True, True),
    ]


@pytest.mark.parametrize(
    "description",
    [
        {"channel_names": {"1": "T2", "0": "T1"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"},
        {
            "modality": {"0": "T1", "1": "T2"},
            "labels": {"0": "background", "1": "lesion"},
            "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
        },
    ],
    ids=["version 2", "version 1"],
)
def test_both_forms_of_nnunet_raw_are_read(tmp_path, description):
    describe(tmp_path / "Dataset7", **description)
    make(tmp_path / "Dataset7", "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz")
    layout = recognise(tmp_path / "Dataset7", TASKS)
    assert layout.name == "nnU-Net raw"
    assert layout.task.label_scheme == "Dataset7"
    assert layout.task.labels == {"lesion": 1}
    assert layout.task.channels == ["T1", "T2"]
    assert [path.name for path in layout.cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]


def test_the_overlapping_regions_of_nnunet_keep_their_names_and_their_order(tmp_path):
    describe(
        tmp_path,
        channel_names={"0": "T1"},
        labels={"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
        regions_class_order=[1, 2, 3],
    )
    make(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    task = recognise(tmp_path, TASKS).task
    assert task.regions == {"whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
    assert task.labels_out == {"whole": 1, "core": 2, "enhancing": 3}
    assert sorted(task.labels.values()) == [1, 2, 3]


def test_what_nnunet_promises_and_lacks_is_a_problem_of_the_case(tmp_path):
    describe(tmp_path, channel_names={"0": "T1", "1": "T2"}, labels={"background": 0, "lesion": 1})
    make(
        tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0002.nii.gz", "imagesTs/b_0000.nii.gz", "imagesTs/b_0001.nii.gz"
    )
    a, b = recognise(tmp_path, TASKS).cases
    assert any("lacks channel T2" in text for text in a.problems)
    assert any("does not name" in text for text in a.problems)
    assert any("needs its label" in text for text in a.problems)
    assert b.problems == []
    assert b.label is None


def test_a_file_that_the_decathlon_lists_and_that_is_gone_is_a_problem_of_the_case(tmp_path):
    entries = [{"image": f"imagesTr/{name}.nii", "label": f"labelsTr/{name}.nii"} for name in "ab"]
    describe(
        tmp_path,
        modality={"0": "CT"},
        labels={"0": "background", "1": "liver"},
        training=[*entries, {"image": "c.nii"}],
    )
    make(tmp_path, "imagesTr/b.nii", "labelsTr/b.nii", "c.nii")
    a, b, c = recognise(tmp_path, TASKS).cases
    assert len(a.problems) == 2
    assert b.problems == []
    assert not b.stacked
    assert "without a label" in c.problems[0]


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        ({"channel_names": {"0": "T1"}}, "has no 'labels'"),
        ({"channel_names": {"first": "T1"}, "labels": {"a": 1}}, "neither the Decathlon's form"),
        ({"channel_names": {"0": "T1"}, "labels": {"a": 1, "ignore": 2}}, "'ignore', which is not supported"),
        ({"channel_names": {"0": "T1"}, "labels": {"a": 1}}, "no image in imagesTr"),
    ],
)
def test_a_wrong_dataset_json_is_explained(tmp_path, description, sentence):
    with pytest.raises(InputError, match=sentence):
        recognise(describe(tmp_path, **description), TASKS)


def test_a_dataset_json_that_is_no_json_is_explained(tmp_path):
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        recognise(tmp_path, TASKS)


def test_one_name_for_a_training_and_a_test_case_is_refused(tmp_path):
    describe(tmp_path, channel_names={"0": "T1"}, labels={"background": 0, "lesion": 1})
    make(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/a_0000.nii.gz")
    with pytest.raises(InputError, match="two cases called a"):
        recognise(tmp_path, TASKS)


def test_a_task_of_other_channels_than_dataset_json_is_refused(tmp_path):
    describe(tmp_path, channel_names={"0": "T1", "1": "T2"}, labels={"background": 0, "lesion": 1})
    with pytest.raises(InputError, match=r"leave --task out"):
        recognise(tmp_path, TASKS, choose_task("brats", TASKS))


def test_a_dataset_json_of_something_else_does_not_hide_brats(tmp_path):
    describe(tmp_path, title="a paper's supplement")
    assert recognise(make(tmp_path, *brats2021("a")), TASKS).task.name == "brats"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], "holds no .nii or .nii.gz file"),
        (
            ["a/scan.nii.gz", "b/scan.nii.gz"],
            r"holds 2 .nii or .nii.gz files, such as a/scan.nii.gz, b/scan.nii.gz; say what",
        ),
        (["imagesTr/a_0000.nii.gz"], "looks like nnU-Net raw but has no dataset.json"),
        (["Task01/dataset.json"], "Task01 has a dataset.json: give that folder"),
    ],
)
def test_an_unknown_folder_is_described_with_what_to_do(tmp_path, files, sentence):
    with pytest.raises(InputError, match=sentence):
        recognise(make(tmp_path, *files), TASKS)


def test_a_file_or_a_missing_folder_is_told_apart(tmp_path):
    (tmp_path / "file.nii.gz").touch()
    with pytest.raises(InputError, match="is a file, not a folder"):
        recognise(tmp_path / "file.nii.gz", TASKS)
    with pytest.raises(InputError, match="does not exist"):
        recognise(tmp_path / "nowhere", TASKS)


def test_a_forgotten_label_is_told_from_a_folder_without_labels(tmp_path):
    make(tmp_path, *(f"Training/{name}" for name in brats2021("a") + brats2021("b", "seg")))
    make(tmp_path, *(f"Validation/{name}" for name in brats2021("c", "seg")))
    cases = recognise(tmp_path, TASKS).cases
    assert [case.case for case in unlabelled_among_labelled(cases, tmp_path)] == ["b"]


def test_a_mistyped_task_gets_the_nearest_name():
    with pytest.raises(InputError, match="did you mean brats2023"):
        choose_task("brats2032", TASKS)


def test_a_task_file_of_the_users_own_is_read(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "label_scheme: mine\nlabels: {a: 1}\nchannels: [CT]\nregions: {a: [1]}\nroi: 3\n"
    )
    task = choose_task(str(tmp_path / "mine.yaml"), TASKS)
    assert (task.name, task.channels) == ("mine", ["CT"])


@pytest.mark.parametrize(
    ("text", "sentence"), [("labels: {a: 1}", "has no label_scheme, channels"), ("a: [", "cannot be read")]
)
def test_a_broken_task_file_is_explained(tmp_path, text, sentence):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_task(tmp_path / "mine.yaml")


def test_a_task_without_file_names_is_no_way_to_read_a_folder(tmp_path):
    with pytest.raises(InputError, match="does not say how its files are called"):
        recognise(make(tmp_path, *brats2021("a")), TASKS, choose_task("phantom", TASKS))


# ---- pictures and slices -------------------------------------------------------------------------------------------


def lgg(patient, *numbers):
    return [f"{patient}/{patient}_{k}{kind}.tif" for k in numbers for kind in ("", "_mask")]


def test_slices_of_patients_are_recognised_with_all_channels_in_one_file(tmp_path):
    layout = recognise(make(tmp_path, *lgg("TCGA_CS_1_1999", 1, 2, 10), *lgg("TCGA_DU_2_1999", 1), "data.csv"), TASKS)
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
    layout = recognise(
        make(tmp_path, *(f"train/{kind}/{k}.png" for k in range(3) for kind in ("image", "label"))), TASKS
    )
    assert layout.task.name == "isbi2012"
    assert [(case.case, case.volume, case.slice, case.patient) for case in layout.cases] == [
        (str(k), "train", k, None) for k in range(3)
    ]
    assert not layout.cases[0].stacked


def test_stacks_of_sections_are_recognised_and_those_without_labels_are_no_mistake(tmp_path):
    for name in ("train-volume", "train-labels", "test-volume"):
        pictures.write(tmp_path / f"{name}.tif", *np.zeros((2, 4, 5), np.uint8))
    layout = recognise(tmp_path, TASKS)
    assert layout.task.name == "isbi2012"
    assert [(case.case, case.label and case.label.name) for case in layout.cases] == [
        ("test_0", None), ("test_1", None), ("train_0", "train-labels.tif#0"), ("train_1", "train-labels.tif#1")
    ]  # fmt: skip
    assert unlabelled_among_labelled(layout.cases, tmp_path) == []


def test_a_slice_whose_mask_is_missing_is_doubted_and_a_patient_without_any_is_not(tmp_path):
    make(tmp_path, *lgg("TCGA_a", 1, 2), *lgg("TCGA_b", 1, 2))
    for name in ("TCGA_a/TCGA_a_2_mask.tif", "TCGA_b/TCGA_b_1_mask.tif", "TCGA_b/TCGA_b_2_mask.tif"):
        (tmp_path / name).unlink()
    doubted = unlabelled_among_labelled(recognise(tmp_path, TASKS).cases, tmp_path)
    assert [case.case for case in doubted] == ["TCGA_a_2"]


def test_pictures_that_nobody_knows_get_a_way_for_pictures(tmp_path):
    with pytest.raises(InputError, match=r"it holds 2 pictures, such as images/a\.png.*grey=images/\{case\}\.png"):
        recognise(make(tmp_path, "images/a.png", "masks/a.png"), TASKS)
