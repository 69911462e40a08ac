"""Scores against several raters, and of labels with voxels to ignore."""

import numpy as np
import pytest

from scripts.data import datalist as lists
from scripts.errors import InputError
from scripts.scoring.cohort import read_cases, score_predictions
from scripts.scoring.metrics import calibration_metrics, measure_region
from tests.made import save_nifti

CUBE = np.zeros((16, 16, 16), np.uint8)
CUBE[4:10, 4:10, 4:10] = 1
LARGE = np.zeros_like(CUBE)
LARGE[3:11, 4:10, 4:10] = 1


class Cohort:
    """Cases by rater, and masks of a system."""

    def __init__(self, root, cases: dict, **header):
        self.root, self.out = root, root / "scored"
        training = []
        for case, (labels, prediction, *own) in cases.items():
            files = {rater: f"{case}_{rater}.nii.gz" for rater in labels}
            for rater, file in files.items():
                save_nifti(root / file, labels[rater], np.eye(4))
            save_nifti(root / "masks" / f"{case}.nii.gz", prediction.astype(np.int16), np.eye(4))
            which = {"label": files[""]} if "" in files else {"labels": files}
            training.append({"image": "none", "case": case, "patient": case, "split": "test", **which, **dict(*own)})
        files = [file for entry in training for file in lists.rater_files(entry).values()]
        self.datalist = {
            "channels": ["T1"],
            "label_scheme": "demo",
            "labels": {"lesion": 1},
            "regions": {"lesion": [1]},
            "hashes": {file: lists.file_hash(root / file) for file in files},
            "training": training,
            **header,
        }

    def score(self):
        return score_predictions(self.datalist, self.root, self.root / "masks", self.out, workers=1)


def value(frame, metric: str, **where) -> float:
    for column, wanted in {"metric": metric, **where}.items():
        frame = frame[frame[column] == wanted]
    assert len(frame) == 1
    return float(frame["value"].iloc[0])


def test_a_case_has_the_mean_over_its_raters(tmp_path):
    found = Cohort(tmp_path, {"a": ({"anna": CUBE, "ben": LARGE}, CUBE)}).score()
    with_ben = 2 * 216 / (216 + 288)
    assert value(found.cases, "dice") == pytest.approx((1 + with_ben) / 2)
    assert value(found.cases, "volume_truth") == pytest.approx((0.216 + 0.288) / 2)
    assert value(found.raters, "dice", rater="anna", compared="model") == 1
    assert value(found.raters, "dice", rater="ben", compared="model") == pytest.approx(with_ben)
    assert value(found.raters, "dice", rater="anna", compared="ben") == pytest.approx(with_ben)
    assert read_cases(tmp_path / "scored" / "cases.csv").equals(found.cases)


def test_lesions_are_those_of_the_first_rater(tmp_path):
    found = Cohort(tmp_path, {"a": ({"anna": CUBE, "ben": LARGE}, CUBE), "b": ({"ben": LARGE}, CUBE)}).score()
    assert list(found.lesions["case"]) == ["a", "b"]
    assert list(found.lesions["dice"]) == [1, pytest.approx(2 * 216 / (216 + 288))]


def test_notes_that_raters_disagree_about_are_left_out(tmp_path):
    none = np.zeros_like(CUBE)
    found = Cohort(
        tmp_path, {"a": ({"anna": CUBE, "ben": none}, none), "b": ({"anna": none, "ben": none}, none)}
    ).score()
    dice = found.cases[found.cases["metric"] == "dice"].set_index("case")
    assert dice["value"].to_dict() == {"a": 0.5, "b": 1}
    assert dice["note"].to_dict() == {"a": "", "b": "absent"}


def test_one_label_per_case_needs_no_table_of_raters(tmp_path):
    found = Cohort(tmp_path, {"a": ({"": CUBE}, LARGE)}).score()
    assert found.raters is None
    assert not (tmp_path / "scored" / "raters.csv").exists()


def test_a_case_without_a_mask_fails_once(tmp_path):
    cohort = Cohort(tmp_path, {"a": ({"anna": CUBE, "ben": LARGE}, CUBE), "b": ({"anna": CUBE, "ben": CUBE}, CUBE)})
    (tmp_path / "masks" / "b.nii.gz").unlink()
    rows = cohort.score().cases.query("case == 'b'")
    assert rows["metric"].tolist() == ["failed"]


def test_slices_are_stacked_for_each_rater_who_drew_all(tmp_path):
    flat = {name: mask[:, :, 5] for name, mask in (("anna", CUBE), ("ben", LARGE))}
    place = [{"patient": "p", "slice": 0}, {"patient": "p", "slice": 1}]
    cases = {"a": (flat, flat["anna"], place[0]), "b": ({"anna": flat["anna"]}, flat["ben"], place[1])}
    found = Cohort(tmp_path, cases, unit="pixel").score()
    assert value(found.patients, "volume_truth") == 72
    assert value(found.patients, "slices") == 2


def ignore(mask: np.ndarray, where) -> np.ndarray:
    changed = mask.copy()
    changed[where] = 255
    return changed


def test_ignored_voxels_leave_both_masks(tmp_path):
    half = np.s_[:, :, 7:]
    cropped = Cohort(tmp_path / "a", {"a": ({"": CUBE[:, :, :7]}, LARGE[:, :, :7])}).score().cases
    whole = Cohort(tmp_path / "b", {"a": ({"": ignore(CUBE, half)}, LARGE)}, ignore=255).score().cases
    for metric in ("dice", "precision", "recall", "volume_fp", "volume_truth", "lesions_tp", "lesion_f1"):
        assert value(whole, metric) == pytest.approx(value(cropped, metric)), metric
    assert "lesionwise_dice_brats2023" not in {*whole["metric"]}


def test_two_raters_are_compared_where_neither_ignores(tmp_path):
    ben = ignore(LARGE, np.s_[:5])
    found = Cohort(tmp_path, {"a": ({"anna": CUBE, "ben": ben}, CUBE)}, ignore=255).score()
    assert value(found.raters, "dice", rater="anna", compared="ben") == pytest.approx(2 * 180 / (180 + 216))


def test_a_label_that_ignores_everything_fails_with_its_file(tmp_path):
    everything = np.full_like(CUBE, 255)
    cohort = Cohort(tmp_path, {"a": ({"": everything}, CUBE), "b": ({"": CUBE}, LARGE)}, ignore=255)
    failed = cohort.score().cases.query("metric == 'failed'")
    assert failed["case"].tolist() == ["a"]
    assert "ignores every voxel (value 255)" in failed["note"].iloc[0]


def test_outlines_of_cells_cannot_ignore_parts(tmp_path):
    cohort = Cohort(tmp_path, {"a": ({"": CUBE}, LARGE)}, ignore=255, boundaries=["lesion"])
    with pytest.raises(InputError, match="has `boundaries` and a value to `ignore`"):
        cohort.score()


def test_the_edge_of_an_ignored_area_is_no_border():
    truth, prediction = CUBE > 0, CUBE > 0
    ignored = np.zeros_like(truth)
    ignored[:, :, 7:] = True
    longer = prediction.copy()
    longer[10, 4:10, 4:10] = True  # one voxel too far, along an axis that is not cut
    masks = truth & ~ignored, longer & ~ignored
    found = measure_region(*masks, (1.0,) * 3, wanted=["hd95", "hd100", "nsd_1mm"], ignored=ignored)
    assert found == {"hd95": 1, "hd100": 1, "nsd_1mm": 1}
    cut = truth.copy()
    cut[:, :, 6] = False  # its top is missing, next to the ignored area
    seen = measure_region(truth & ~ignored, cut & ~ignored, (1.0,) * 3, wanted=["hd100"], ignored=ignored)
    assert seen["hd100"] == 1  # the sides of the missing layer; its top is no border


def test_a_mask_with_ignored_neighbours_alone_keeps_its_distances():
    truth, ignored = CUBE > 0, CUBE == 0
    found = measure_region(truth, truth, (1.0,) * 3, wanted=["hd95", "nsd_2mm"], ignored=ignored)
    assert found == {"hd95": 0, "nsd_2mm": 1}


def test_calibration_leaves_ignored_voxels_out():
    random = np.random.default_rng(0)
    truth = np.ones((1, 8, 8, 8), bool)
    probability = random.random((1, 8, 8, 8))
    ignored = np.zeros((8, 8, 8), bool)
    ignored[4:] = True
    expected = calibration_metrics(truth[:, :4], probability[:, :4], (1.0,) * 3)
    found = calibration_metrics(truth, probability, (1.0,) * 3, ignored=ignored)
    assert found == pytest.approx(expected)
