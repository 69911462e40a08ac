"""The table of scores holds every case, metric and reason, also after an interruption."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from scipy import ndimage

from scripts.data import datalist as lists
from scripts.errors import InputError
from scripts.scoring.cohort import COLUMNS, LESION_COLUMNS, read_cases, score_predictions
from scripts.scoring.metrics import BOUNDARY_METRICS, METRICS
from scripts.scoring.summary import print_score_tables, tabulate_regions
from tests.made import ROOT, save_nifti

SPACING = (1.0, 1.0, 2.0)
REPOSITORY = ROOT


def save(path, labels, spacing=SPACING, dtype=np.uint8):
    save_nifti(path, np.asarray(labels, dtype), np.diag([*spacing, 1]))


def tumour(size=20) -> np.ndarray:
    """Oedema (2) around a core (1) with an enhancing part (4)."""
    labels = np.zeros((size, size, size), np.uint8)
    labels[4:14, 4:14, 4:14] = 2
    labels[6:11, 6:11, 6:11] = 1
    labels[8:11, 8:11, 8:11] = 4
    return labels


class Cohort:
    """Labels on disk, their data list, and a folder of predictions that are right."""

    def __init__(self, root: Path, cases=("a", "b", "c"), labels=None, suffix=".nii.gz", **header):
        self.root, self.predictions, self.out = root / "data", root / "predictions", root / "scored"
        training = []
        for number, case in enumerate(cases):
            name = f"{case}_label{suffix}"
            self.write(self.root / name, tumour() if labels is None else labels)
            self.write(self.predictions / f"{case}{suffix}", tumour() if labels is None else labels, np.int16)
            training.append({"image": "none", "label": name, "case": case, "patient": f"p{number}", "split": "test"})
        self.datalist = {
            "channels": ["T1"],
            "label_scheme": "demo",
            "labels": {"NCR": 1, "ED": 2, "ET": 4},
            "regions": {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]},
            "unit": "mm",
            "hashes": {entry["label"]: lists.file_hash(self.root / entry["label"]) for entry in training},
            "training": training,
            **header,
        }

    def write(self, path, labels, dtype=np.uint8):
        if path.suffix == ".png":
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(path)
        else:
            save(path, labels, dtype=dtype)  # a prediction is no copy of its label's file

    def predict(self, case, labels, **kind):
        save(self.predictions / f"{case}.nii.gz", labels, **kind)

    def score(self, **options):
        return self.evaluation(**options).cases

    def evaluation(self, **options):
        return score_predictions(self.datalist, self.root, self.predictions, self.out, **{"workers": 1, **options})


@pytest.fixture
def cohort(tmp_path) -> Cohort:
    return Cohort(tmp_path)


def value(frame, case, region, metric) -> float:
    rows = frame[(frame["case"] == case) & (frame["region"] == region) & (frame["metric"] == metric)]
    assert len(rows) == 1
    return rows["value"].iloc[0]


def failures(frame) -> dict:
    rows = frame[frame["metric"] == "failed"]
    assert set(rows["region"]) <= {"all"}
    return dict(zip(rows["case"], rows["note"], strict=True))


def test_every_case_region_and_metric_is_one_row_in_order(cohort):
    frame = cohort.score()
    assert list(frame.columns) == COLUMNS == ["case", "patient", "region", "metric", "value", "unit", "note"]
    expected = [(case, region, metric) for case in "abc" for region in ("WT", "TC", "ET") for metric in METRICS]
    assert list(zip(frame["case"], frame["region"], frame["metric"], strict=True)) == expected
    assert set(frame.loc[frame["metric"] == "dice", "value"]) == {1.0}


def test_lengths_are_in_mm_and_volumes_in_ml(cohort):
    frame = cohort.score()
    units = frame.drop_duplicates("metric").set_index("metric")["unit"]
    assert set(units[["hd95", "hd100", "assd", "lesionwise_hd95_brats2023"]]) == {"mm"}
    assert set(units[[name for name in METRICS if name.startswith("volume") and name[-8:] != "relative"]]) == {"ml"}
    assert set(units[["dice", "nsd_2mm", "volume_error_relative", "lesions_tp"]]) == {""}
    assert value(frame, "a", "WT", "volume_truth") == pytest.approx(10**3 * 2 / 1000)  # voxels of 2 mm^3


def test_table_on_disk_equals_the_returned_table_including_inf(cohort):
    cohort.predict("b", np.zeros((20, 20, 20)))
    frame = cohort.score()
    assert value(frame, "b", "WT", "hd95") == math.inf
    again = read_cases(cohort.out / "cases.csv")
    assert again.equals(frame)
    assert value(again, "b", "WT", "hd95") == math.inf


def test_a_case_called_007_keeps_its_name(tmp_path):
    Cohort(tmp_path, cases=("007", "1e3")).score()
    assert set(read_cases(tmp_path / "scored" / "cases.csv")["case"]) == {"007", "1e3"}


def test_empty_masks_are_noted_for_what_they_are(cohort):
    without_core = np.where(tumour() == 2, 2, 0)
    save(cohort.root / "a_label.nii.gz", without_core)
    cohort.datalist["hashes"]["a_label.nii.gz"] = lists.file_hash(cohort.root / "a_label.nii.gz")
    cohort.predict("b", without_core)
    frame = cohort.score()
    notes = frame.groupby(["case", "region"])["note"].unique().map(list)
    assert notes["a", "WT"] == [""]
    assert notes["a", "ET"] == ["hallucinated"]
    assert notes["b", "ET"] == ["missed"]
    cohort.predict("a", without_core)
    assert set(cohort.score().query("case == 'a' and region == 'ET'")["note"]) == {"absent"}


def test_missing_prediction_is_a_failed_row_naming_similar_files(cohort):
    (cohort.predictions / "b.nii.gz").rename(cohort.predictions / "bb.nii.gz")
    frame = cohort.score()
    assert failures(frame) == {"b": "no prediction: no file is named after case b; found bb.nii.gz"}
    assert set(frame.loc[frame["case"] == "b", "metric"]) == {"failed"}
    assert json.loads((cohort.out / "evaluation.json").read_text())["failed"] == failures(frame)


def test_a_prediction_on_another_grid_fails_unless_resampling_is_allowed(cohort):
    cohort.predict("b", tumour()[:, :, ::2], spacing=(1, 1, 4))
    assert "shape 20 x 20 x 10 where the label has 20 x 20 x 20" in failures(cohort.score())["b"]
    cohort.predict("c", tumour(), spacing=(1, 1, 2.1))
    assert "voxels of 1 x 1 x 2.1 mm where the label has 1 x 1 x 2 mm" in failures(cohort.score())["c"]
    frame = cohort.score(resample=True)
    assert failures(frame) == {}
    noted = frame[frame["metric"] == "resampled"]
    assert list(noted["case"]) == ["b", "c"]
    assert "nearest neighbour" in noted["note"].iloc[0]
    assert 0.8 < value(frame, "b", "WT", "dice") < 1
    assert json.loads((cohort.out / "evaluation.json").read_text())["resampled"] == ["b", "c"]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.write_bytes(b"no image"), "cannot be read as an image"),
        (lambda path: save(path, tumour() * 2), 'holds the label 8: .* --labels "8=4"'),
        (lambda path: save(path, tumour() * 0.5, dtype=np.float32), r"holds the label 0\.5: labels must be whole"),
    ],
)
def test_invalid_prediction_fails_alone_with_its_reason(cohort, harm, said):
    harm(cohort.predictions / "b.nii.gz")
    frame = cohort.score()
    assert value(frame, "c", "WT", "dice") == 1
    assert list(failures(frame)) == ["b"]
    assert re.search(said, failures(frame)["b"])


def test_run_ends_with_the_reason_if_no_case_was_scored(cohort):
    for case in "abc":
        cohort.predict(case, np.where(tumour() == 4, 3, tumour()))
    with pytest.raises(InputError, match=r'none of the 3 cases could be scored; case a: .*--labels "3=4"'):
        cohort.score()
    assert list(failures(read_cases(cohort.out / "cases.csv"))) == ["a", "b", "c"]


def test_another_label_scheme_is_scored_after_renaming(cohort):
    for case in "abc":
        cohort.predict(case, np.where(tumour() == 4, 3, tumour()))
    frame = cohort.score(label_map={3: 4})
    assert value(frame, "a", "ET", "dice") == 1
    assert json.loads((cohort.out / "evaluation.json").read_text())["label_map"] == {"3": 4}


def test_pictures_are_scored_in_pixels(tmp_path):
    truth = np.zeros((30, 40), np.uint8)
    truth[5:15, 5:25] = 1
    pictures = Cohort(tmp_path, labels=truth, suffix=".png", unit="pixel", regions={"lesion": [1]})
    shifted = np.roll(truth, 3, axis=1)
    pictures.write(pictures.predictions / "a.png", shifted)
    frame = pictures.score()
    assert value(frame, "a", "lesion", "hd100") == 3
    assert value(frame, "a", "lesion", "volume_truth") == 200
    assert set(frame["unit"]) == {"", "pixel"}


def test_slice_with_spacing_is_scored_in_mm_and_square_cm(tmp_path):
    truth = np.zeros((30, 40, 1), np.uint8)
    truth[5:15, 5:25] = 1
    frame = Cohort(tmp_path, labels=truth, regions={"lesion": [1]}).score()
    assert value(frame, "a", "lesion", "volume_truth") == 2
    assert set(frame["unit"]) == {"", "mm", "cm2"}


def test_probabilities_add_calibration_of_the_whole_case(cohort):
    soft = cohort.predictions.parent / "soft"
    for case in "abc":
        masks = np.stack([np.isin(tumour(), values) for values in cohort.datalist["regions"].values()], axis=-1)
        save(soft / f"{case}_prob.nii.gz", masks * 0.8, dtype=np.float32)
    frame = cohort.score(probabilities=soft)
    tail = frame[frame["case"] == "a"].tail(2)
    assert list(zip(tail["region"], tail["metric"], strict=True)) == [("all", "ece"), ("all", "brier")]
    near = tumour()[:, :, :19]  # 10 mm around the tumour leave out the last slice
    inside = [np.isin(near, values).mean() for values in cohort.datalist["regions"].values()]
    assert value(frame, "a", "all", "ece") == pytest.approx(0.2 * np.mean(inside), abs=1e-6)
    assert value(frame, "a", "all", "brier") == pytest.approx(0.04 * np.mean(inside), abs=1e-6)
    (soft / "b_prob.nii.gz").unlink()
    with pytest.raises(InputError, match="holds no probabilities for case b"):
        cohort.score(probabilities=soft)


def soft_masks(cohort, probability=0.8) -> Path:
    """Probabilities of 0 outside every region and one number inside; those of case b are shifted by 5 voxels."""
    soft = cohort.predictions.parent / "soft"
    for case in "abc":
        labels = np.roll(tumour(), 5 * (case == "b"), axis=0)
        masks = np.stack([np.isin(labels, values) for values in cohort.datalist["regions"].values()], axis=-1)
        save(soft / f"{case}.nii.gz", masks * probability, dtype=np.float32)
    return soft


def test_reliability_table_covers_the_box_of_the_calibration_error(cohort):
    found = cohort.evaluation(probabilities=soft_masks(cohort))
    frame = pd.read_csv(cohort.out / "reliability.csv")
    assert list(frame.columns) == ["case", "patient", "region", "bin", "voxels", "confidence", "frequency"]
    assert len(frame) == 3 * 3 * 10  # cases, regions, tenths
    own = frame[(frame["case"] == "b") & (frame["region"] == "WT")].set_index("bin")
    assert list(own.index) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert own["voxels"].to_dict() == {**dict.fromkeys(own.index, 0), 0.0: 20 * 20 * 19 - 1000, 0.8: 1000}
    assert own.loc[0.8, ["confidence", "frequency"]].tolist() == pytest.approx([0.8, 0.5])
    assert own.loc[0.0, ["confidence", "frequency"]].tolist() == pytest.approx([0.0, 500 / (20 * 20 * 19 - 1000)])
    assert own.loc[0.5, ["confidence", "frequency"]].isna().all()  # nothing was said there
    gaps = frame.eval("voxels * abs(confidence - frequency)").groupby(frame["case"]).sum() / (3 * 20 * 20 * 19)
    for case in "abc":
        assert gaps[case] == pytest.approx(value(found.cases, case, "all", "ece"))


def test_reliability_curve_of_an_earlier_evaluation_is_removed(cohort):
    cohort.score(probabilities=soft_masks(cohort))
    assert (cohort.out / "reliability.csv").exists()
    assert cohort.evaluation().reliability is None
    assert not (cohort.out / "reliability.csv").exists()


def test_a_resumed_run_keeps_the_reliability_curves_it_had(cohort):
    soft = soft_masks(cohort)
    kept = interrupted(cohort, "b", probabilities=soft)
    content = json.loads(kept.read_text())
    assert content["reliability"][8][:5] == ["b", "p1", "WT", 0.8, 1000]
    content["reliability"][8][6] = 0.123
    kept.write_text(json.dumps(content))
    frame = cohort.evaluation(probabilities=soft).reliability
    assert list(frame.query("case == 'b' and region == 'WT' and bin == 0.8")["frequency"]) == [0.123]
    assert len(frame) == 3 * 3 * 10


def test_probabilities_of_another_shape_or_scale_fail_their_case(cohort):
    soft = cohort.predictions.parent / "soft"
    for case, regions, probability in (("a", 2, 1), ("b", 3, 7), ("c", 3, 1)):
        save(soft / f"{case}.nii.gz", np.full((20, 20, 20, regions), probability), dtype=np.float32)
    failed = failures(cohort.score(probabilities=soft))
    assert "expected (20, 20, 20, 3)" in failed["a"]
    assert "expected probabilities, 0 to 1" in failed["b"]
    assert list(failed) == ["a", "b"]


def test_predictions_folder_is_recorded_as_an_absolute_path(cohort, monkeypatch):
    monkeypatch.chdir(cohort.predictions.parent)
    cohort.predictions = Path("data/../predictions")
    cohort.score()
    told = json.loads((cohort.out / "evaluation.json").read_text())["predictions"]
    assert told == str((cohort.out.parent / "predictions").resolve())


def test_label_changed_since_the_list_was_made_is_not_used(cohort):
    save(cohort.root / "b_label.nii.gz", np.roll(tumour(), 1))
    with pytest.raises(InputError, match=r"b_label\.nii\.gz has changed"):
        cohort.score()
    assert not cohort.out.exists()


def test_parts_are_scored_separately(cohort):
    for fold, entry in enumerate(cohort.datalist["training"][:2]):
        del entry["split"]
        entry["fold"] = fold
    assert set(cohort.score()["case"]) == {"c"}
    assert set(cohort.score(part="validation", fold=1)["case"]) == {"b"}
    assert json.loads((cohort.out / "evaluation.json").read_text())["part"] == "validation (fold 1)"
    assert set(cohort.score(part="labelled")["case"]) == {"a", "b", "c"}


def test_record_next_to_the_table_describes_the_scoring(cohort):
    cohort.score(about={"checkpoint": "best.pt"})
    about = json.loads((cohort.out / "evaluation.json").read_text())
    assert (about["cases"], about["patients"], about["part"]) == (3, 3, "test")
    assert about["definitions"]["metrics"]["hd95"].startswith("the larger of the two directed 95th percentiles")
    assert about["definitions"]["tolerances"] == [1, 2, 3]
    assert about["definitions"]["brats2023"] == {"dilations": 3, "smallest": 50.0, "penalty": 374.0}
    assert set(about["definitions"]["metrics"]) == {*METRICS, *BOUNDARY_METRICS, "ece", "brier"}
    assert about["about"] == {"checkpoint": "best.pt"}
    assert about["versions"]["scipy"]
    assert not (cohort.out / ".scoring").exists()


def test_table_is_independent_of_process_count_and_list_order(cohort):
    cohort.predict("b", np.roll(tumour(), 2, axis=0))
    alone = cohort.score()
    assert cohort.score(workers=2).equals(alone)
    cohort.datalist["training"].reverse()
    turned = cohort.score()
    assert turned.sort_values(["case"], kind="stable", ignore_index=True).equals(alone)


def test_invalid_number_of_workers_is_refused(cohort):
    with pytest.raises(InputError, match="workers is 0: give a whole number"):
        cohort.score(workers=0)


def interrupted(cohort, case, **options) -> Path:
    """The file of a case left by a run that could not write its table."""
    (cohort.out / "cases.csv").unlink(missing_ok=True)
    (cohort.out / "cases.csv").mkdir(parents=True)
    with pytest.raises(InputError, match=r"cases\.csv cannot be written"):
        cohort.score(**options)
    (cohort.out / "cases.csv").rmdir()
    return cohort.out / ".scoring" / f"{case}.json"


def kept_rows(cohort, case, dice):
    """Write what an interrupted run leaves, with another Dice, so that its use shows."""
    path = interrupted(cohort, case)
    kept = json.loads(path.read_text())
    kept["rows"][0][4] = dice
    path.write_text(json.dumps(kept))


def test_scores_of_an_interrupted_run_are_reused(cohort):
    kept_rows(cohort, "b", 0.123)
    assert value(cohort.score(), "b", "WT", "dice") == 0.123
    assert value(cohort.score(), "b", "WT", "dice") == 1  # what was kept is gone once the table is written


def test_scores_of_other_predictions_or_rules_are_computed_again(cohort):
    kept_rows(cohort, "b", 0.123)
    cohort.predict("b", np.roll(tumour(), 1, axis=0))
    assert 0.8 < value(cohort.score(), "b", "WT", "dice") < 1
    kept_rows(cohort, "b", 0.123)
    assert 0.8 < value(cohort.score(resample=True), "b", "WT", "dice") < 1


def test_interrupted_run_reports_it_and_resumes_where_it_stopped(tmp_path):
    large = np.kron(tumour(), np.ones((6, 6, 6), np.uint8))
    cohort = Cohort(tmp_path, cases=[f"case{n}" for n in range(12)], labels=large)
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(cohort.datalist))
    command = [sys.executable, "-m", "bundle", "score", str(cohort.predictions), "--datalist", str(listed)]
    command += ["--dataset_dir", str(cohort.root), "--out", str(cohort.out), "--workers", "2"]
    started = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    kept = cohort.out / ".scoring"
    deadline = time.monotonic() + 60
    while not list(kept.glob("case*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGINT)  # as Ctrl-C does: to the command and its workers
    said = started.communicate(timeout=60)[1]
    assert started.returncode == 130
    assert said.strip().splitlines()[-1].startswith("Interrupted")
    assert "Traceback" not in said
    assert not (cohort.out / "cases.csv").exists()
    done = {path.name: path.stat().st_mtime_ns for path in kept.glob("case*.json")}
    assert 0 < len(done) < 12
    frame = cohort.score(workers=2)
    assert set(frame.loc[frame["metric"] == "dice", "value"]) == {1.0}
    assert frame["case"].nunique() == 12


def test_a_failed_case_counts_as_dice_0_in_the_summary(cohort):
    cohort.predict("b", np.zeros((20, 20, 20)))
    (cohort.predictions / "c.nii.gz").unlink()
    table = tabulate_regions(cohort.score())
    assert list(table.index) == ["WT", "TC", "ET"]
    row = table.loc["WT"]
    assert (row["n"], row["failed"], row["low"], row["hd95_inf"]) == (3, 1, 2, 2)
    assert (row["minimum"], row["q1"], row["median"], row["q3"]) == (0, 0, 0, 0.5)
    assert row["hd95_median"] == math.inf


def test_printed_summary_names_each_failed_case_and_its_effect(cohort, capsys):
    (cohort.predictions / "c.nii.gz").unlink()
    frame = cohort.score()
    print_score_tables(frame, Console(width=100))
    printed = capsys.readouterr().out
    assert "3 cases of 3 patients" in printed
    assert "1 case failed (scored as Dice 0 and HD95 inf" in printed
    assert "c: no prediction" in printed


def test_a_table_of_another_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_cases(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("case,dice\na,1\n")
    with pytest.raises(InputError, match="has columns case, dice: expected case, patient"):
        read_cases(tmp_path / "other.csv")


def test_real_grids_are_scored_like_monai_within_about_a_second(shared_data, tmp_path):
    """240 x 240 x 155 voxels with float labels; predictions are shifted truths with a false positive."""
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    root, training = shared_data("brats2015"), []
    for folder in sorted(root.glob("*/brats*"))[:2]:
        label = nib.load(folder / "OTMultiClass.nii.gz")
        moved = np.roll(np.asanyarray(label.dataobj), (2, 1, 0), axis=(0, 1, 2)).astype(np.uint8)
        moved[ndimage.binary_erosion(moved > 0) ^ (moved > 0)] = 0
        moved[100:104, 100:104, 10:14] = 2
        (tmp_path / "predictions").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(moved, label.affine), tmp_path / "predictions" / f"{folder.name}_seg.nii.gz")
        name = str((folder / "OTMultiClass.nii.gz").relative_to(root))
        training.append({"image": "none", "label": name, "case": folder.name, "patient": folder.name, "split": "test"})
    datalist = {
        "labels": {"necrosis": 1, "oedema": 2, "non-enhancing": 3, "enhancing": 4},
        "regions": {"WT": [1, 2, 3, 4], "TC": [1, 3, 4], "ET": [4]},
        "unit": "mm",
        "hashes": {entry["label"]: lists.file_hash(root / entry["label"]) for entry in training},
        "training": training,
    }
    start = time.process_time()
    frame = score_predictions(datalist, root, tmp_path / "predictions", tmp_path / "scored", workers=1).cases
    assert (time.process_time() - start) / len(training) < 3  # s; 0.6 on an idle core, with room for a busy one
    case, region = training[0], "TC"
    truth = np.isin(np.asanyarray(nib.load(root / case["label"]).dataobj), datalist["regions"][region])
    file = tmp_path / "predictions" / f"{case['case']}_seg.nii.gz"
    predicted = np.isin(np.asanyarray(nib.load(file).dataobj), datalist["regions"][region])
    y, p = torch.from_numpy(truth)[None, None], torch.from_numpy(predicted)[None, None]
    rules = {"include_background": True, "spacing": [1.0, 1.0, 1.0]}
    assert value(frame, case["case"], region, "hd95") == pytest.approx(
        compute_hausdorff_distance(p, y, percentile=95, **rules).item(), abs=1e-4
    )
    assert value(frame, case["case"], region, "nsd_2mm") == pytest.approx(
        compute_surface_dice(p, y, [2.0], **rules).item()
    )
    assert value(frame, case["case"], region, "assd") == pytest.approx(
        compute_average_surface_distance(p, y, symmetric=True, **rules).item(), abs=1e-5
    )


def test_every_true_lesion_is_a_row_of_its_own_table(cohort):
    two = tumour()
    two[16:19, 16:19, 16:18] = 2
    save(cohort.root / "b_label.nii.gz", two)
    cohort.datalist["hashes"]["b_label.nii.gz"] = lists.file_hash(cohort.root / "b_label.nii.gz")
    found = cohort.evaluation()
    assert list(found.lesions.columns) == LESION_COLUMNS
    rows = found.lesions[(found.lesions["case"] == "b") & (found.lesions["region"] == "WT")]
    assert rows[["lesion", "unit", "detected", "dice"]].to_numpy().tolist() == [[1, "ml", 1, 1.0], [2, "ml", 0, 0.0]]
    assert list(rows["volume"]) == pytest.approx([2.0, 0.036])
    assert set(rows["patient"]) == {"p1"}
    assert (cohort.out / "lesions.csv").read_text().splitlines()[0] == ",".join(LESION_COLUMNS)
    assert sum(found.lesions["detected"]) == found.cases.query("metric == 'lesions_tp'")["value"].sum()


def test_volumes_have_no_table_of_patients(cohort):
    cohort.out.mkdir()
    (cohort.out / "patients.csv").write_text("of slices that were scored before")
    assert cohort.evaluation().patients is None
    assert not (cohort.out / "patients.csv").exists()


def cells(hole=False) -> np.ndarray:
    """Two cells (255) with a membrane (0) between them."""
    labels = np.full((20, 20), 255, np.uint8)
    labels[:, 10] = 0
    if hole:
        labels[5, 10] = 255
    return labels


class Sections(Cohort):
    """Sections with membranes, which are label 0 in the files of ISBI 2012."""

    def __init__(self, root, **header):
        super().__init__(root, labels=cells(), suffix=".png", unit="pixel", regions={"membrane": [0]}, **header)
        self.datalist["labels"] = {"membrane": 0, "cell": 255}


def test_outlines_of_cells_have_their_scores_and_no_lesions(tmp_path):
    sections = Sections(tmp_path, boundaries="membrane")
    sections.write(sections.predictions / "b.png", cells(hole=True))
    found = sections.evaluation()
    metrics = set(found.cases["metric"])
    assert set(BOUNDARY_METRICS) < metrics
    assert not {name for name in metrics if "lesion" in name}
    assert found.lesions.empty
    assert value(found.cases, "a", "membrane", "rand_f") == 1
    assert value(found.cases, "b", "membrane", "rand_split") == 1
    assert value(found.cases, "b", "membrane", "rand_merge") < 0.6
    assert value(found.cases, "b", "membrane", "dice") == pytest.approx(2 * 19 / 39)


def test_region_of_label_0_extends_to_the_image_border(tmp_path):
    frame = Sections(tmp_path).score()
    assert value(frame, "a", "membrane", "volume_truth") == 20
    assert set(frame["metric"]).isdisjoint(BOUNDARY_METRICS)  # the list does not say that it is an outline


def test_boundary_that_is_not_a_region_is_refused(tmp_path):
    with pytest.raises(InputError, match="has cell in `boundaries`: expected a region, membrane"):
        Sections(tmp_path, boundaries=["cell"]).score()


def test_the_lesionwise_rule_of_volumes_is_not_applied_to_slices(tmp_path):
    truth = np.zeros((30, 40), np.uint8)
    truth[5:15, 5:25] = 1
    frame = Cohort(tmp_path, labels=truth, suffix=".png", unit="pixel", regions={"lesion": [1]}).score()
    assert "lesions_tp" in set(frame["metric"])
    assert not {name for name in frame["metric"] if "brats2023" in name}
