"""The `report` command: a complete, self-contained page, with the same numbers in the terminal."""

import json
import re
import shutil
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bundle.__main__ import main
from bundle.commands.prepare import prepare
from bundle.commands.report import print_summary, report
from bundle.commands.score import score
from scripts.errors import InputError
from tests.made import ROOT, Page, failed, rows_of, tenths, write
from tests.made import cohort as scores_of

SCHEMA = ROOT / "bundle/reporting/summary.schema.json"
TEN = [0.1, 0.45, 0.55, 0.62, 0.69, 0.75, 0.8, 0.85, 0.9, 0.95]


def page_of(folder: Path, rows: list, scored: dict | None = None, **options) -> Page:
    report(str(write(folder, rows, **(scored or {}))), **options)
    return Page(folder / "report.html")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The page of ten patients with one region, and nothing else known."""
    return page_of(tmp_path_factory.mktemp("plain"), scores_of(TEN))


@pytest.fixture(scope="module")
def real_story(tmp_path_factory, cohort):
    """Four phantoms, predicted shifted, empty, not at all and on a wrong grid, scored; with pictures in the page."""
    folder = tmp_path_factory.mktemp("story")
    content = json.loads(cohort.datalist.read_text())
    for number, entry in enumerate(content["training"]):
        image = nib.load(cohort.dataset_dir / entry["label"])
        mask, affine = np.asarray(image.dataobj), image.affine.copy()
        mask = [np.roll(mask, 1, 0), np.zeros_like(mask), None, mask][number]
        affine[0, 3] += 20 * (number == 3)
        if mask is not None:
            (folder / "predictions").mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(mask, affine), folder / "predictions" / f"{entry['case']}.nii.gz")
    where = {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir)}
    outcome = score(str(folder / "predictions"), out=str(folder / "scored"), workers=1, **where)
    assert outcome.exit_code == 1, "two cases cannot be scored"
    report(str(folder / "scored"), title="Phantoms", **where)
    return folder / "scored", where, content["training"]


def test_a_folder_of_masks_becomes_a_page_with_pictures(real_story):
    folder, _, entries = real_story
    page = Page(folder / "report.html")
    assert len(page.all("img")) == 2 * 6 + 3  # two evaluated patients, and maps of three regions
    assert all(image["alt"] and image["src"].startswith("data:image/png") for image in page.all("img"))
    assert f"No file is named after case {entries[2]['case']}".lower() in page.text.lower()
    assert "has an affine that differs from the label's by up to 20 mm" in page.text
    assert "4 patients, 4 cases" in page.text
    summary = json.loads((folder / "summary.json").read_text())
    jsonschema.validate(summary, json.loads(SCHEMA.read_text()))
    assert summary["missing"] == [entries[2]["case"]]
    assert list(summary["failed"]) == [entries[3]["case"]]


def test_repetitions_name_suspected_label_errors(real_story, tmp_path):
    folder, where, entries = real_story
    label = nib.load(Path(where["dataset_dir"]) / entries[1]["label"])  # of the patient whose mask is empty
    empty = nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine)
    (tmp_path / "again").mkdir()
    nib.save(empty, tmp_path / "again" / f"{entries[1]['case']}.nii.gz")
    folder = shutil.copytree(folder, tmp_path / "first")
    score(str(tmp_path / "again"), out=str(tmp_path / "rescored"), workers=1, **where)
    summary = report(str(folder), title="Phantoms", repetitions=str(tmp_path / "rescored"), **where).numbers()
    jsonschema.validate(summary, json.loads(SCHEMA.read_text()))
    found = summary["label_errors"]
    assert (found["repetitions"], found["cases"]) == (2, 2)
    table = pd.read_csv(folder / "label_errors.csv")
    assert {*table["case"]} == {entries[1]["case"]}
    assert {*table["agree"]} == {2} == {row["agree"] for row in found["found"]}
    page = Page(folder / "report.html")
    assert "most of 2 repetitions agree" in page.text
    assert "Which of these patients a network was trained on is unknown" in page.text


def test_patients_used_for_training_are_not_searched(real_story, tmp_path):
    folder, where, entries = real_story
    record = json.loads((folder / "evaluation.json").read_text())
    record["about"] = {"patients": {"training": [entry["patient"] for entry in entries]}}
    shutil.copytree(folder, tmp_path / "trained")
    (tmp_path / "trained" / "evaluation.json").write_text(json.dumps(record))
    summary = report(str(tmp_path / "trained"), **where).numbers()
    assert summary["label_errors"] is None
    assert "All of these patients were used for training" in Page(tmp_path / "trained" / "report.html").text


def test_the_evaluation_itself_is_no_repetition(real_story):
    folder, where, _ = real_story
    with pytest.raises(InputError, match="is the evaluation itself"):
        report(str(folder), repetitions=str(folder), **where)


def test_the_same_masks_are_no_repetition(real_story, tmp_path):
    folder, where, _ = real_story
    shutil.copytree(folder, tmp_path / "scored_elsewhere")
    with pytest.raises(InputError, match="has the masks of another one"):
        report(str(folder), repetitions=str(tmp_path / "scored_elsewhere"), **where)


def test_the_same_evaluation_gives_the_same_bytes(real_story):
    folder, where, _ = real_story
    before = [(folder / name).read_bytes() for name in ("report.html", "summary.json")]
    report(str(folder), title="Phantoms", **where)
    assert [(folder / name).read_bytes() for name in ("report.html", "summary.json")] == before


def test_pictures_are_small_enough_for_a_page(real_story):
    assert max(len(image["src"]) for image in Page(real_story[0] / "report.html").all("img")) < 100_000


def test_unreadable_scan_leaves_the_old_page_unchanged(real_story, tmp_path):
    folder, where, _ = real_story
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match=r"does not exist|cannot be read"):
        report(str(folder), datalist=where["datalist"], dataset_dir=str(tmp_path))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_page_loads_nothing_from_anywhere(plain):
    assert not plain.all("link")
    assert not [a for a in plain.all("script") if "src" in a]
    assert not re.findall(r"@import|url\((?!#)", plain.source)
    assert all(anchor["href"].startswith("#") for anchor in plain.all("a"))


def test_every_link_has_a_target(tmp_path):
    rows = [*scores_of(TEN), *[["c00", "c00", "all", metric, 0.1, "", ""] for metric in ("ece", "brier")]]
    write(tmp_path / "old", scores_of(TEN))
    page = page_of(tmp_path / "new", rows, reference=str(tmp_path / "old"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    sections = [attributes["id"] for attributes in page.all("section")]
    assert {anchor["href"][1:] for anchor in page.all("a")} <= set(ids)
    assert sections == [
        *("what", "regions", "distributions", "size", "lesions", "volumes", "boundaries"),
        *("calibration", "comparison", "patients", "atlas", "labels", "cases", "limits"),
    ]


def test_tables_and_figures_work_with_screen_readers(tmp_path):
    page = page_of(tmp_path, scores_of(TEN, "WT") + scores_of(TEN, "ET"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(header.get("scope") for header in page.all("th"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert "WT, 10 cases: median Dice 0.72, quartiles 0.57 to 0.84, lowest 0.10 (c00)." in [
        svg["aria-label"] for svg in page.all("svg")
    ]


def test_names_from_the_data_cannot_become_markup(tmp_path):
    nasty = '<img src=x onerror="alert(1)">&'
    rows = scores_of(TEN) + rows_of(nasty, nasty, 0.3) + failed("<b>lost</b>", "<script>alert(2)</script>")
    page = page_of(tmp_path, rows, title="<i>T & T</i>")
    assert not page.all("img")
    assert len(page.all("script")) == 1
    assert nasty in page.text
    assert "<i>T & T</i>" in page.text
    assert "<script>alert(2)</script>" in page.text


def test_every_case_is_in_the_table_without_scripts(tmp_path):
    page = page_of(tmp_path, scores_of(TEN, "WT") + scores_of(TEN, "ET") + failed("lost"))
    table = page.source[page.source.index('<table id="all">') :]
    assert table.count('<th scope="row">') == 22
    assert [a for a in page.all("p") if "hidden" in a]  # the filters wait for the script


def test_every_patient_is_a_dot_with_a_name(plain):
    assert plain.source.count("<title>c03: 0.620</title>") >= 1
    dots = re.findall(r"<title>(c\d\d): \d\.\d{3}</title>", plain.source.split('id="size"')[0])
    assert len(set(dots)) == 10


@pytest.mark.parametrize(
    ("used", "said"),
    [
        ({"training": ["c00", "c01"], "test": []}, "2 of 10 evaluated patients were used for training"),
        (
            {"validation": [f"c{k:02d}" for k in range(10)]},
            "10 of 10 evaluated patients were used to select the checkpoint",
        ),
    ],
)
def test_training_patients_are_warned_of_before_any_number(tmp_path, used, said):
    page = page_of(tmp_path, scores_of(TEN), {"part": "validation (fold 0)", "about": {"patients": used}})
    assert said in page.text
    assert page.source.index('class="warning"') < page.source.index("median Dice")
    assert said in json.loads((tmp_path / "summary.json").read_text())["warnings"][0]


def test_held_out_patients_need_no_warning(tmp_path):
    used = {"test": [f"c{k:02d}" for k in range(10)], "validation": [], "training": []}
    page = page_of(tmp_path, scores_of(TEN), {"about": {"patients": used}})
    assert 'class="warning"' not in page.source
    assert "10 patients held out" in page.text


def test_few_patients_and_unknown_roles_are_stated_as_limits(plain):
    limits = plain.text.split("Limits")[-1]
    assert "Only 10 patients" in limits
    assert "The role of these patients in training is unknown" in limits


def test_several_scans_per_patient_are_reported(tmp_path):
    rows = scores_of(TEN) + rows_of("again", "WT", 0.5, patient="c00")
    page = page_of(tmp_path, rows)
    assert "10 patients, 11 cases" in page.text
    assert "11 cases come from 10 patients" in page.text


def test_page_without_a_record_states_what_is_unknown(plain):
    text = plain.text
    assert "unknown: there is no evaluation.json" in text
    assert "it is unknown how these metrics were computed" in text


def test_a_table_with_little_in_it_still_makes_a_page(tmp_path):
    dice = [row for row in scores_of(TEN) if row[3] == "dice"]
    metrics = {"dice": "an overlap", "rand_f": "of pairs of pixels"}
    text = page_of(tmp_path, dice, {"definitions": {"metrics": metrics, "connectivity": "26"}}).text
    assert "an overlap" in text
    assert not any(unmeasured in text for unmeasured in ("of pairs of pixels", "Connectivity"))
    assert "Boundaries" not in text
    page_of(tmp_path / "one", rows_of("only", "WT", 0.8))


def test_missing_pictures_are_reported_with_a_command(plain):
    assert re.search(r"python -m bundle report \S+plain\d --datalist", plain.text)
    assert "WT: misses" in plain.text


def test_flat_pictures_are_measured_in_pixels(tmp_path):
    rows = [[*row[:5], "pixel" if row[5] else "", row[6]] for row in scores_of(TEN)]
    text = page_of(tmp_path, rows).text
    assert "true area, pixels" in text
    assert not re.search(r"\b(ml|mm)\b", text)


def test_lesions_by_volume_are_drawn_where_they_were_written(tmp_path):
    write(tmp_path, scores_of(TEN))
    lesion = {
        "case": "c00",
        "patient": "c00",
        "region": "WT",
        "lesion": 1,
        "volume": 0.5,
        "unit": "ml",
        "detected": 0,
        "dice": 0.0,
    }
    pd.DataFrame([lesion]).to_csv(tmp_path / "lesions.csv", index=False)
    report(str(tmp_path))
    assert "WT, lesions found: 0 of 1 of 0.1 to 1 ml." in Page(tmp_path / "report.html").text


def test_slices_are_shown_as_the_volumes_of_patients_too(tmp_path):
    write(tmp_path, rows_of("a", "WT", 0.81) + rows_of("b", "WT", 0.61)).joinpath("cases.csv").rename(
        tmp_path / "patients.csv"
    )
    slices = [row for p in "ab" for k in range(3) for row in rows_of(f"{p}{k}", "WT", 0.3 * k, patient=p)]
    text = page_of(tmp_path, slices).text
    assert "Dice by region, 2 patients as volumes" in text
    assert "0.710" in text.split("2 patients as volumes")[1].split("Every case")[0]


def test_empty_slices_do_not_hide_behind_a_median_of_one(tmp_path):
    rows = [row for k in range(5) for row in rows_of(f"empty{k}", "WT", 1, 0.0, note="absent")]
    text = page_of(tmp_path, rows + scores_of([0.6, 0.7, 0.8])).text
    assert "The median Dice is 1.00 for WT; without true negatives 0.70 for WT." in text
    assert re.search(r"without true negatives .region absent.*WT 3 0\.700", text)


def test_outlines_of_cells_have_no_section_on_lesions(tmp_path):
    rows = [row for row in scores_of(TEN) if not row[3].startswith("lesion")]
    assert "#lesions" not in page_of(tmp_path, rows).source


def test_metrics_that_the_page_does_not_know_are_not_dropped(tmp_path):
    extra = [[f"c{k:02d}", f"c{k:02d}", "WT", "rand_f", 0.9 + k / 1000, "", ""] for k in range(10)]
    assert re.search(r"WT Rand F 10 0\.905", page_of(tmp_path, scores_of(TEN) + extra).text, flags=re.IGNORECASE)


def test_comparison_is_on_the_page(tmp_path):
    write(tmp_path / "old", scores_of([d - 0.05 for d in TEN]))
    page = page_of(tmp_path / "new", scores_of(TEN), reference=str(tmp_path / "old"))
    assert "10 cases of 10 patients are in both." in page.text
    assert "of 10 patients, 10 have a higher Dice here and 0 a lower one" in page.text
    assert "This one is better on WT Dice (+0.050" in page.text


def test_error_costs_appear_on_the_page_and_in_the_terminal(tmp_path, capsys):
    rows = [*scores_of(TEN, "WT"), *scores_of(TEN, "ET"), *failed("lost", "wrong grid")]
    page = page_of(tmp_path, rows, weights="WT=1,ET=3", cost="fn=2,fp=1,ET:fn=5")
    own = page.text.split("User-defined scores")[2].split("Boundaries")[0]
    assert "1 case could not be scored: Dice 0, and an unknown cost, ranked highest" in own
    assert "each with its weight: WT 1, ET 3" in own
    assert "Lowest: lost 0.000, c00 0.100" in own
    assert re.search(r"ET 5 1 11 [\d.]+", own)
    assert re.search(r"total 11 .* ∞", own)
    assert re.search(r"lost ∞", own)
    assert "#own" in [anchor["href"] for anchor in page.all("a")]
    said = capsys.readouterr().out
    assert "weighted Dice (WT 1, ET 3): median 0.69" in said
    assert "worst 0.00 (lost)" in said
    assert re.search(r"cost, total: median [\d.]+ \([\d.]+ to [\d.]+\), largest ∞ points", said)


def test_reliability_curve_is_on_the_page_and_described_in_words(tmp_path):
    folder = write(tmp_path, scores_of(TEN, "WT"))
    cases = [f"c{k:02d}" for k in range(10)]
    rows = [[c, c, "WT", *own] for c in cases for own in ((0.0, 900, 0.01, 0.01), (0.8, 100, 0.8, 0.65))]
    tenths(folder, [*rows, ["c00", "c00", "WT", 0.5, 9, 0.55, 1.0]])  # the last are too few to say anything
    report(str(folder))
    page = Page(folder / "report.html")
    said = "WT, 10 patients: largest difference at a predicted probability of 0.80: observed 0.65, over-confident."
    assert said in page.text
    assert said in [svg["aria-label"] for svg in page.all("svg")]
    assert (
        "0.8 to 0.9: predicted 0.800, observed 0.650; 1000 voxels of 10 patients" in page.text
    )  # what a pointer shows
    assert "0.5 to 0.6: predicted 0.550, observed 1.000; 9 voxels of 1 patient" in page.text
    assert "WT 10 0.015 0.015 <0.001 0.800 0.650" in page.text
    assert "#calibration" in [anchor["href"] for anchor in page.all("a")]
    assert len(page.all("caption")) == len(page.all("table"))
    summary = json.loads((folder / "summary.json").read_text())
    jsonschema.validate(summary, json.loads(SCHEMA.read_text()))
    assert summary["reliability"]["WT"]["bins"][8]["voxels"] == 1000
    assert summary["reliability"]["WT"]["over"] == pytest.approx(0.015, abs=1e-4)


def test_page_without_probabilities_does_not_mention_them(plain):
    assert "#calibration" not in [anchor["href"] for anchor in plain.all("a")]
    assert "over-confident" not in plain.text


def test_two_hundred_cases_stay_small(tmp_path):
    dices = np.random.default_rng(0).beta(6, 2, 200).round(3).tolist()
    rows = [row for region in ("WT", "TC", "ET") for row in scores_of(dices, region)]
    page_of(tmp_path, rows)
    assert (tmp_path / "report.html").stat().st_size < 3e6  # eight patients in pictures add less than 5 MB


def test_the_terminal_shows_the_same_numbers(tmp_path, capsys):
    rows = [*scores_of(TEN), *failed("lost", "wrong grid"), *failed("[gone]")]
    write(tmp_path / "old", scores_of(TEN))
    scored = {"about": {"patients": {"training": ["c00"]}}}
    report(str(write(tmp_path / "new", rows, **scored)), title="[bold]T", reference=str(tmp_path / "old"))
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    console = Console(width=80, record=True, file=None, quiet=False)
    with console.capture() as captured:
        print_summary(summary, console)
    said = captured.get()
    assert said in capsys.readouterr().out
    dice = summary["regions"]["WT"]["metrics"]["dice"]
    assert "[bold]T: 12 cases of 12 patients" in said
    assert f"{dice['mean']:.2f} ({dice['mean_interval'][0]:.2f}-{dice['mean_interval'][1]:.2f})" in said
    assert "lost: wrong grid" in said
    assert "[gone]" in said
    assert "WARNING: 1 of 12 evaluated patients was used for training" in said
    table = said[: said.index("no prediction")]
    assert max(len(line.rstrip()) for line in table.splitlines()) < 80
    assert "0.66 (0.36-0.81)" in table  # on one line, not folded


def test_a_wrong_call_ends_in_one_sentence(tmp_path, capsys):
    for arguments, said in (
        (["report", str(tmp_path)], "has no cases.csv"),
        (["report", str(write(tmp_path / "x", scores_of(TEN))), "--dataset_dir", "."], "give --datalist as well"),
        (["report", str(tmp_path / "x"), "--weights", "XX=1"], "no region 'XX'"),
        (["report", str(tmp_path / "x"), "--cost", "3"], "expected a number per ml missed (fn) or added (fp)"),
        (["report", str(tmp_path / "x"), "--reference", str(tmp_path / "x")], "is given twice"),
        (["report", str(tmp_path / "x"), "--datalist", str(tmp_path / "none.json")], "none.json cannot be read"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1
        assert said in error[0]
    assert not (tmp_path / "x" / "report.html").exists()


def test_real_scans_are_shown(shared_data, tmp_path):
    scans = shared_data("brats2015")
    listed = tmp_path / "list.json"
    prepare(str(scans / "test"), out=str(listed), task="brats2015", folds=2, picture=False, workers=1)
    for entry in json.loads(listed.read_text())["training"]:
        image = nib.load(scans / "test" / entry["label"])
        (tmp_path / "masks").mkdir(exist_ok=True)
        shifted = np.roll(np.asarray(image.dataobj), 3, 0)
        nib.save(nib.Nifti1Image(shifted, image.affine), tmp_path / "masks" / f"{entry['case']}.nii.gz")
    where = {"datalist": str(listed), "dataset_dir": str(scans / "test")}
    score(str(tmp_path / "masks"), out=str(tmp_path / "scored"), workers=1, **where)
    report(str(tmp_path / "scored"), **where)
    page = Page(tmp_path / "scored" / "report.html")
    assert len(page.all("img")) == 12 + 3
    assert len({image["src"] for image in page.all("img")}) == 12 + 3
    assert max(len(image["src"]) for image in page.all("img")) < 100_000
