"""Data lists with leakage, or that differ from the files on disk, are refused before training."""

import copy
import json
import shutil

import pytest

from scripts.data import datalist
from scripts.errors import InputError


@pytest.fixture
def small() -> dict:
    """Two visits of patient p, two other patients, one set aside, one without a label."""
    training = [
        {"image": ["a1.nii", "a2.nii"], "label": "a_seg.nii", "case": "a", "patient": "p", "fold": 0},
        {"image": ["b1.nii", "b2.nii"], "label": "b_seg.nii", "case": "b", "patient": "p", "fold": 0},
        {"image": "c.nii", "label": "c_seg.nii", "case": "c", "patient": "q", "fold": 1},
        {"image": "d.nii", "label": "d_seg.nii", "case": "d", "patient": "r", "split": "test"},
    ]
    return {
        "channels": ["T1", "T2"],
        "label_scheme": "demo",
        "labels": {"tumour": 1},
        "regions": {"tumour": [1]},
        "hashes": {},
        "voxels": {"a": "1", "b": "2", "c": "3", "d": "4"},
        "training": training,
        "testing": [{"image": "e.nii", "case": "e", "patient": "e"}],
    }


def written(tmp_path, content) -> str:
    path = tmp_path / "list.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def cases(chosen) -> list[str]:
    return [entry["case"] for entry in chosen]


def test_list_written_by_prepare_is_read_and_keeps_its_split(cohort):
    content = datalist.read_datalist(cohort.datalist)
    datalist.check_datalist(content, cohort.dataset_dir)
    assert len(datalist.select_cases(content, cohort.dataset_dir, "training", 0)) == 3
    assert len(datalist.all_entries(content)) == 5


def test_a_missing_list_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match=r"list\.json cannot be read .*python -m bundle prepare"):
        datalist.read_datalist(tmp_path / "list.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "is not JSON"),
        ("[]", "has no channels, label_scheme, labels, regions, hashes, training"),
        ('{"channels": []}', "has no label_scheme"),
        (json.dumps(dict.fromkeys(datalist.HEADER)), "'training' of .* is not a list of cases"),
    ],
)
def test_file_that_is_no_data_list_says_what_is_missing(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        datalist.read_datalist(written(tmp_path, content))


@pytest.mark.parametrize("key", ["image", "case", "patient"])
def test_an_entry_that_lacks_a_key_is_shown(tmp_path, small, key):
    del small["testing"][0][key]
    with pytest.raises(InputError, match=f"an entry of .* has no '{key}'"):
        datalist.read_datalist(written(tmp_path, small))


@pytest.mark.parametrize("change", [{"fold": 1, "split": "test"}, {"fold": None}, {"label": None}])
def test_training_case_has_a_label_and_either_fold_or_split(tmp_path, small, change):
    entry = small["training"][0]
    entry.update(change)
    for key in [key for key, value in change.items() if value is None]:
        del entry[key]
    with pytest.raises(InputError, match=r'case a of `training` needs a label, and either a fold or "split": "test"'):
        datalist.read_datalist(written(tmp_path, small))


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("training", ["a", "b"]),
        ("validation", ["c"]),
        ("test", ["d"]),
        ("labelled", ["a", "b", "c", "d"]),
        ("testing", ["e"]),
    ],
)
def test_each_part_holds_its_own_cases_without_held_out_ones(small, part, expected):
    assert cases(datalist.select_cases(small, "/data", part, fold=1)) == expected


def test_paths_start_from_the_data_folder(small):
    first = datalist.select_cases(small, "/data", "training", 1)[0]
    assert first["image"] == ["/data/a1.nii", "/data/a2.nii"]
    assert first["label"] == "/data/a_seg.nii"
    assert datalist.select_cases(small, "/data", "testing")[0]["image"] == "/data/e.nii"
    assert small["training"][0]["label"] == "a_seg.nii"  # the list itself is left as it was


def test_missing_fold_names_the_existing_ones(small):
    with pytest.raises(InputError, match="no fold 5: it has 0, 1"):
        datalist.select_cases(small, "/data", "training", 5)


def test_an_empty_part_is_refused(small):
    small["testing"] = []
    with pytest.raises(InputError, match="no case for testing"):
        datalist.select_cases(small, "/data", "testing")


def test_the_patients_of_a_part_are_each_named_once(small):
    assert datalist.patients_in_part(small, "training", 1) == ["p"]
    assert datalist.patients_in_part(small, "labelled") == ["p", "q", "r"]


def test_held_out_patients_are_scored_before_the_validation_fold(small):
    assert datalist.part_to_evaluate(small) == "test"
    assert datalist.part_to_evaluate(small, "validation") == "validation"
    del small["training"][3]
    assert datalist.part_to_evaluate(small) == "validation"
    with pytest.raises(InputError, match="part is 'training': expected test, validation or labelled"):
        datalist.part_to_evaluate(small, "training")


def test_a_patient_in_two_folds_is_refused_by_name(small):
    small["training"][1]["fold"] = 1
    with pytest.raises(InputError, match="patient p is in fold 0 and fold 1"):
        datalist.check_split(small)


def test_patient_in_both_training_and_test_is_refused(small):
    small["training"][3]["patient"] = "q"
    with pytest.raises(InputError, match="patient q is in fold 1 and the test set"):
        datalist.check_split(small)


def test_identical_voxels_under_two_names_are_refused_across_folds_only(small):
    small["voxels"]["b"] = "1"
    datalist.check_split(small)  # a and b share a fold
    small["voxels"]["c"] = "1"
    with pytest.raises(InputError, match="cases a and b and c hold the same voxels"):
        datalist.check_split(small)


@pytest.mark.parametrize("part", ["training", "testing"])
def test_duplicate_case_is_refused(tmp_path, small, part):
    small[part].append(copy.deepcopy(small["training"][0]))
    with pytest.raises(InputError, match="lists case a twice"):
        datalist.read_datalist(written(tmp_path, small))


def test_missing_file_is_named(cohort, tmp_path):
    content = datalist.read_datalist(cohort.datalist)
    with pytest.raises(InputError, match=r"_t1\.nii\.gz is in the data list but not on disk: check dataset_dir"):
        datalist.check_datalist(content, tmp_path, hashes=False)


def test_file_changed_since_the_list_was_made_is_named(cohort, tmp_path):
    content = datalist.read_datalist(cohort.datalist)
    shutil.copytree(cohort.dataset_dir, tmp_path / "copy")
    datalist.check_datalist(content, tmp_path / "copy")
    changed = tmp_path / "copy" / content["training"][1]["label"]
    changed.write_bytes(changed.read_bytes() + b"x")
    datalist.check_datalist(content, tmp_path / "copy", hashes=False)
    with pytest.raises(InputError, match=rf"{changed.name} has changed since the data list was made"):
        datalist.check_datalist(content, tmp_path / "copy")


def test_list_hash_depends_on_content_and_not_on_formatting(small):
    again = dict(reversed(small.items()))
    assert datalist.datalist_hash(again) == datalist.datalist_hash(small)
    again["seed"] = 1
    assert datalist.datalist_hash(again) != datalist.datalist_hash(small)


def test_a_list_of_other_channels_or_another_order_is_refused(small):
    datalist.require_same_task(small, ["T1", "T2"], "demo", {"tumour": 1})
    with pytest.raises(InputError, match="the data list has channels T1, T2, the config has T2, T1"):
        datalist.require_same_task(small, ["T2", "T1"], "demo", {"tumour": 1})


@pytest.mark.parametrize(("scheme", "labels"), [("other", {"tumour": 1}), ("demo", {"tumour": 2})])
def test_a_list_of_another_label_scheme_is_refused(small, scheme, labels):
    with pytest.raises(InputError, match="the data list has label scheme demo"):
        datalist.require_same_task(small, ["T1", "T2"], scheme, labels)


def test_processes_share_cases_without_losing_or_repeating_one(small):
    chosen = datalist.select_cases(small, "/data", "labelled")
    parts = [datalist.cases_of_rank(chosen, rank, 3) for rank in range(3)]
    assert sorted(case for part in parts for case in cases(part)) == ["a", "b", "c", "d"]
    assert datalist.cases_of_rank(chosen, 0, 1) == chosen


def test_more_processes_than_cases_are_refused(small):
    with pytest.raises(InputError, match="4 cases cannot be shared by 5 processes"):
        datalist.cases_of_rank(datalist.select_cases(small, "/data", "labelled"), 0, 5)


def test_pages_of_a_stack_share_one_file_which_is_verified(tmp_path):
    (tmp_path / "stack.tif").write_text("pages")
    entries = [{"image": [f"stack.tif#{page}"], "case": str(page)} for page in range(3)]
    assert datalist.entry_files(entries[2]) == ["stack.tif"]
    content = {"hashes": {"stack.tif": datalist.file_hash(tmp_path / "stack.tif")}}
    datalist.check_files(content, entries, tmp_path)
    (tmp_path / "stack.tif").write_text("other pages")
    with pytest.raises(InputError, match=r"stack\.tif has changed"):
        datalist.check_files(content, entries, tmp_path)
