"""Wrong labels and failures of most cases are said before any table, and every table counts its failed cases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bundle.commands.compare import compare
from bundle.commands.report import report
from bundle.commands.score import score
from scripts.scoring.cohort import read_cases
from scripts.scoring.summary import group_failures
from tests.made import cohort as rows_of_cohort
from tests.made import failed, refused, save_nifti, write


@pytest.fixture
def masks(cohort, tmp_path) -> Path:
    """The labels of the four patients as predictions, in another number type."""
    folder = tmp_path / "masks"
    for file in sorted(cohort.dataset_dir.rglob("*_seg.nii.gz")):
        label = nib.load(file)
        save_nifti(folder / f"{file.parent.name}.nii.gz", np.asarray(label.dataobj).astype(np.int16), label.affine)
    return folder


def change(masks: Path, number: int, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    """Edit the first masks."""
    for file in sorted(masks.iterdir())[:number]:
        image = nib.load(file)
        save_nifti(file, edit(np.asarray(image.dataobj)), image.affine)


def given(cohort, out: Path) -> dict:
    return {"datalist": cohort.datalist, "dataset_dir": cohort.dataset_dir, "out": out, "workers": 1}


@pytest.mark.parametrize("number", [3, 4])
def test_foreign_label_in_most_predictions_ends_in_one_sentence(cohort, masks, tmp_path, capsys, number):
    change(masks, number, lambda labels: np.where(labels == 2, 3, labels))
    sentence = refused(score, masks, **given(cohort, tmp_path / "out"))
    assert f"{number} of 4 predictions cannot be scored for one reason" in sentence
    assert "holds the label 3: the scheme has 0, 1, 2, 4" in sentence
    assert "--labels" in sentence
    assert "Dice" not in capsys.readouterr().out
    assert not (tmp_path / "out" / "cases.csv").exists()


def test_predictions_on_another_grid_end_in_one_sentence(cohort, masks, tmp_path):
    change(masks, 3, lambda labels: labels[:-1])
    sentence = refused(score, masks, **given(cohort, tmp_path / "out"))
    assert "3 of 4 predictions cannot be scored for one reason" in sentence
    assert "has shape" in sentence


def test_advice_of_the_sentence_gives_the_table(cohort, masks, tmp_path):
    change(masks, 4, lambda labels: np.where(labels == 2, 3, labels))
    refused(score, masks, **given(cohort, tmp_path / "out"))
    score(masks, labels="3=2", **given(cohort, tmp_path / "out"))
    rows = read_cases(tmp_path / "out" / "cases.csv")
    assert set(rows.loc[rows["metric"] == "dice", "value"]) == {1.0}


def test_one_bad_prediction_is_counted_in_every_title(cohort, masks, tmp_path, capsys):
    change(masks, 1, lambda labels: labels * 2)
    outcome = score(masks, **given(cohort, tmp_path / "out"))
    report(tmp_path / "out")
    printed = capsys.readouterr().out
    assert outcome.exit_code == 1
    assert "labelled: 4 cases of 4 patients, 1 failed" in printed
    assert "out: 4 cases of 4 patients, labelled, 1 failed" in printed


def test_labels_given_as_predictions_are_refused(cohort, tmp_path):
    sentence = refused(score, cohort.dataset_dir, **given(cohort, tmp_path / "out"))
    assert f"{cohort.dataset_dir} holds the labels themselves" in sentence


def test_links_to_the_labels_are_refused(cohort, tmp_path):
    (tmp_path / "links").mkdir()
    for file in cohort.dataset_dir.rglob("*_seg.nii.gz"):
        (tmp_path / "links" / file.name).symlink_to(file)
    assert "holds the labels themselves" in refused(score, tmp_path / "links", **given(cohort, tmp_path / "out"))


def test_copies_of_the_labels_are_noticed_before_the_table(cohort, tmp_path, capsys):
    (tmp_path / "copies").mkdir()
    for file in cohort.dataset_dir.rglob("*_seg.nii.gz"):
        shutil.copy(file, tmp_path / "copies" / file.name)
    score(tmp_path / "copies", **given(cohort, tmp_path / "out"))
    printed = capsys.readouterr().out
    assert printed.index("4 of 4 predictions are byte for byte the label's own file") < printed.index("Dice")
    assert len(json.loads((tmp_path / "out" / "evaluation.json").read_text())["copies_of_labels"]) == 4


def test_compare_refuses_a_system_that_failed_in_most_cases(tmp_path):
    reason = "m.nii.gz holds the label 3: the scheme has 0, 1"
    lost = [row for k in range(6) for row in failed(f"c{k:02d}", reason)]
    old = write(tmp_path / "old", rows_of_cohort([0.8] * 10)[-4 * len(rows_of_cohort([0.8])) :] + lost)
    new = write(tmp_path / "new", rows_of_cohort([0.8] * 10))
    sentence = refused(compare, old, new, out=tmp_path / "compared")
    assert "failed in 6 of 10 cases" in sentence
    assert not (tmp_path / "compared").exists()


def test_compare_counts_failed_cases_in_its_title(tmp_path, capsys):
    rows = rows_of_cohort([0.8] * 10)
    old = write(tmp_path / "old", rows[len(rows_of_cohort([0.8])) :] + failed("c00"))
    compare(old, write(tmp_path / "new", rows), out=tmp_path / "compared")
    assert "1 failed case of old counted as Dice 0" in " ".join(capsys.readouterr().out.split())


def test_near_identical_reasons_are_one_group():
    reasons = [f"/data/p {k}/m_{k}.nii.gz holds the label{'s' * k} {'3, ' * k}5: the scheme has 1" for k in (0, 1)]
    frame = pd.DataFrame(
        [[f"p{k}", "failed", reason] for k, reason in enumerate([*reasons, "no prediction: no file"])],
        columns=["case", "metric", "note"],
    )
    assert [names for names, _ in group_failures(frame)] == [["p0", "p1"], ["p2"]]
