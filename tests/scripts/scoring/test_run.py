"""Evaluations record the role of their patients in training."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from scripts.data import datalist
from scripts.scoring.run import evaluate_run, patient_roles


@pytest.fixture
def run(cohort, tmp_path):
    """A checkpoint with its record, and perfect masks of all labelled patients."""
    data = datalist.read_datalist(cohort.datalist)
    folder = tmp_path / "run"
    (folder / "masks").mkdir(parents=True)
    (folder / "model.pt").write_bytes(b"weights")
    for entry in data["training"]:
        label = cohort.dataset_dir / entry["label"]
        (folder / "masks" / f"{entry['case']}.nii.gz").write_bytes(label.read_bytes())
    used = {
        part: datalist.patients_in_part(data, name, 0)
        for part, name in (("training", "training"), ("validation", "validation"))
    }
    (folder / "environment.json").write_text(json.dumps({"patients": used}))
    return folder


def scored(cohort, run, **others) -> pd.DataFrame:
    data = datalist.read_datalist(cohort.datalist)
    arguments = {"part": "validation", "fold": 0, "checkpoints": [run / "model.pt"], "workers": 1, **others}
    evaluate_run(data, cohort.dataset_dir, run / "masks", run / "evaluation", **arguments)
    return pd.read_csv(run / "evaluation" / "cases.csv")


def test_run_is_scored_on_its_validation_patients_and_records_it(cohort, run, capsys):
    rows = scored(cohort, run)
    dice = rows[rows["metric"] == "dice"]
    assert len(dice) == 3  # regions
    assert np.allclose(dice["value"].astype(float), 1)
    printed = capsys.readouterr().out
    assert "1 of 1 evaluated patients were used to select the checkpoint" in printed
    assert "so their scores are too high" in printed
    assert "cases.csv" in printed
    assert printed.endswith(f"next: python -m bundle report {run / 'evaluation'}\n")


def test_training_patients_are_counted_with_a_warning(cohort, run, capsys):
    scored(cohort, run, part="labelled")
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 of 4 evaluated patients were used for training, so their scores say nothing about new patients" in printed
    assert "1 of 4 evaluated patients were used to select the checkpoint" in printed


def test_damaged_mask_is_named_and_the_rest_is_scored(cohort, run, capsys):
    damaged = sorted((run / "masks").glob("*.nii.gz"))[1]
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(SystemExit) as ended:
        scored(cohort, run, part="labelled")
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert f"{damaged.name} cannot be read as an image" in printed.out
    assert printed.err.endswith("1 of 4 cases could not be scored; the others are.\n")
    rows = pd.read_csv(run / "evaluation" / "cases.csv")
    assert rows.loc[rows["metric"] == "failed", "case"].tolist() == [damaged.name.removesuffix(".nii.gz")]
    assert rows.loc[rows["metric"] == "dice", "case"].nunique() == 3


def test_record_next_to_the_scores_names_their_run(cohort, run):
    scored(cohort, run)
    text = (run / "evaluation" / "evaluation.json").read_text()
    assert datalist.file_hash(run / "model.pt") in text
    assert str(run / "model.pt") in text
    assert '"validation"' in text


def test_checkpoint_without_a_record_is_scored_with_a_note(cohort, run, capsys):
    (run / "environment.json").unlink()
    scored(cohort, run)
    assert "Unknown which patients this checkpoint was trained on" in capsys.readouterr().out


def test_each_patient_has_the_role_that_weighs_most(tmp_path):
    record = {"patients": {"training": ["a", "b"], "validation": ["b", "c"]}}
    (tmp_path / "environment.json").write_text(json.dumps(record))
    roles = patient_roles([tmp_path / "model.pt"], ["a", "b", "c", "d"])
    assert roles == {"training": ["a", "b"], "validation": ["c"], "test": ["d"]}


def test_unrelated_record_is_not_a_record_of_patients(tmp_path):
    (tmp_path / "environment.json").write_text(json.dumps({"python": "3.11"}))
    assert patient_roles([tmp_path / "model.pt"], ["a"]) == {}


def test_probabilities_that_the_run_saved_are_scored_too(cohort, run):
    data = datalist.read_datalist(cohort.datalist)
    (run / "masks" / "probabilities").mkdir()
    for entry in data["training"]:
        label = nib.load(cohort.dataset_dir / entry["label"])
        masks = [np.isin(np.asanyarray(label.dataobj), values) for values in data["regions"].values()]
        soft = nib.Nifti1Image(0.9 * np.stack(masks, axis=-1).astype(np.float32), label.affine)
        nib.save(soft, run / "masks" / "probabilities" / f"{entry['case']}.nii.gz")
    rows = scored(cohort, run)
    assert set(rows["metric"]) >= {"ece", "brier"}
    assert (rows[rows["metric"] == "brier"]["value"].astype(float) < 0.01).all()
    assert not {*scored(cohort, run, by_class=True)["metric"]} & {"ece", "brier"}  # whose channels are no regions


def test_run_on_slices_is_scored_by_slice_and_patient(cohort, run, capsys):
    data = datalist.read_datalist(cohort.datalist)
    for number, entry in enumerate(data["training"]):
        entry |= {"patient": "one", "slice": number, "fold": 0}
        voxels = nib.load(cohort.dataset_dir / entry["label"])
        for path in (run / "slices" / entry["label"], run / "masks" / f"{entry['case']}.nii.gz"):
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(voxels.slicer[:, :, 15:16], path)
        entry_file = run / "slices" / entry["label"]
        data["hashes"][entry["label"]] = datalist.file_hash(entry_file)
    evaluate_run(data, run / "slices", run / "masks", run / "out", "validation", 0, [run / "model.pt"], workers=1)
    assert set(pd.read_csv(run / "out" / "patients.csv")["case"]) == {"one"}
    assert "by patient (1): all slices as one volume" in capsys.readouterr().out
