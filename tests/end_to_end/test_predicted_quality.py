"""A calibrated run predicts the Dice of new masks: exported, segmented from the command line and from Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from monai.bundle import run

from bundle.__main__ import main
from scripts.data.datalist import file_hash, hash_of_files
from scripts.files import read_mapping, write_json
from scripts.inference.segmenter import Segmenter
from tests.made import ROOT, Page, at_repository_root, rows_of, write


def write_evaluation(folder: Path, trained: Path, measured: dict, patients: int = 40) -> Path:
    """An evaluation of patients whose numbers lie around those of a case, and whose Dice is near the expected one."""
    rng, rows, cases = np.random.default_rng(0), [], {}
    for k in range(patients):
        case = f"c{k:02d}"
        cases[case] = {}
        for region, own in measured["cases"]["BraTS2021_00002"].items():
            values = {kind: value * rng.uniform(0.6, 1.4) for kind, value in own.items()}
            values["expected_dice"] = float(np.clip(own["expected_dice"] + rng.normal(0, 0.2), 0.02, 0.98))
            cases[case][region] = values
            rows += rows_of(case, region, float(np.clip(values["expected_dice"] + rng.normal(0, 0.02), 0.01, 0.99)))
    about = {"sha256": hash_of_files([trained / "model.pt"]), "patients": {"test": [*cases], "training": []}}
    write(folder, rows, about=about)
    write_json(folder / "mask_numbers.json", {**measured, "cases": cases})
    return folder


@pytest.fixture(scope="module")
def calibrated(package, cohort, tmp_path_factory) -> tuple[Path, Path]:
    """A run that is calibrated on a made table, and its package."""
    folder = tmp_path_factory.mktemp("calibrated")
    trained = Path(shutil.copytree(package.parents[1] / "run", folder / "run"))
    with at_repository_root():
        given = ["--part", "labelled", "--out", str(folder / "measured"), "--device", "cpu", "--score_workers", "1"]
        main(["evaluate", str(trained), *given])
        table = write_evaluation(folder / "table", trained, read_mapping(folder / "measured" / "mask_numbers.json"))
        main(["calibrate", str(trained), "--evaluation", str(table)])
        main(["export", str(trained), "--out", str(folder / "dist")])
    (made,) = (path for path in (folder / "dist").iterdir() if path.is_dir())
    return trained, made


def test_the_package_has_the_calibration_for_its_weights(calibrated):
    trained, made = calibrated
    content, own = read_mapping(made / "models" / "quality.json"), read_mapping(trained / "quality.json")
    assert content["weights"] == [file_hash(made / "models" / "model.pt")]
    assert content["regions"] == own["regions"]
    assert "WT: Calibrated on 40 patients." in (made / "docs" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def answer(calibrated, cohort, tmp_path_factory) -> Path:
    """The folder of the answer for a scan, by the package."""
    out = tmp_path_factory.mktemp("answers")
    with at_repository_root():
        scan = str(cohort.dataset_dir / "BraTS2021_00002")
        main(["segment", str(calibrated[1]), scan, "--out", str(out), "--device", "cpu"])
    return out / "BraTS2021_00002"


def test_the_answer_has_the_predicted_dice_in_words(answer):
    content = json.loads((answer / "answer.json").read_text(encoding="utf-8"))
    jsonschema.validate(content, json.loads((ROOT / "docs" / "answer.schema.json").read_text(encoding="utf-8")))
    known = {name: own for name, own in content["predicted_dice"].items() if own["value"] is not None}
    assert known
    for own in known.values():
        assert 0 <= own["lower"] < own["value"] <= 1
        assert own["patients"] == 40
        assert own["sentence"] in Page(answer / "answer.html").text


def test_python_predicts_what_the_command_predicts(calibrated, cohort, answer):
    with Segmenter(calibrated[1], device="cpu") as segment:
        found = segment(cohort.dataset_dir / "BraTS2021_00002")
        content = json.loads((answer / "answer.json").read_text(encoding="utf-8"))
        assert found.predicted_dice == content["predicted_dice"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [({}, "predicted Dice, with its 90 % bound: WT"), ({"tta": True}, "calibrated with tta false")],
)
def test_inferring_prints_the_prediction_or_why_not(calibrated, cohort, tmp_path, capsys, settings, words):
    trained, scan = calibrated[0], cohort.dataset_dir / "BraTS2021_00002"
    files = ["configs/inference.yaml", str(trained / "settings.yaml")]
    given = {"run_dir": str(trained), "input": str(scan), "output_dir": str(tmp_path / "out"), "device": "cpu"}
    with at_repository_root():
        run("inferring", config_file=files, **given, **settings)
    assert words in capsys.readouterr().out
