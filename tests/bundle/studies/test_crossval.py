"""Cross-validation scores each patient once, by the network that was trained without them."""

import json

import pytest
import yaml

from bundle.__main__ import main
from bundle.analysis.evaluation import read_evaluation
from bundle.analysis.summary import summarise_evaluation
from bundle.commands.crossval import crossval
from bundle.commands.prepare import prepare
from bundle.studies import crossval as studies
from scripts.data.datalist import datalist_hash, read_datalist
from scripts.files import read_mapping, write_json
from scripts.network.weights import settings_file
from scripts.scoring.cohort import read_cases
from tests.made import ROOT, at_repository_root, refused

SMALL = {"device": "cpu", "patch_size": "[16,16,16]", "filters": "[4,8,8]", "overlap": "0.0"}
SMALL |= {"max_epochs": "1", "steps_per_epoch": "1"}


@pytest.fixture(scope="module")
def pooled(cohort, tmp_path_factory):
    """Two of four folds, trained and pooled: the folder and the record."""
    out = tmp_path_factory.mktemp("pooled") / "cv"
    content = read_datalist(cohort.datalist)
    record = {
        "task": "phantom", "recipes": [], "settings": SMALL, "sites": {}, "folds": [0, 2],
        "datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir), "sha256": datalist_hash(content),
    }  # fmt: skip
    studies.open_crossval(out, record)
    with at_repository_root():
        for job in studies.fold_jobs(record, out):
            for step in job.steps:
                main([*step])
        studies.pool_folds(out, record, content)
    return out, record


def test_each_patient_of_the_folds_has_one_mask_and_scores(pooled, cohort):
    out, record = pooled
    expected = {e["case"] for e in read_datalist(cohort.datalist)["training"] if e.get("fold") in record["folds"]}
    table = read_cases(out / "cases.csv")
    assert {*table["case"]} == expected == {path.name.removesuffix(".nii.gz") for path in (out / "masks").glob("*.gz")}
    assert not table.duplicated(["case", "region", "metric"]).any()


def test_network_never_saw_the_patients_that_it_scored(pooled):
    out, record = pooled
    for fold in record["folds"]:
        used = json.loads((out / f"fold{fold}" / "environment.json").read_text())["patients"]["training"]
        assert not {*used} & {*read_cases(out / f"fold{fold}" / studies.EVALUATED / "cases.csv")["patient"]}


def test_evaluation_says_that_patients_selected_their_checkpoint(pooled):
    out, _ = pooled
    evaluation = read_evaluation(out)
    assert {*evaluation.roles["validation"]} == {*evaluation.scores["patient"]}


def test_summary_has_the_scores_of_each_fold(pooled):
    out, record = pooled
    evaluation = read_evaluation(out)
    groups = summarise_evaluation(evaluation, "cv")["groups"]["fold"]
    assert [row["group"] for row in groups["rows"]] == [str(fold) for fold in record["folds"]]
    for row in groups["rows"]:
        own = read_cases(out / f"fold{row['group']}" / studies.EVALUATED / "cases.csv")
        dice = own[(own["metric"] == "dice") & (own["region"] == "WT")]["value"]
        assert row["regions"]["WT"]["mean"] == pytest.approx(dice.mean(), abs=1e-9)
    means = [row["regions"]["WT"]["mean"] for row in groups["rows"]]
    assert groups["spread"]["WT"] == pytest.approx(abs(means[0] - means[1]) / 2**0.5)


def test_comparisons_with_raters_are_pooled_where_there_are_any(pooled, cohort):
    out, record = pooled
    of_fold = out / "fold0" / studies.EVALUATED / "raters.csv"
    of_fold.write_text("case,patient,region,metric,value,unit,note,rater,compared\na,007,WT,dice,0.5,,,anna,model\n")
    made = studies.pool_folds(out, record, read_datalist(cohort.datalist)).raters
    assert made[["patient", "value", "rater"]].to_numpy().tolist() == [["007", 0.5, "anna"]]
    of_fold.unlink()
    assert studies.pool_folds(out, record, read_datalist(cohort.datalist)).raters is None
    assert not (out / "raters.csv").exists()


def test_fold_of_another_data_list_is_refused(pooled, cohort):
    out, record = pooled
    message = refused(studies.pool_folds, out, {**record, "sha256": "other"}, read_datalist(cohort.datalist))
    assert "fold0/validation_cases was evaluated with another data list" in message


def test_folds_are_added_to_the_record(pooled):
    out, record = pooled
    assert studies.open_crossval(out, {**record, "folds": [1]})["folds"] == [0, 1, 2]
    write_json(out / studies.RECORD, record)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"recipes": ["sgd_poly"]}, "with recipes [], not ['sgd_poly']"), ({"sha256": "other"}, "has changed since")],
)
def test_other_settings_or_list_are_refused(pooled, change, sentence):
    out, record = pooled
    assert sentence in refused(studies.open_crossval, out, {**record, **change})


def test_folder_of_something_else_is_refused(pooled, tmp_path):
    (tmp_path / "notes.txt").touch()
    assert "already holds files" in refused(studies.open_crossval, tmp_path, pooled[1])


@pytest.mark.parametrize("folds", ["7", "0,x", "-1", ""])
def test_unknown_fold_is_refused(cohort, folds):
    assert "the data list has no fold" in refused(studies.choose_folds, read_datalist(cohort.datalist), folds)


def test_command_sets_the_fold_itself(cohort, tmp_path):
    places = {"datalist": cohort.datalist, "out": tmp_path}
    assert "crossval sets the fold" in refused(crossval, "phantom", **places, fold="1")
    assert "is for --executor slurm" in refused(crossval, "phantom", **places, sbatch="--time=1")


@pytest.fixture
def sites_list(cohort, tmp_path):
    """The cohort's list with two sites, named by the last digit of a case."""
    out = tmp_path / "list.json"
    prepare(cohort.dataset_dir, out=out, folds=3, sites=r"(\d)$", allow_unlabelled=True, picture=False)
    content = read_datalist(out)
    for entry in content["training"]:
        entry["site"] = "AB"[int(entry["site"]) % 2]
    return content


def test_each_site_is_a_fold(sites_list):
    made, sites = studies.hold_out_sites(sites_list)
    assert sites == {0: "A", 1: "B"}
    assert all(sites[entry["fold"]] == entry["site"] for entry in made["training"])


def test_case_without_a_site_is_named(sites_list):
    del sites_list["training"][1]["site"]
    case = sites_list["training"][1]["case"]
    assert f"names no site for 1 of 4 cases, such as {case}" in refused(studies.hold_out_sites, sites_list)


def test_one_site_cannot_be_left_out(sites_list):
    for entry in sites_list["training"]:
        entry["site"] = "A"
    assert "all cases are of the site A" in refused(studies.hold_out_sites, sites_list)


def test_command_finds_finished_folds_and_chooses_components(pooled, cohort, monkeypatch, capsys):
    out, record = pooled
    monkeypatch.chdir(ROOT)
    (out / studies.JOBS).mkdir(exist_ok=True)
    for job in studies.fold_jobs(record, out):
        job.write(out / studies.JOBS)
        job.end(out / studies.JOBS, 0)
    places = {"datalist": cohort.datalist, "dataset_dir": cohort.dataset_dir, "out": out}
    numbers = crossval("phantom", **places, folds="0,2", **SMALL).numbers()
    said = capsys.readouterr().out
    assert "2 folds, 2 finished before" in said
    assert "2 patients are too few to choose which components to drop" in said
    assert numbers["cases"] == 2
    assert read_mapping(out / "fold0" / "settings.yaml")["min_component_ml"] == {}
    assert (out / "report.html").is_file()

    kept = read_mapping(settings_file(out / "fold2"))
    kept.pop("min_component_probability")  # as of a fold that was added, before rules were chosen on all
    settings_file(out / "fold2").write_text(yaml.safe_dump(kept))
    crossval("phantom", **places, folds="0,2", **SMALL)
    assert "too few to choose which components" in capsys.readouterr().out


def test_masks_are_there_without_a_second_copy(pooled):
    out, record = pooled
    (case,) = (out / f"fold{record['folds'][0]}" / studies.EVALUATED / "masks").glob("*.gz")
    assert (out / "masks" / case.name).samefile(case)
    assert read_mapping(out / "masks" / ".records" / f"{case.name.removesuffix('.nii.gz')}.json")
