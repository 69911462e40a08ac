import json

import pytest

from bundle.cohort.recognise import recognise_folder
from bundle.cohort.tasks import choose_task, known_tasks
from scripts.errors import InputError

TASKS = known_tasks()


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def describe(root, **content):
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(content))
    return root


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
    layout = recognise_folder(tmp_path, TASKS)
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
    layout = recognise_folder(tmp_path / "Dataset7", TASKS)
    assert layout.name == "nnU-Net raw"
    assert layout.task.label_scheme == "Dataset7"
    assert layout.task.labels == {"lesion": 1}
    assert layout.task.channels == ["T1", "T2"]
    assert [path.name for path in layout.cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]


def test_overlapping_nnunet_regions_keep_their_names_and_order(tmp_path):
    describe(
        tmp_path,
        channel_names={"0": "T1"},
        labels={"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
        regions_class_order=[1, 2, 3],
    )
    make(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    task = recognise_folder(tmp_path, TASKS).task
    assert task.regions == {"whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
    assert task.labels_out == {"whole": 1, "core": 2, "enhancing": 3}
    assert sorted(task.labels.values()) == [1, 2, 3]


def test_file_missing_from_an_nnunet_dataset_is_a_case_problem(tmp_path):
    describe(tmp_path, channel_names={"0": "T1", "1": "T2"}, labels={"background": 0, "lesion": 1})
    make(
        tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0002.nii.gz", "imagesTs/b_0000.nii.gz", "imagesTs/b_0001.nii.gz"
    )
    a, b = recognise_folder(tmp_path, TASKS).cases
    assert any("lacks channel T2" in text for text in a.problems)
    assert any("does not name" in text for text in a.problems)
    assert any("needs its label" in text for text in a.problems)
    assert b.problems == []
    assert b.label is None


def test_file_missing_from_a_decathlon_dataset_is_a_case_problem(tmp_path):
    entries = [{"image": f"imagesTr/{name}.nii", "label": f"labelsTr/{name}.nii"} for name in "ab"]
    describe(
        tmp_path,
        modality={"0": "CT"},
        labels={"0": "background", "1": "liver"},
        training=[*entries, {"image": "c.nii"}],
    )
    make(tmp_path, "imagesTr/b.nii", "labelsTr/b.nii", "c.nii")
    a, b, c = recognise_folder(tmp_path, TASKS).cases
    assert len(a.problems) == 2
    assert b.problems == []
    assert not b.stacked
    assert "without a label" in c.problems[0]


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        ({"channel_names": {"0": "T1"}}, "has no 'labels'"),
        ({"channel_names": {"first": "T1"}, "labels": {"a": 1}}, "neither the Decathlon's form"),
        ({"channel_names": {"0": "T1"}, "labels": {"a": 1}}, "no image in imagesTr"),
    ],
)
def test_a_wrong_dataset_json_is_explained(tmp_path, description, sentence):
    with pytest.raises(InputError, match=sentence):
        recognise_folder(describe(tmp_path, **description), TASKS)


def test_invalid_dataset_json_is_explained(tmp_path):
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        recognise_folder(tmp_path, TASKS)


def test_same_name_for_training_and_test_case_is_refused(tmp_path):
    describe(tmp_path, channel_names={"0": "T1"}, labels={"background": 0, "lesion": 1})
    make(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/a_0000.nii.gz")
    with pytest.raises(InputError, match="two cases called a"):
        recognise_folder(tmp_path, TASKS)


def test_a_task_of_other_channels_than_dataset_json_is_refused(tmp_path):
    describe(tmp_path, channel_names={"0": "T1", "1": "T2"}, labels={"background": 0, "lesion": 1})
    with pytest.raises(InputError, match=r"leave --task out"):
        recognise_folder(tmp_path, TASKS, choose_task("brats", TASKS))


def test_the_ignore_label_of_nnunet_is_ignored_here_too(tmp_path):
    make(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    describe(tmp_path, channel_names={"0": "T1"}, labels={"background": 0, "lesion": 1, "ignore": 2})
    task = recognise_folder(tmp_path, TASKS).task
    assert (task.labels, task.regions, task.ignore) == ({"lesion": 1}, {"lesion": [1]}, 2)
