import itertools
import re

import numpy as np
import pytest

from bundle.cohort.splits import assign_folds, cut_into_blocks, find_patients, join_patients, note_time_points
from scripts.data import pictures
from scripts.errors import InputError

COHORT = {f"p{i:03d}": float(i) for i in range(53)}


def members(places, place):
    return [patient for patient, found in places.items() if found == place]


def test_time_points_of_a_patient_are_one_patient():
    found = find_patients(["BraTS-GLI-00003-000", "BraTS-GLI-00003-001"], r"(BraTS-\w+-\d+)-\d+")
    assert set(found.values()) == {"BraTS-GLI-00003"}


def test_without_a_pattern_each_case_is_a_patient():
    assert find_patients(["a", "b"], None) == {"a": "a", "b": "b"}


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [("(", "not a regular expression"), ("abc", "has no group"), ("(x)", "does not match 2 of 2")],
)
def test_a_wrong_grouping_pattern_is_explained(pattern, sentence):
    with pytest.raises(InputError, match=sentence):
        find_patients(["a1", "a2"], pattern, strict=True)


def test_linked_cases_merge_their_patients_along_the_chain():
    joined = join_patients({"a": "A", "b": "B", "c": "C", "d": "D"}, [["a", "b"], ["b", "c"]])
    assert joined == {"a": "A", "b": "A", "c": "A", "d": "D"}


def test_folds_differ_by_one_patient_at_most():
    sizes = [len(members(assign_folds(COHORT, folds=5), fold)) for fold in range(5)]
    assert sum(sizes) == 53
    assert max(sizes) - min(sizes) == 1


def test_every_fold_gets_small_and_large_tumours():
    places = assign_folds(COHORT, folds=5)
    for fold in range(5):
        volumes = [COHORT[patient] for patient in members(places, fold)]
        assert min(volumes) < 5
        assert max(volumes) > 44
        assert sum(volumes) / len(volumes) == pytest.approx(26, abs=4)


def test_test_set_has_the_requested_share_and_spans_the_volumes():
    places = assign_folds(COHORT, folds=5, test=0.2)
    volumes = [COHORT[patient] for patient in members(places, "test")]
    assert len(volumes) == round(0.2 * 53)
    assert min(volumes) < 6
    assert max(volumes) > 46


def test_same_seed_gives_the_same_folds_and_another_differs():
    assert assign_folds(COHORT, seed=1) == assign_folds(dict(reversed(COHORT.items())), seed=1)
    assert assign_folds(COHORT, seed=1) != assign_folds(COHORT, seed=2)


def test_fewer_patients_than_folds_says_what_to_pass():
    with pytest.raises(InputError, match=r"3 labelled patients are too few for 5 folds: give --folds 3"):
        assign_folds({"a": 1.0, "b": 2.0, "c": 3.0}, folds=5)


def test_a_test_set_that_leaves_too_few_patients_is_explained():
    with pytest.raises(InputError, match="after 2 held out"):
        assign_folds({"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}, folds=3, test=0.5)


# ---- the slices of one volume --------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [0, 1, 3])
@pytest.mark.parametrize("test", [0.0, 0.2])
def test_blocks_are_contiguous_slices_separated_by_the_gap(gap, test):
    blocks, left_out = cut_into_blocks(range(40), folds=4, test=test, gap=gap)
    assert len(blocks) == (5 if test else 4)
    for block in blocks:
        assert block == list(range(block[0], block[-1] + 1))
    for first, second in itertools.pairwise(blocks):
        assert second[0] - first[-1] == gap + 1
    assert sorted([*itertools.chain(*blocks), *left_out]) == list(range(40))


def test_blocks_differ_by_at_most_one_slice_with_test_share():
    blocks, _ = cut_into_blocks(range(34), folds=4, test=0.25, gap=1)
    sizes = [len(block) for block in blocks]
    assert sizes[-1] == 8  # a quarter of the 30 that are kept
    assert max(sizes[:-1]) - min(sizes[:-1]) <= 1


def test_too_few_slices_for_the_blocks_suggest_a_remedy():
    assert cut_into_blocks("abcde", folds=3, gap=1)[0] == [["a"], ["c"], ["e"]]
    with pytest.raises(InputError, match=r"4 labelled slices cannot be cut into 3 blocks with gaps of 1 .*--gap"):
        cut_into_blocks("abcd", folds=3, gap=1)


def test_one_section_gap_halves_neighbour_similarity_in_the_real_volume(shared_data):
    labels = shared_data("isbi2012") / "train" / "label"
    membrane = np.stack([pictures.read_picture(labels / f"{k}.png") == 0 for k in range(30)])

    def likeness(apart):
        """Mean Dice of sections at this distance, above that of unrelated sections."""
        dice = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in zip(membrane, membrane[apart:], strict=False)]
        return np.mean(dice) - membrane.mean()

    print({apart: round(float(likeness(apart) + membrane.mean()), 2) for apart in (1, 2, 3, 6)})
    assert likeness(1) > 0.1
    assert 0.4 < likeness(2) / likeness(1) < 0.6
    assert likeness(6) < 0.25 * likeness(1)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("P1_week-000", "P1_week-012"),
        ("sub-01_ses-1", "sub-01_ses-2"),
        ("P1", "P1_followup"),
        ("Patient-001_week-000-1", "Patient-001_week-000-2"),
        ("UPENN-GBM-00001_11", "UPENN-GBM-00001_21"),
        ("BraTS-GLI-00005-100", "BraTS-GLI-00005-101"),
        ("TCGA_CS_4941_19960909", "TCGA_CS_4941_19970310"),
        ("P1_T1", "P1_t2"),
    ],
)
def test_names_that_differ_by_time_are_noted(first, second):
    (note,) = note_time_points([first, "another", second])
    assert f"{first} and {second}" in note
    pattern = re.search(r'--group_by "(.+?)", so', note)[1]
    found = find_patients([first, "another", second], pattern, strict=True)
    assert found[first] == found[second] != found["another"]


@pytest.mark.parametrize(
    "names",
    [
        ["BraTS2021_00000", "BraTS2021_00001", "BraTS2021_00002"],
        ["BraTS-GLI-00000", "BraTS-GLI-00001", "BraTS-MET-00000"],
        ["BraTS20_Training_001", "BraTS20_Training_002", "BraTS20_Validation_001"],
        ["Brats18_2013_10_1", "Brats18_2013_11_1", "Brats18_TCIA01_131_1"],
        ["UCSF-PDGM-0004", "UCSF-PDGM-0005", "BRATS_001", "BRATS_002"],
        ["study_v01", "study_v02"],
        ["patient01", "patient02", "train block 1", "train block 2"],
    ],
)
def test_names_of_different_patients_are_not_noted(names):
    assert note_time_points(names) == []
