"""A study trains its baseline and variants once, keeps raw results, and one page says what each variant changes."""

import json

import pandas as pd
import pytest

from bundle.commands.ablate import ablate
from bundle.studies import ablation as studies
from bundle.studies.jobs import StudyJob
from scripts.files import read_mapping
from tests.made import ROOT, refused

SMALL = """
task: phantom
settings: {device: cpu, patch_size: [16, 16, 16], filters: [4, 8, 8], overlap: 0.0, max_epochs: 1, steps_per_epoch: 2}
variants:
  random_patches: {settings: {centre_regions: null}}
  broken: {settings: {patch_size: [17, 16, 16]}}
seeds: [0, 1]
"""


@pytest.fixture
def write_study(tmp_path):
    def write(text: str):
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def inside(monkeypatch):
    """The jobs of a study run in this process, which takes less time; failures are recorded as in their own.

    A list gets the number of runs in runs.csv after each job.
    """
    from bundle.__main__ import main

    kept = []

    def run_here(jobs, folder, parallel, gpus, after_job):
        for job in jobs:
            if job.is_finished(folder):
                continue
            job.write(folder)
            code = 0
            for step in job.steps:
                try:
                    main([*step])
                except SystemExit as ended:
                    code = int(ended.code or 0)
                    break
            job.end(folder, code)
            after_job()
            kept.append(len(studies.read_results(folder.parent)[1]))

    monkeypatch.setattr("bundle.commands.ablate.run_locally", run_here)
    monkeypatch.chdir(ROOT)
    return kept


def test_study_compares_variants_and_keeps_failed_ones(write_study, cohort, tmp_path, inside):
    places = {"datalist": cohort.datalist, "dataset_dir": cohort.dataset_dir, "out": tmp_path / "out"}
    outcome = ablate(write_study(SMALL), **places)
    assert outcome.exit_code == 1
    assert inside[:2] == [1, 2]
    results, runs = studies.read_results(tmp_path / "out")
    assert {*runs[["variant", "seed"]].itertuples(index=False, name=None)} == {
        (variant, seed) for variant in ("baseline", "random_patches") for seed in (0, 1)
    }
    assert runs["steps"].eq(2).all()
    assert results["case"].nunique() == 1
    page = (tmp_path / "out" / "ablation.html").read_text()
    assert "centre_regions: null" in page
    assert "ended with exit code 2" in page
    assert "patients decided between these variants" in page
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert {*table["variant"]} == {"random_patches"}
    assert table["cost_ratio"].gt(0).all()
    record = json.loads((tmp_path / "out" / "runs" / "baseline_seed0_fold0" / "environment.json").read_text())
    assert {*results["patient"]} <= {*record["patients"]["validation"]}

    (tmp_path / "out" / "jobs" / "baseline_seed0_fold0.rc").unlink()  # the tables alone let a study go on
    before = (tmp_path / "out" / "results.csv").read_bytes()
    again = ablate(write_study(SMALL), **places, costs=False)
    assert (tmp_path / "out" / "results.csv").read_bytes() == before
    assert again.numbers() == outcome.numbers()

    fewer = ablate(write_study(SMALL.replace("seeds: [0, 1]", "seeds: [1]")), **places, costs=False)
    assert {row["seeds"] for row in fewer.numbers()} == {1}

    changed = write_study(SMALL.replace("centre_regions: null", "centre_regions: [WT]"))
    assert "holds results of random_patches with another settings" in refused(ablate, changed, **places)


def test_dry_run_says_what_is_left_and_how_long(write_study, cohort, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    study = write_study(SMALL + "folds: [0, 2]\n")
    plan = studies.read_study(study)
    assert plan.runs()[:3] == [("baseline", 0, 0), ("baseline", 0, 2), ("baseline", 1, 0)]
    ablate(study, datalist=cohort.datalist, out=tmp_path / "out", dry_run=True)
    assert "12 runs to train, 0 finished; 0.0 hours; 12 of unknown length" in capsys.readouterr().out
    timed = write_study(SMALL.replace("max_epochs: 1", "max_minutes: 30"))
    ablate(timed, datalist=cohort.datalist, out=tmp_path / "out", dry_run=True)
    assert "6 runs to train, 0 finished; 3.0 hours\n" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_variant_adds_to_the_baseline_and_leaves_recipes_out(write_study):
    text = "task: brats\nrecipes: [sgd_poly, cpu]\nsettings: {a: 1}\n"
    text += "variants: {x: {recipes: [gelu], without: [cpu], settings: {b: 2}}}\n"
    (_, variant) = studies.read_study(write_study(text)).variants
    assert (variant.recipes, dict(variant.settings)) == (("sgd_poly", "gelu"), {"a": 1, "b": 2})


def test_settings_reach_the_command_line_as_they_are():
    values = {"a": None, "b": True, "c": [1, 2], "d": "instance", "e": 1e-4}
    assert studies.Variant("x", (), values).options() == {
        "a": "null", "b": "True", "c": "[1, 2]", "d": "instance", "e": "0.0001",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("task: brats\n", "needs a task, and variants"),
        ("task: brats\nvariants: {x: {}}\nseed: [0]\n", "has the key 'seed': expected task, recipes"),
        ("task: brats\nvariants: {x: {recipe: [gelu]}}\n", "has the key 'recipe': expected recipes, settings, without"),
        ("task: brats\nvariants: {'a/b': {}}\n", "the variant 'a/b' needs a plain name"),
        ("task: brats\nvariants: {baseline: {}}\n", "needs a plain name other than baseline"),
        ("task: brats\nvariants: {x: {}}\nseeds: [0, 0]\n", "seeds is [0, 0]: expected a list of different"),
        ("task: brats\nvariants: {x: {}}\nfolds: all\n", "folds is 'all': expected a list"),
        ("task: brats\nvariants: {x: {}}\npart: train\n", "part is 'train': expected validation or test"),
        ("task: brats\nvariants: {x: {}}\ndifference: 5\n", "difference is 5: expected a Dice between 0 and 1"),
        ("task: brats\nvariants: {x: {settings: {seed: 1}}}\n", "sets seed, which the study sets for each run"),
        ("task: brats\nvariants: {x: {without: [gelu]}}\n", "x leaves out gelu, which is no recipe of the baseline"),
        ("task: brats\nvariants: {x: {recipes: gelu}}\n", "recipes is 'gelu': expected a list of names"),
        ("task: brats\nvariants: {x: {against: [y]}}\n", "x is compared with y, which is no other variant"),
        ("task: brats\nvariants: {x: {against: [x]}}\n", "x is compared with x, which is no other variant"),
    ],
)
def test_wrong_study_is_refused_in_a_sentence(write_study, text, sentence):
    assert sentence in refused(studies.read_study, write_study(text))


def test_every_study_of_the_project_names_what_exists():
    for path in sorted((ROOT / "configs" / "studies").glob("*.yaml")):
        plan = studies.read_study(path)
        files = [ROOT / "configs" / "tasks" / f"{plan.task}.yaml"]
        files += [ROOT / "configs" / "recipes" / f"{name}.yaml" for one in plan.variants for name in one.recipes]
        assert all(file.is_file() for file in files), path
        known = {*read_mapping(ROOT / "configs" / "train.yaml")}
        for one in plan.variants:
            recipes = [read_mapping(ROOT / "configs" / "recipes" / f"{name}.yaml") for name in one.recipes]
            assert {name.split("::")[0] for name in one.settings} <= known.union(*recipes), one.name


def test_length_of_a_run_comes_from_its_history(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,step,minutes\n1,10,0.5\n2,20,1.25\n")
    assert studies.read_length(tmp_path) == (20, 1.25)


def test_unfinished_job_adds_no_results(tmp_path):
    (tmp_path / "jobs").mkdir()
    job = StudyJob(
        "x_seed0_fold0", (("train",),), (str(tmp_path / "a" / "model.pt"), str(tmp_path / "b" / "cases.csv"))
    )
    results, runs = studies.collect_results({("x", 0, 0): job}, tmp_path, {"x": "hash"}, "list", "test")
    assert len(results) == len(runs) == 0
    assert not (tmp_path / "results.csv").exists()


@pytest.fixture
def tables(tmp_path):
    """Writes results.csv and runs.csv with these runs of two seeds; gives the folder."""

    def write(results: list[int], runs: list[int]):
        scores = [["baseline", seed, 0, "a", "p", "WT", "", 0.5, 0.5, 1.0] for seed in results]
        made = [["baseline", seed, 0, "hash", "list", "test", 1, 1.0] for seed in runs]
        pd.DataFrame(scores, columns=studies.RESULT_COLUMNS).to_csv(tmp_path / "results.csv", index=False)
        pd.DataFrame(made, columns=studies.RUN_COLUMNS).to_csv(tmp_path / "runs.csv", index=False)
        return tmp_path

    return write


@pytest.mark.parametrize(("results", "runs"), [([0], [0, 1]), ([0, 1], [0]), ([1, 0], [0, 2])])
def test_a_run_that_one_table_lacks_is_not_finished(tables, results, runs):
    scores, made = studies.read_results(tables(results, runs))
    assert scores["seed"].tolist() == made["seed"].tolist() == [0]


def test_runs_that_left_the_study_do_not_count(tables):
    scores, _ = studies.read_results(tables([0, 1], [0, 1]))
    assert studies.select_runs(scores, [("baseline", 1, 0)])["seed"].tolist() == [1]
    assert list(studies.select_runs(scores, []).columns) == studies.RESULT_COLUMNS
