"""Calibration of runs and cross-validations: which masks count, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest

from bundle.commands.calibrate import calibrate
from bundle.studies.calibrating import apply_calibration, calibrate_runs
from bundle.studies.postprocessing import change_settings
from scripts.data.datalist import file_hash
from scripts.files import read_mapping, write_json
from tests.made import refused


@pytest.fixture(scope="module")
def cv(studies, tmp_path_factory):
    """A cross-validation of six patients in two folds, with numbers of each mask."""
    return shutil.copytree(studies.folder / "a", tmp_path_factory.mktemp("calibrated") / "a")


def test_six_patients_are_not_calibrated_and_said_to_be_few(cv, capsys):
    outcome = calibrate(cv)
    said = capsys.readouterr().out
    regions = outcome.numbers()["calibration"]
    assert {own["reason"].split(":")[0] for own in regions.values()} == {"Not calibrated"}
    assert "Too few patients to try a bound on one that took no part, which takes 21: WT" in said
    for fold in (0, 1):
        content = read_mapping(cv / f"fold{fold}" / "quality.json")
        assert content["weights"] == [file_hash(cv / f"fold{k}" / "model.pt") for k in (0, 1)]
        assert content["made_with"]["tta"] is False


def test_each_patient_is_measured_by_their_own_fold(cv):
    predicted = calibrate_runs(cv).predicted
    for fold in (0, 1):
        used = read_mapping(cv / f"fold{fold}" / "environment.json")["patients"]["training"]
        measured = read_mapping(cv / f"fold{fold}" / "validation_cases" / "mask_numbers.json")["cases"]
        assert measured
        assert not {*used} & {*measured}
        assert {case for case, own in measured.items() if own} <= {*predicted["case"]}


def test_rules_for_components_change_the_dice_of_the_calibration(cv, tmp_path):
    own = shutil.copytree(cv, tmp_path / "cv")
    before = calibrate_runs(own).predicted
    for fold in (0, 1):
        change_settings(own / f"fold{fold}", {"min_component_ml": {"WT": 1000.0}})  # all but the largest go
    after = calibrate_runs(own)
    assert after.content["made_with"]["min_component_ml"] == {"WT": 1000.0}
    assert not before["dice"].equals(after.predicted["dice"])
    assert before["expected_dice"].equals(after.predicted["expected_dice"])  # is measured before


def test_rules_that_were_not_tried_on_a_case_are_refused(cv, tmp_path):
    own = shutil.copytree(cv, tmp_path / "cv")
    for fold in (0, 1):
        change_settings(own / f"fold{fold}", {"min_component_ml": {"WT": 1000.0}})
    trained = read_mapping(own / "fold0" / "config.yaml")
    content = read_mapping(Path(trained["datalist"]))
    for entry in content["training"]:  # one held out, whose mask the rules leave out
        if entry["case"] == min(one["case"] for one in content["training"] if "fold" in one):
            entry.pop("fold")
            entry["split"] = "test"
            break
    write_json(tmp_path / "list.json", content)
    write_json(own / "fold0" / "config.yaml", {**trained, "datalist": str(tmp_path / "list.json")})
    assert "what the run's smallest components change in the Dice of" in refused(calibrate_runs, own)


def test_masks_of_training_patients_do_not_count(cv):
    folder = cv / "fold0" / "validation_cases"
    about = {"sha256": "other", "patients": {"training": []}}
    for change, sentence in (
        ({}, "is of other weights than"),
        ({"sha256": read_mapping(folder / "evaluation.json")["about"]["sha256"], "patients": {}}, "does not say which"),
    ):
        made = shutil.copytree(folder, cv.parent / f"copy{len(change)}")
        write_json(made / "evaluation.json", {"about": {**about, **change}})
        assert sentence in refused(calibrate_runs, cv / "fold0", made)
    known = read_mapping(folder / "evaluation.json")["about"]
    everybody = [name for names in known["patients"].values() for name in names]
    write_json(made / "evaluation.json", {"about": {**known, "patients": {"training": everybody}}})
    assert "trained" in refused(calibrate_runs, cv / "fold0", made)


def test_an_evaluation_without_numbers_is_refused(cv, tmp_path):
    own = shutil.copytree(cv, tmp_path / "cv")
    (own / "fold1" / "validation_cases" / "mask_numbers.json").unlink()
    assert "has no mask_numbers.json" in refused(calibrate_runs, own)


def test_a_calibration_is_tried_on_another_evaluation(cv, tmp_path):
    own = shutil.copytree(cv, tmp_path / "cv")
    folder = own / "fold0" / "validation_cases"
    (own / "fold0" / "quality.json").unlink(missing_ok=True)
    assert "has no quality.json" in refused(apply_calibration, own / "fold0", folder)
    calibrate_runs(own / "fold0")
    assert apply_calibration(own / "fold0", folder)["value"].isna().all()
    path = folder / "mask_numbers.json"
    content = json.loads(path.read_text())
    write_json(path, {**content, "made_with": {**content["made_with"], "tta": True}})
    assert "was made with tta True, the calibration with False" in refused(apply_calibration, own / "fold0", folder)
