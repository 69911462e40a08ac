"""The `compare` command: its page, plot and numbers agree, and what cannot be compared is refused."""

import json
import re
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from bundle.__main__ import main
from bundle.commands.compare import compare, name_systems, print_comparison
from bundle.reporting.words import MINUS
from tests.made import ROOT, Page, cohort, failed, rows_of, write

SCHEMAS = ROOT / "bundle/reporting"
SCHEMA = json.loads((SCHEMAS / "compare.schema.json").read_text())
RNG = np.random.default_rng(11)
DICES = RNG.beta(8, 3, 16).clip(0.2, 0.8)
SCORED = {"datalist": "d" * 64, "definitions": {"metrics": {"dice": "an overlap"}}}


def system(shift: float, spread: float = 0.02, extra: tuple = ()) -> list:
    """Sixteen patients with two regions, about so much better than `DICES`."""
    own = [(DICES + RNG.normal(shift, spread, 16)).clip(0, 1).tolist() for _ in range(2)]
    return cohort(own[0], "WT") + cohort(own[1], "ET") + [row for rows in extra for row in rows]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three systems: plain, clearly better, and one with a failed and a missed tumour and a patient of its own."""
    folder = tmp_path_factory.mktemp("three")
    write(folder / "plain", system(0.0), **SCORED)
    roles = {"about": {"patients": {"training": ["c00"]}}}
    write(folder / "better", system(0.08), **SCORED, **roles)
    rows = [row for row in system(-0.02) if row[0] not in ("c03", "c04")]
    rows += rows_of("c03", "WT", 0, 40.0, note="missed") + rows_of("c03", "ET", 0, 40.0, note="missed")
    rows += failed("c04", "wrong grid") + rows_of("alone", "WT", 0.5) + rows_of("alone", "ET", 0.5)
    write(folder / "worse", rows, **SCORED)
    where = [str(folder / name) for name in ("plain", "better", "worse")]
    compare(*where, out=str(folder / "out"), weights="WT=1,ET=2", cost="fn=2,fp=1")
    return folder


@pytest.fixture(scope="module")
def two(three):
    compare(str(three / "plain"), str(three / "better"), out=str(three / "pair"), names=("old", "new"), metrics="dice")
    return three / "pair"


def test_the_numbers_are_of_the_documented_form(three, two):
    for folder in (three / "out", two):
        text = (folder / "compare.json").read_text()
        assert not re.search(r"\b(NaN|Infinity)\b", text)
        jsonschema.validate(json.loads(text), SCHEMA)


def test_the_page_says_what_the_numbers_say(two):
    found, page = json.loads((two / "compare.json").read_text()), Page(two / "compare.html")
    pair = found["pairs"][0]
    assert (pair["first"], pair["second"]) == ("old", "new")
    assert pair["verdict"].startswith("new is better on WT Dice (+0.0")
    assert pair["verdict"] in page.text
    assert "Only 16 patients" in page.text
    assert "better in 16, equal in 0 and worse in 0 of 16" in " ".join(svg["aria-label"] for svg in page.all("svg"))
    for row in pair["differences"]:
        assert row["gained"][0]["patient"] in page.text.split("Patients that changed most")[1]


def test_identical_systems_get_a_sentence_and_no_empty_table(tmp_path):
    rows = system(0.0)
    folders = [str(write(tmp_path / name, rows, **SCORED)) for name in ("one", "other")]
    compare(*folders, out=str(tmp_path / "out"))
    page = Page(tmp_path / "out/compare.html")
    assert "one and other have identical scores in every patient." in page.text
    assert "Patients that changed most" not in page.text
    assert "<tbody>\n</tbody>" not in page.source


def test_three_systems_are_ranked_on_the_page(three):
    page, found = Page(three / "out/compare.html"), json.loads((three / "out/compare.json").read_text())
    assert found["ranking"]["verdict"] in page.text
    assert "better is first in" in page.text
    assert [pair["second"] + pair["first"] for pair in found["pairs"]] == ["betterplain", "worseplain", "worsebetter"]
    assert "better against plain" in page.text
    assert "Weighted Dice all" in page.text


def test_excluded_cases_and_patients_are_reported(three):
    page, found = Page(three / "out/compare.html"), json.loads((three / "out/compare.json").read_text())
    assert found["systems"][2]["failed"] == {"c04": "wrong grid"}
    assert found["unpaired"]["worse"]["patients"] == ["alone"]
    assert "1 case failed: c04" in page.text
    assert "not in every system: 1 patient (alone)" in page.text
    hd95 = found["pairs"][1]["differences"][2]
    assert (hd95["metric"], hd95["mean"], hd95["lost"][0]["change"]) == ("hd95", None, "inf")
    cost = found["pairs"][1]["differences"][-1]
    assert {who["patient"] for who in cost["lost"] if who["second"] == "inf"} == {"c04"}


def test_patients_used_in_training_are_warned_of_before_any_number(three):
    page = Page(three / "out/compare.html")
    assert "better: 1 of 16 evaluated patients was used for training" in page.text
    assert page.source.index('class="warning"') < page.source.index("By mean rank")


def test_page_is_self_contained_and_readable_by_screen_readers(three):
    page = Page(three / "out/compare.html")
    assert not page.all("link")
    assert not [a for a in page.all("script") if "src" in a]
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {anchor["href"][1:] for anchor in page.all("a")} <= ids
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(header.get("scope") for header in page.all("th"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))


def test_every_patient_has_a_named_dot_even_for_infinite_differences(three):
    source = (three / "out/compare.html").read_text()
    assert "<title>c03: +∞</title>" in source
    assert len(set(re.findall(rf"<title>(c\d\d): [+{MINUS}]?\d", source))) == 16


def test_the_plot_is_a_picture(three):
    with Image.open(three / "out/compare.png") as picture:
        assert picture.width > picture.height > 500
        assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_the_same_evaluations_give_the_same_bytes(three, two, tmp_path):
    compare(str(three / "plain"), str(three / "better"), out=str(tmp_path), names="old,new", metrics="dice")
    for name in ("compare.html", "compare.json"):
        assert (tmp_path / name).read_bytes() == (two / name).read_bytes()


def test_names_from_folders_cannot_become_markup(three, tmp_path):
    nasty = "<b>x</b>&$1"
    compare(str(three / "plain"), str(three / "better"), out=str(tmp_path), names=["[red]old", nasty], metrics="dice")
    page = Page(tmp_path / "compare.html")
    assert not page.all("b") or "<b>x</b>" not in page.source
    assert nasty in page.text


def test_the_terminal_shows_the_same_in_eighty_columns(two):
    found = json.loads((two / "compare.json").read_text())
    console = Console(width=80)
    with console.capture() as captured:
        print_comparison(found, console)
    said = captured.get()
    assert found["pairs"][0]["verdict"] in said
    assert "16/0/0" in said
    assert re.search(r"WT Dice +0\.\d{3} +0\.\d{3} +\+0\.0\d\d \[0\.0\d\d, 0\.\d{3}\] +16/0/0 +<?0\.\d{3}", said)


def test_folders_are_named_by_their_differing_parts():
    runs = [Path("/runs/first/evaluation"), Path("/runs/second/evaluation")]
    assert name_systems(runs) == ["first", "second"]
    assert name_systems([Path("/x/old"), Path("/y/new")]) == ["old", "new"]


def calls(folder: Path):
    rows = cohort([0.5, 0.6, 0.7])
    a, b = (str(write(folder / name, rows, datalist="a" * 64)) for name in "ab")
    other = str(write(folder / "other", rows, datalist="b" * 64))
    single = str(write(folder / "single", rows_of("c00", "WT", 0.5, 10.0)))
    nonsense = str(shutil.copytree(folder / "a", folder / "nonsense"))
    path = Path(nonsense, "cases.csv")
    path.write_text(path.read_text().replace("WT,dice,0.5", "WT,dice,fifty"))
    return {
        "one system": ([a], "give two or more evaluations"),
        "no system": ([], "give two or more evaluations"),
        "the same twice": ([a, a], "is given twice"),
        "other lists": ([a, other], "different data lists"),
        "one patient": ([a, single], "one patient in common"),
        "nonsense": ([a, nonsense], "a value that is not a number"),
        "no table": ([a, str(folder)], "has no cases.csv"),
        "too few names": ([a, b, "--names", "x"], "expected 2 different ones"),
        "equal names": ([a, b, "--names", "x,x"], "expected 2 different ones"),
        "weights": ([a, b, "--weights", "XX=1"], "no region 'XX'"),
        "cost": ([a, b, "--cost", "2"], "expected a number per ml missed"),
        "metrics": ([a, b, "--metrics", "volume_truth"], "no metric 'volume_truth' to compare"),
    }


def test_a_wrong_call_ends_in_one_sentence_and_writes_nothing(tmp_path, capsys):
    for name, (arguments, said) in calls(tmp_path / "given").items():
        with pytest.raises(SystemExit) as stop:
            main(["compare", *arguments, "--out", str(tmp_path / "out")])
        assert stop.value.code == 2, name
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1, name
        assert said in error[0], name
    assert not (tmp_path / "out").exists()


def test_long_names_fit_eighty_columns_and_hide_no_number(tmp_path):
    rows = [cohort((DICES + shift).tolist(), "non-enhancing_tumour_core") for shift in (0, 0.05)]
    names = ("a_system_with_a_long_name", "another_system_of_long_name")
    folders = [str(write(tmp_path / name, own, **SCORED)) for name, own in zip(names, rows, strict=True)]
    compare(*folders, out=str(tmp_path / "out"))
    console = Console(width=80)
    with console.capture() as captured:
        print_comparison(json.loads((tmp_path / "out/compare.json").read_text()), console)
    table = captured.get().split("another_system_of_long_name is")[0]
    assert "…" not in table
    assert "p, Holm" in table
    assert re.search(r"\d/16 +\d/16 ", table)
