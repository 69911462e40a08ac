"""Scans are ordered by the quality of their masks, and labels follow a scan to its next name."""

import pytest

from bundle.packaging.scan_order import number_scans, rank_scans, rename_labels
from tests.made import refused


def answered(case, entropy, dice=None) -> dict:
    numbers = {"WT": {"border_entropy": entropy}, "TC": None}
    return {"case": case, "numbers": numbers, "predicted_dice": {"WT": {"value": dice}, "TC": {"value": None}}}


def test_lowest_predicted_dice_comes_first():
    replies = [answered("A", 0.9, 0.8), answered("B", 0.1, 0.4), answered("C", 0.2, None)]
    ranking = rank_scans([*replies, {"case": "0", "refused": "it is truncated", "checks": []}])
    assert ranking.cases == ["C", "B", "A", "0"]  # C is unlike the calibration, 0 has no mask to correct
    assert ranking.criterion.startswith("predicted Dice")
    assert ranking.refused == {"0": "it is truncated"}


def test_without_a_calibration_highest_entropy_comes_first():
    ranking = rank_scans([answered("A", 0.3), answered("B", 0.9), {"case": "C", "numbers": {"WT": None}}])
    assert ranking.cases == ["C", "B", "A"]  # C has an empty mask
    assert ranking.criterion.startswith("entropy")


def test_names_sort_in_the_order_given():
    cases = [f"case{number}" for number in range(1200, 0, -1)]
    names = number_scans(cases)
    assert sorted(names, key=names.__getitem__) == cases
    assert names["case1200"] == "0001_case1200"


@pytest.fixture
def studies(tmp_path):
    """The folder of a server with corrected labels of two scans."""
    for tag, name in (("final", "A.nii.gz"), ("final", "B.1.nii.gz"), ("original", "A.nii.gz")):
        (tmp_path / "labels" / tag).mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / tag / name).write_text(name)
    return tmp_path


def labels(studies) -> dict[str, str]:
    return {f"{path.parent.name}/{path.name}": path.read_text() for path in studies.glob("labels/*/*")}


def test_labels_follow_their_scans_from_order_to_order(studies):
    before = labels(studies)
    for cases in (["A", "B.1"], ["B.1", "C", "A"], ["A", "B.1"]):
        names = number_scans(cases)
        rename_labels(studies, names)
        expected = {(f"final/{names[case]}.nii.gz", f"{case}.nii.gz") for case in ("A", "B.1")}
        assert {*labels(studies).items()} == expected | {(f"original/{names['A']}.nii.gz", "A.nii.gz")}
    rename_labels(studies, {"A": "A", "B.1": "B.1"})
    assert labels(studies) == before


def test_label_of_a_removed_scan_waits_for_it(studies):
    rename_labels(studies, number_scans(["A", "B.1"]))
    rename_labels(studies, number_scans(["A"]))
    rename_labels(studies, number_scans(["B.1", "A"]))
    assert labels(studies)["final/001_B.1.nii.gz"] == "B.1.nii.gz"


def test_a_name_that_was_another_scans_is_refused(studies):
    rename_labels(studies, number_scans(["A"]))
    sentence = refused(rename_labels, studies, {"A": "A", "001_A": "001_A"})
    assert "scan 001_A would be called 001_A, which was the name of scan A" in sentence
