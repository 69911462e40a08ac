"""Finding the files of cases; missing and ambiguous ones are named."""

import pytest
from PIL import Image

from scripts.data.case_files import find_cases, image_entry, pattern_to_regex, require_channels
from scripts.errors import InputError

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


def test_repeated_placeholder_must_match_the_same_name(tmp_path):
    make(tmp_path, "A/B_t1.nii.gz")
    assert find_cases(tmp_path, BRATS) == []


def test_t1_does_not_take_the_contrast_enhanced_file(tmp_path):
    make(tmp_path, "A/A_t1ce.nii.gz")
    (case,) = find_cases(tmp_path, BRATS)
    assert list(case.images) == ["T1c"]


def test_later_pattern_is_tried_where_an_earlier_one_fails(tmp_path):
    make(tmp_path, "A/A-t1c.nii.gz")
    (case,) = find_cases(tmp_path, BRATS)
    assert case.images["T1c"].name == "A-t1c.nii.gz"


def test_files_added_by_macos_are_not_scans(tmp_path):
    make(tmp_path, "A/._A_t1.nii.gz", "A/A_t1.nii.gz", ".Trashes/B/B_t1.nii.gz")
    (case,) = find_cases(tmp_path, BRATS)
    assert case.images["T1"].name == "A_t1.nii.gz"
    assert [found.case for found in find_cases(tmp_path, {"T1": ["{case}_t1.nii*"]})] == ["A"]


def test_regular_expression_characters_are_matched_literally():
    assert pattern_to_regex("{case}(1)+.nii").search("a/x(1)+.nii")["case"] == "x"
    assert not pattern_to_regex("{case}_t1.nii").search("a_t1xnii")


def test_star_stays_within_folders_and_question_mark_is_one_character():
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


def test_root_that_is_not_a_folder_ends_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="nowhere is not a folder"):
        find_cases(tmp_path / "nowhere", BRATS)


def test_files_come_in_the_order_of_the_networks_channels(tmp_path):
    make(tmp_path, "A/A_t1.nii.gz", "A/A_t1ce.nii.gz")
    (case,) = find_cases(tmp_path, BRATS)
    assert [name.rsplit("/", 1)[1] for name in require_channels(case, ["T1c", "T1"], BRATS)] == [
        "A_t1ce.nii.gz",
        "A_t1.nii.gz",
    ]


def test_missing_channel_is_named_with_expected_and_existing_files(tmp_path):
    make(tmp_path, "A/A_t1.nii.gz")
    (case,) = find_cases(tmp_path, BRATS)
    with pytest.raises(InputError) as refused:
        require_channels(case, ["T1", "T1c"], BRATS)
    message = str(refused.value)
    assert "case A lacks channel T1c" in message
    assert "A/A_t1ce.nii* or A/A-t1c.nii*" in message
    assert "found T1 (A_t1.nii.gz)" in message


# ---- slices --------------------------------------------------------------------------------------------------------

COLOURS = {"T1": ["{patient}/{patient}_{slice}.tif"], "T1c": ["{patient}/{patient}_{slice}.tif"]}
MASK = ["{patient}/{patient}_{slice}_mask.tif"]
SECTIONS = {"EM": ["image/{slice}.png", "{case}-volume.tif"]}


def stack(path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [Image.new("L", (4, 3), k) for k in range(number)]
    first.save(path, save_all=True, append_images=others)


def test_slices_have_a_patient_and_a_number_and_are_sorted(tmp_path):
    make(tmp_path, *(f"all/P_1/P_1_{k}.tif" for k in (10, 9)), "all/P_1/P_1_9_mask.tif")
    first, second = find_cases(tmp_path, COLOURS, MASK)
    assert (first.case, first.patient, first.slice) == ("P_1_9", "P_1", 9)
    assert first.label.name == "P_1_9_mask.tif"
    assert (second.case, second.slice, second.label) == ("P_1_10", 10, None)


def test_channels_in_one_file_are_one_entry_otherwise_a_list():
    assert image_entry(["a.tif", "a.tif"]) == "a.tif"
    assert image_entry(["a.tif", "b.tif"]) == ["a.tif", "b.tif"]
    assert image_entry(["a.png"]) == ["a.png"]


def test_slices_without_a_patient_belong_to_their_folder(tmp_path):
    make(tmp_path, "train/image/1.png", "train/image/2.png", "train/label/2.png")
    for root in (tmp_path, tmp_path / "train"):
        first, second = find_cases(root, SECTIONS, ["label/{slice}.png"])
        assert (first.case, first.volume, first.patient) == ("train_1", "train", None)
        assert (second.slice, second.label.parent.name) == (2, "label")


def test_number_may_have_leading_zeros_in_one_of_the_files(tmp_path):
    make(tmp_path, "train/image/007.png", "train/label/7.png")
    (case,) = find_cases(tmp_path, SECTIONS, ["label/{slice}.png"])
    assert (case.case, case.label.name) == ("train_007", "7.png")


def test_same_slice_number_in_two_volumes_gives_two_cases(tmp_path):
    make(tmp_path, "a/image/1.png", "b/image/1.png")
    assert [case.case for case in find_cases(tmp_path, SECTIONS)] == ["a_1", "b_1"]
    make(tmp_path, "c/a/image/1.png")
    assert [case.case for case in find_cases(tmp_path, SECTIONS)] == ["a_1", "b_1", "c_a_1"]


def test_slices_with_the_same_name_are_refused(tmp_path):
    make(tmp_path, "a/b/image/1.png", "a_b/image/1.png", "c/b/image/1.png")
    with pytest.raises(InputError, match=r"two cases would both be called a_b_1, .*: rename the folder"):
        find_cases(tmp_path, SECTIONS)


def test_same_slice_number_in_two_patients_gives_two_cases(tmp_path):
    make(tmp_path, "x/1.png", "y/1.png")
    found = find_cases(tmp_path, {"EM": ["{patient}/{slice}.png"]})
    assert [(case.case, case.patient) for case in found] == [("x_1", "x"), ("y_1", "y")]


def test_each_page_of_a_stack_pairs_with_its_label_page(tmp_path):
    stack(tmp_path / "train-volume.tif", 3)
    stack(tmp_path / "train-labels.tif", 3)
    found = find_cases(tmp_path, SECTIONS, ["{case}-labels.tif"])
    assert [(case.case, case.slice, case.volume) for case in found] == [(f"train_{k}", k, "train") for k in range(3)]
    assert found[2].images["EM"].name == "train-volume.tif#2"
    assert found[2].label.name == "train-labels.tif#2"


def test_a_stack_whose_label_has_other_pages_is_refused(tmp_path):
    stack(tmp_path / "train-volume.tif", 3)
    stack(tmp_path / "train-labels.tif", 2)
    with pytest.raises(InputError, match=r"different numbers of pages, 3 in .*volume\.tif and 2 in .*labels\.tif"):
        find_cases(tmp_path, SECTIONS, ["{case}-labels.tif"])


def test_a_stack_where_one_slice_is_promised_is_refused(tmp_path):
    stack(tmp_path / "P/P_1.tif", 2)
    with pytest.raises(InputError, match=r"P_1\.tif has 2 pages, .*use \{case\} for stacks"):
        find_cases(tmp_path, COLOURS)


@pytest.mark.parametrize("image", ["{case}.png", "{case}*.png"])
def test_mask_next_to_its_image_is_not_another_cases_image(tmp_path, image):
    make(tmp_path, "a.png", "a_mask.png")
    (case,) = find_cases(tmp_path, {"grey": [image]}, ["{case}_mask.png"])
    assert (case.case, case.images["grey"].name, case.label.name) == ("a", "a.png", "a_mask.png")


def test_image_next_to_its_mask_is_not_another_cases_mask(tmp_path):
    make(tmp_path, "a.png", "a_image.png")
    (case,) = find_cases(tmp_path, {"grey": ["{case}_image.png"]}, ["{case}.png"])
    assert (case.case, case.images["grey"].name, case.label.name) == ("a", "a_image.png", "a.png")


def test_pattern_with_both_case_and_slice_is_refused():
    with pytest.raises(InputError, match=r"has both \{case\} and \{slice\}"):
        pattern_to_regex("{case}_{slice}.png")


def test_patient_may_be_part_of_a_case_path(tmp_path):
    make(tmp_path, "p1/left.png", "p1/right.png")
    found = find_cases(tmp_path, {"grey": ["{patient}/{case}.png"]})
    assert [(case.case, case.patient) for case in found] == [("p1_left", "p1"), ("p1_right", "p1")]


RATERS = {"anna": ["anna/{case}.png"], "ben": ["ben/{case}.png"]}


def test_each_rater_has_a_label_in_pattern_order(tmp_path):
    make(tmp_path, "image/7.png", "ben/7.png", "anna/7.png", "image/8.png", "ben/8.png")
    seven, eight = find_cases(tmp_path, {"grey": ["image/{case}.png"]}, RATERS)
    assert {rater: file.parent.name for rater, file in seven.labels.items()} == {"anna": "anna", "ben": "ben"}
    assert [*seven.labels] == ["anna", "ben"]
    assert seven.label.parent.name == "anna"
    assert [*eight.labels] == ["ben"]


def test_two_labels_of_one_rater_are_named(tmp_path):
    make(tmp_path, "image/7.png", "a/anna/7.png", "b/anna/7.png")
    with pytest.raises(InputError, match=r"case 7 has two labels of anna: .*/anna/7\.png and .*/anna/7\.png"):
        find_cases(tmp_path, {"grey": ["image/{case}.png"]}, RATERS)


def test_pages_of_stacks_are_matched_by_rater(tmp_path):
    pages = [Image.new("L", (4, 4), value) for value in (1, 2)]
    for name in ("image/s.tif", "anna/s.tif", "ben/s.tif"):
        (tmp_path / name).parent.mkdir()
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    patterns = {rater: [f"{rater}/{{case}}.tif"] for rater in ("anna", "ben")}
    found = find_cases(tmp_path, {"grey": ["image/{case}.tif"]}, patterns)
    assert [{rater: file.name for rater, file in case.labels.items()} for case in found] == [
        {"anna": "s.tif#0", "ben": "s.tif#0"},
        {"anna": "s.tif#1", "ben": "s.tif#1"},
    ]
