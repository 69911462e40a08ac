"""Are the files of a case found as they lie, and is a missing or doubtful one named?"""

import pytest

from scripts.errors import InputError
from scripts.inputs import find_cases, pattern_to_regex, require_channels

BRATS = {"T1": ["{case}/{case}_t1.nii*"], "T1c": ["{case}/{case}_t1ce.nii*", "{case}/{case}-t1c.nii*"]}
LABEL = ["{case}/{case}_seg.nii*"]


def make(root, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


def test_cases_are_found_at_any_depth_and_sorted_by_name(tmp_path):
    make(tmp_path, "LGG/B/B_t1.nii.gz", "HGG/A/A_t1.nii.gz", "HGG/A/A_t1ce.nii", "HGG/A/A_seg.nii.gz")
    first, second = find_cases(tmp_path, BRATS, LABEL)
    assert (first.case, second.case) == ("A", "B")
    assert {name: path.name for name, path in first.images.items()} == {"T1": "A_t1.nii.gz", "T1c": "A_t1ce.nii"}
    assert first.label.name == "A_seg.nii.gz"
    assert second.label is None


def test_the_folder_of_one_case_is_that_case(tmp_path):
    make(tmp_path, "A/A_t1.nii.gz", "B/B_t1.nii.gz")
    assert [case.case for case in find_cases(tmp_path / "A", BRATS)] == ["A"]


def test_the_name_must_be_the_same_wherever_the_pattern_repeats_it(tmp_path):
    make(tmp_path, "A/B_t1.nii.gz")
    assert find_cases(tmp_path, BRATS) == []


def test_t1_does_not_take_the_contrast_enhanced_file(tmp_path):
    make(tmp_path, "A/A_t1ce.nii.gz")
    (case,) = find_cases(tmp_path, BRATS)
    assert list(case.images) == ["T1c"]


def test_a_later_pattern_is_tried_where_an_earlier_one_finds_nothing(tmp_path):
    make(tmp_path, "A/A-t1c.nii.gz")
    (case,) = find_cases(tmp_path, BRATS)
    assert case.images["T1c"].name == "A-t1c.nii.gz"


def test_what_macos_leaves_beside_files_is_no_scan(tmp_path):
    make(tmp_path, "A/._A_t1.nii.gz", "A/A_t1.nii.gz", ".Trashes/B/B_t1.nii.gz")
    (case,) = find_cases(tmp_path, BRATS)
    assert case.images["T1"].name == "A_t1.nii.gz"
    assert [found.case for found in find_cases(tmp_path, {"T1": ["{case}_t1.nii*"]})] == ["A"]


def test_signs_that_mean_something_to_regular_expressions_are_taken_as_they_stand():
    assert pattern_to_regex("{case}(1)+.nii").search("a/x(1)+.nii")["case"] == "x"
    assert not pattern_to_regex("{case}_t1.nii").search("a_t1xnii")


def test_a_star_does_not_reach_into_another_folder_and_a_question_mark_is_one_character():
    assert not pattern_to_regex("{case}/t1*.nii").search("A/t1/b.nii")
    assert pattern_to_regex("{case}/t?.nii").search("A/t1.nii")["case"] == "A"
    assert not pattern_to_regex("{case}/t?.nii").search("A/t12.nii")


def test_a_pattern_without_a_case_is_refused():
    with pytest.raises(InputError, match=r"'t1\.nii' has no \{case\}"):
        pattern_to_regex("t1.nii")


def test_two_files_for_one_channel_are_both_named(tmp_path):
    make(tmp_path, "A/A_t1.nii", "A/A_t1.nii.gz")
    with pytest.raises(InputError, match=r"case A has two files for channel T1: .*A_t1\.nii and .*A_t1\.nii\.gz"):
        find_cases(tmp_path, BRATS)


def test_two_labels_for_one_case_are_both_named(tmp_path):
    make(tmp_path, "A/A_seg.nii", "A/A_seg.nii.gz")
    with pytest.raises(InputError, match=r"case A has two labels: .*A_seg\.nii and .*A_seg\.nii\.gz"):
        find_cases(tmp_path, BRATS, LABEL)


def test_a_root_that_is_no_folder_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="nowhere is not a folder"):
        find_cases(tmp_path / "nowhere", BRATS)


def test_files_come_in_the_order_of_the_networks_channels(tmp_path):
    make(tmp_path, "A/A_t1.nii.gz", "A/A_t1ce.nii.gz")
    (case,) = find_cases(tmp_path, BRATS)
    assert [name.rsplit("/", 1)[1] for name in require_channels(case, ["T1c", "T1"], BRATS)] == [
        "A_t1ce.nii.gz",
        "A_t1.nii.gz",
    ]


def test_a_missing_channel_is_named_with_what_was_expected_and_what_is_there(tmp_path):
    make(tmp_path, "A/A_t1.nii.gz")
    (case,) = find_cases(tmp_path, BRATS)
    with pytest.raises(InputError) as refused:
        require_channels(case, ["T1", "T1c"], BRATS)
    message = str(refused.value)
    assert "case A lacks channel T1c" in message
    assert "A/A_t1ce.nii* or A/A-t1c.nii*" in message
    assert "found T1 (A_t1.nii.gz)" in message
