"""The simplest candidate is selected unless another is really better, on patients that no network has seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bundle.commands.select import select
from bundle.studies import averaging
from bundle.studies.candidates import Candidate, read_cohort, shared_settings
from bundle.studies.members import find_configurations
from bundle.studies.selection import choose, explain, select_candidate
from scripts.files import read_mapping, write_json
from tests.made import refused

PATIENTS = [f"p{k:02d}" for k in range(20)]
DICE = np.random.default_rng(0).uniform(0.6, 0.9, 20)
FOLDS = {patient: k % 4 for k, patient in enumerate(PATIENTS)}


def candidates(**gains: np.ndarray | float) -> list[Candidate]:
    """Candidates of one Dice plus a gain, the simplest first."""
    return [
        Candidate(name, (Path(name),), 4 * (k + 1), 1, pd.Series(DICE + gain, PATIENTS))
        for k, (name, gain) in enumerate(gains.items())
    ]


def chosen(**gains: np.ndarray | float) -> str:
    return choose(pd.DataFrame({one.name: one.dice for one in candidates(**gains)})).selected


NOISE = np.tile([0.05, -0.03], 10)
CLEAR = np.linspace(0.01, 0.05, 20)


def test_a_difference_that_is_real_selects_the_less_simple_candidate():
    assert chosen(a=0, b=CLEAR) == "b"


def test_a_chance_difference_selects_the_simpler_candidate():
    assert (DICE + NOISE).mean() > DICE.mean()
    assert chosen(a=0, b=NOISE) == "a"
    assert chosen(a=0, b=CLEAR, c=CLEAR + NOISE / 100) == "b"


def test_of_equal_candidates_the_simplest_is_selected():
    assert chosen(a=0, b=0, c=0) == "a"


def test_few_patients_select_the_simplest():
    found = select_candidate(
        [one._replace(dice=one.dice[:4]) for one in candidates(a=0, b=0.1)], dict([*FOLDS.items()][:4])
    )
    assert found.choice.selected == "a"
    assert any("With 4 patients no difference can be shown" in line for line in explain(found, 4))


def test_a_selection_is_scored_on_folds_it_did_not_see():
    lucky = np.where(np.array([*FOLDS.values()]) == 0, 0.2, 0.001)  # one fold makes the mean
    found = select_candidate(candidates(a=0, b=lucky), FOLDS)
    assert found.choice.selected == "b"
    assert found.by_fold[1] == "b"
    expected = np.where([found.by_fold[fold] == "b" for fold in FOLDS.values()], DICE + lucky, DICE).mean()
    assert found.nested == pytest.approx(expected)
    (line,) = (line for line in explain(found, 20) if "optimistic" in line)
    assert f"{found.nested:.3f}" in line


@pytest.mark.usefixtures("at_root")
def test_selection_of_two_cross_validations_and_their_pair(studies, tmp_path, capsys, monkeypatch):
    folders = [studies.folder / name for name in ("a", "b")]
    out = tmp_path / "selected"
    numbers = select(*folders, out=out, device="cpu").numbers()
    assert [row["name"] for row in numbers["candidates"]] == ["b", "a", "a+b"]  # by networks, then size
    assert [row["networks"] for row in numbers["candidates"]] == [2, 2, 4]
    masks = {path.name for path in out.glob("pairs/a+b/fold*/masks/*.nii.gz")}
    assert masks == {path.name for path in (studies.folder / "a" / "masks").glob("*.nii.gz")}
    printed = " ".join(capsys.readouterr().out.split())
    assert "is optimistic, since it was selected on these patients" in printed

    monkeypatch.setattr(averaging, "run", None)  # nothing is segmented again
    assert select(*folders, out=out, device="cpu").numbers() == numbers
    monkeypatch.undo()

    assert read_mapping(out / "selected.yaml")["ensemble"] == [str(studies.folder / numbers["selection"]["selected"])]
    assert find_configurations([out]) == find_configurations([studies.folder / numbers["selection"]["selected"]])


def test_pairs_keep_all_components_as_the_masks_of_folds_do(studies):
    settings = shared_settings([studies.folder / name for name in ("a", "b")])
    assert settings == {"overlap": "0.0", "min_component_ml": "{}", "min_component_probability": "{}"}


def copy_of(folder: Path, target: Path, **changed) -> Path:
    target.mkdir()
    write_json(target / "crossval.json", {**read_mapping(folder / "crossval.json"), **changed})
    return target


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sha256": "0" * 64}, "are of different data lists"),
        ({"folds": [0]}, "a has folds 0, 1, "),
        ({"settings": {"overlap": "0.5"}}, "were segmented with different overlap"),
    ],
    ids=["data list", "folds", "settings"],
)
@pytest.mark.usefixtures("at_root")
def test_cross_validations_that_cannot_be_compared_are_refused(studies, changed, said, tmp_path):
    other = copy_of(studies.folder / "b", tmp_path / "other", **changed)
    assert said in refused(select, studies.folder / "a", other, out=tmp_path / "selected")
    assert not (tmp_path / "selected").exists()


@pytest.mark.usefixtures("at_root")
def test_folders_that_are_no_finished_cross_validation_are_refused(studies, tmp_path):
    a = studies.folder / "a"
    assert "give two or more" in refused(select, a, out=tmp_path / "selected")
    assert "b/fold0 is not a cross-validation" in refused(select, a, studies.folder / "b" / "fold0")
    one = copy_of(a, tmp_path / "one", folds=[0])
    assert "one lacks fold 1" in refused(read_cohort, [one, copy_of(a, tmp_path / "two", folds=[0])])
    shutil.copytree(studies.folder / "b", tmp_path / "b", ignore=shutil.ignore_patterns("cases.csv"))
    assert "b has no cases.csv" in refused(select, a, tmp_path / "b", out=tmp_path / "selected")


@pytest.mark.usefixtures("at_root")
def test_a_single_patient_is_refused(studies, tmp_path):
    content = read_mapping(studies.datalist)
    kept = [entry for entry in content["training"] if entry.get("fold") == 0][:1]
    path = tmp_path / "list.json"
    write_json(path, {**content, "training": kept})
    sha256 = averaging.lists.datalist_hash(read_mapping(path))
    pair = [copy_of(studies.folder / n, tmp_path / n, folds=[0], datalist=str(path), sha256=sha256) for n in ("a", "b")]
    assert "has 1 patient in 1 fold: expected several" in refused(read_cohort, pair)
