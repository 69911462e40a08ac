"""Slices of a patient scored as one volume."""

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scripts.data import datalist as lists
from scripts.errors import InputError
from scripts.scoring.cohort import read_cases, score_predictions
from scripts.scoring.metrics import BOUNDARY_METRICS, METRICS, measure_region
from scripts.scoring.stack import DISTANCE_METRICS, missing_indices

SIDE = 24


class Sliced:
    """Slices on disk with their data list: `add` each with its label and prediction."""

    def __init__(self, root, suffix=".png", **header):
        self.root, self.predictions, self.out, self.suffix = root / "data", root / "predictions", root / "out", suffix
        self.affine, self.axes = np.diag([0.5, 2.0, 5.0, 1.0]), 3
        self.root.mkdir()
        self.predictions.mkdir()
        header = {"regions": {"tumour": [1]}, "labels": {"tumour": 1}, "unit": "pixel", **header}
        self.datalist = {"channels": ["MR"], "label_scheme": "demo", "hashes": {}, "training": [], **header}

    def add(self, patient, index, truth, prediction=None):
        case = f"{patient}_{index}"
        name = f"{case}_mask{self.suffix}"
        self.write(self.root / name, truth)
        self.datalist["hashes"][name] = lists.file_hash(self.root / name)
        entry = {"image": "none", "label": name, "case": case, "patient": patient, "slice": index, "split": "test"}
        self.datalist["training"].append(entry)
        if prediction is not None:
            self.write(self.predictions / f"{case}{self.suffix}", prediction)

    def write(self, path, labels):
        labels = np.asarray(labels, np.uint8)
        if self.suffix == ".png":
            Image.fromarray(labels.T).save(path)
        else:
            nib.save(nib.Nifti1Image(labels[..., None] if self.axes == 3 else labels, self.affine), path)

    def score(self, **options):
        return score_predictions(self.datalist, self.root, self.predictions, self.out, **{"workers": 1, **options})


def square(size=0, at=2) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[at : at + size, at : at + size] = True
    return mask


def value(frame, case, metric) -> float:
    rows = frame[(frame["case"] == case) & (frame["metric"] == metric)]
    assert len(rows) == 1
    return rows["value"].iloc[0]


def note(frame, case) -> str:
    return frame[(frame["case"] == case) & (frame["metric"] == "slices")]["note"].iloc[0]


def test_slice_mean_and_volume_score_match_calculation_by_hand(tmp_path):
    slices = Sliced(tmp_path)
    half = square(4).copy()
    half[4:] = False
    slices.add("P", 1, square(4), half)  # 8 of 16 pixels
    slices.add("P", 2, square(), square())
    slices.add("P", 3, square(2), square())  # 4 pixels missed
    found = slices.score()
    assert [value(found.cases, f"P_{k}", "dice") for k in (1, 2, 3)] == pytest.approx([2 / 3, 1, 0])
    assert value(found.patients, "P", "dice") == pytest.approx(2 * 8 / (8 + 20))
    assert value(found.patients, "P", "slices") == 3
    assert read_cases(slices.out / "patients.csv").equals(found.patients)


def test_patient_scores_like_the_same_voxels_in_one_file(tmp_path):
    rng = np.random.default_rng(0)
    truth, prediction = rng.random((2, SIDE, SIDE, 6)) < 0.3
    slices = Sliced(tmp_path)
    for index in (4, 0, 5, 2, 1, 3):  # the list need not be in order
        slices.add("P", index, truth[..., index], prediction[..., index])
    rows = slices.score().patients
    expected = measure_region(truth, prediction, (1.0, 1.0, 1.0), wanted=METRICS.keys() - DISTANCE_METRICS.keys())
    assert len(expected) > 10
    assert {name: value(rows, "P", name) for name in expected} == pytest.approx(expected)


def test_slice_10_comes_after_slice_9(tmp_path):
    slices = Sliced(tmp_path)
    for index in range(8, 12):
        slices.add("P", index, square(3 * (index in (9, 10))), square())
    assert value(slices.score().patients, "P", "lesions_fn") == 1


def test_slices_of_unknown_thickness_have_no_distances_and_a_note(tmp_path):
    slices = Sliced(tmp_path)
    slices.add("P", 1, square(4), square(3))
    slices.add("P", 2, square(4), square(3))
    rows = slices.score().patients
    assert set(rows["metric"]) == {"slices", *METRICS} - set(DISTANCE_METRICS)
    assert set(rows["unit"]) == {"", "pixel"}
    assert "no distances" in note(rows, "P")


def test_nifti_slices_of_two_axes_have_no_thickness(tmp_path):
    slices = Sliced(tmp_path, suffix=".nii.gz", unit="mm")
    slices.axes = 2
    for index in (1, 2):
        slices.add("P", index, square(4), square(3))
    rows = slices.score().patients
    assert "no distances" in note(rows, "P")
    assert "hd95" not in set(rows["metric"])
    assert set(rows["unit"]) == {"", "pixel"}
    assert value(rows, "P", "volume_truth") == 2 * 16


def test_slices_with_spacing_have_the_distances_of_the_volume(tmp_path):
    slices = Sliced(tmp_path, suffix=".nii.gz", unit="mm")
    for index in range(5):
        slices.add("P", index, square(4 * (index in (1, 2))), square(4 * (index in (2, 3))))
    rows = slices.score().patients
    assert value(rows, "P", "hd100") == 5  # mm: the prediction lies one slice too far
    assert value(rows, "P", "volume_truth") == pytest.approx(2 * 16 * 5 / 1000)  # ml
    assert note(rows, "P") == ""


def test_slice_missing_from_the_list_is_named_not_filled_in(tmp_path):
    slices = Sliced(tmp_path, suffix=".nii.gz", unit="mm")
    for index in (1, 2, 4, 8):
        slices.add("P", index, square(4), square(3))
    rows = slices.score().patients
    assert note(rows, "P").startswith("not in the list: 3, 5 to 7; no distances")
    assert value(rows, "P", "slices") == 4
    assert "hd95" not in set(rows["metric"])
    assert value(rows, "P", "volume_truth") == pytest.approx(4 * 16 * 5 / 1000)


@pytest.mark.parametrize(
    ("places", "said"), [([3], ""), ([0, 1, 2], ""), ([1, 3], "2"), ([0, 4, 5, 7], "1 to 3, 6"), ([], "")]
)
def test_gaps_are_described_in_words(places, said):
    assert missing_indices(places) == said


def test_patient_with_an_unpredicted_slice_fails_alone(tmp_path):
    slices = Sliced(tmp_path)
    slices.add("P", 1, square(4), square(4))
    slices.add("P", 2, square(4))
    slices.add("Q", 1, square(4), square(4))
    rows = slices.score().patients
    failed = rows[rows["metric"] == "failed"]
    assert list(failed["case"]) == ["P"]
    assert failed["note"].iloc[0].startswith("slice P_2: no prediction")
    assert value(rows, "Q", "dice") == 1


def test_a_patient_with_a_damaged_slice_fails_with_its_reason(tmp_path):
    slices = Sliced(tmp_path)
    slices.add("P", 1, square(4), square(4))
    slices.add("P", 2, square(4), square(4) * 3)
    found = slices.score()
    assert value(found.cases, "P_1", "dice") == 1
    assert list(found.patients["metric"]) == ["failed"]
    assert "slice P_2" in found.patients["note"].iloc[0]
    assert "holds the label 3" in found.patients["note"].iloc[0]


def test_slices_of_two_sizes_are_no_volume(tmp_path):
    slices = Sliced(tmp_path)
    slices.add("P", 1, square(4), square(4))
    slices.add("P", 2, square(4)[:20], square(4)[:20])
    found = slices.score()
    assert len(found.cases[found.cases["metric"] == "dice"]) == 2
    assert list(found.patients["note"]) == [
        "the slices have 20 x 24 and 24 x 24 pixels: expected flat slices of one size."
    ]


def test_slices_with_pixels_of_two_sizes_are_no_volume(tmp_path):
    slices = Sliced(tmp_path, suffix=".nii.gz", unit="mm")
    for index, size in enumerate((0.5, 1.0)):
        slices.affine = np.diag([size, size, 5.0, 1.0])
        slices.add("P", index, square(4), square(4))
    assert list(slices.score().patients["note"]) == [
        "the slices have pixels of 0.5 x 0.5 and 1 x 1 mm: expected one size."
    ]


def test_scores_in_pixels_ask_for_no_size_of_pixels(tmp_path):
    slices = Sliced(tmp_path, suffix=".nii.gz", unit="pixel")
    for index, size in enumerate((0.5, 1.0)):
        slices.affine = np.diag([size, size, 5.0, 1.0])
        slices.add("P", index, square(4), square(4))
    assert value(slices.score().patients, "P", "dice") == 1


def test_two_time_points_of_a_patient_are_two_volumes(tmp_path):
    slices = Sliced(tmp_path)
    for visit in ("first", "second"):
        for index in (1, 2):
            slices.add(visit, index, square(4), square(4 * (visit == "first")))
            slices.datalist["training"][-1] |= {"patient": "P", "volume": visit}
    rows = slices.score().patients
    assert (value(rows, "first", "dice"), value(rows, "second", "dice")) == (1, 0)
    assert set(rows["patient"]) == {"P"}


def test_one_index_for_two_slices_is_refused(tmp_path):
    slices = Sliced(tmp_path)
    slices.add("P", 1, square(4), square(4))
    slices.add("P", 2, square(4), square(4))
    slices.datalist["training"][1]["slice"] = 1
    with pytest.raises(InputError, match="slice 1 of P is listed twice"):
        slices.score()
    assert not slices.out.exists()


def test_interrupted_run_keeps_finished_patients_with_any_process_count(tmp_path):
    slices = Sliced(tmp_path)
    for patient in "PQR":
        for index in (1, 2):
            slices.add(patient, index, square(4), square(3))
    alone = slices.score()
    (slices.out / "patients.csv").unlink()
    (slices.out / "patients.csv").mkdir()
    with pytest.raises(InputError, match=r"patients\.csv cannot be written"):
        slices.score()
    (slices.out / "patients.csv").rmdir()
    kept = slices.out / ".scoring" / "patients" / "Q.json"
    content = json.loads(kept.read_text())
    content["rows"][1][4] = 0.123
    kept.write_text(json.dumps(content))
    assert value(slices.score(workers=2).patients, "Q", "dice") == 0.123
    assert slices.score(workers=2).patients.equals(alone.patients)


def test_outlines_in_a_volume_are_scored_per_slice(tmp_path):
    slices = Sliced(tmp_path, regions={"membrane": [0]}, labels={"cell": 1}, boundaries="membrane")
    cells = np.ones((SIDE, SIDE), bool)
    cells[12] = False
    for index, right in ((1, True), (2, False)):
        slices.add("P", index, cells, cells if right else np.ones_like(cells))
    found = slices.score()
    of_slices = [value(found.cases, f"P_{k}", "rand_f") for k in (1, 2)]
    assert of_slices[0] == 1
    assert of_slices[1] < 0.7
    assert value(found.patients, "P", "rand_f") == pytest.approx(np.mean(of_slices))
    assert set(BOUNDARY_METRICS) <= set(found.patients["metric"])


def test_the_slices_of_real_patients_give_two_figures_that_differ(shared_data, tmp_path):
    """Every mask moved by three pixels: empty slices raise the mean over slices, but not the score of the volume."""
    folder = shared_data("lgg") / "kaggle_3m"
    patients = sorted(path for path in folder.iterdir() if path.is_dir())[:2]
    slices = Sliced(tmp_path, regions={"tumour": [255]}, labels={"tumour": 255})
    dice = {}
    for patient in patients:
        masks = {int(path.stem.split("_")[-2]): np.asarray(Image.open(path)).T for path in patient.glob("*_mask.tif")}
        for index, mask in masks.items():
            slices.add(patient.name, index, mask, np.roll(mask, 3, axis=0))
        true = np.stack([masks[index] for index in sorted(masks)]) > 0
        moved = np.roll(true, 3, axis=1)
        dice[patient.name] = 2 * (true & moved).sum() / (true.sum() + moved.sum())
    found = slices.score()
    for name, expected in dice.items():
        assert value(found.patients, name, "dice") == pytest.approx(expected)
    of_slices = found.cases[found.cases["metric"] == "dice"]
    assert (of_slices["note"] == "absent").sum() > 10
    assert of_slices["value"].mean() > np.mean(list(dice.values())) + 0.02
