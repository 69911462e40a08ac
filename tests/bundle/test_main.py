"""Invalid command lines end in one sentence before anything is written."""

import json
import shutil

import pytest

from bundle.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "old", "new", "--out"], "--out has no value"),
        (["publish", "package", "--to", "--url", "https://example.org"], "--out has no value"),
        (["export", "run", "--formats", "ts", "pt2"], "'pt2' is one word too many for export"),
        (["report", "scored", "--title", "Two", "words"], "'words' is one word too many for report"),
        (
            ["score", "masks", "other", "--datalist", "list.json", "--out", "x"],
            "'other' is one word too many for score",
        ),
        (["export", "run", "--cases", "two"], "--cases is 'two'"),
        (["raters", "anna", "ben", "--workers", "many"], "--workers is 'many'"),
        (["raters", "anna", "ben", "--workers", "0"], "--workers is '0'"),
        (["reprot", "scored"], "did you mean report"),
    ],
)
def test_invalid_command_line_writes_nothing(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["publish", "missing", "--to", "zoo", "--dry_run"],
        ["publish", "missing", "--nodry-run", "--to=zoo"],
        ["publish", "--package", "missing", "--to", "zoo"],
    ],
)
def test_flags_and_options_with_equals_signs_are_valid(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "package missing does not exist" in capsys.readouterr().err


def test_renamed_option_is_accepted_with_a_note(capsys):
    with pytest.raises(SystemExit):
        main(["publish", "missing", "--to", "zoo"])
    said = capsys.readouterr().err
    assert "note: --to of publish is now --out." in said
    assert "package missing does not exist" in said


def test_json_alone_is_on_stdout_and_can_be_read(cohort, tmp_path, capsys):
    where = ["--datalist", str(cohort.datalist), "--dataset_dir", str(cohort.dataset_dir)]
    masks = tmp_path / "masks"
    masks.mkdir()
    for label in cohort.dataset_dir.glob("*/*_seg.nii.gz"):
        shutil.copy(label, masks / label.name)

    def numbers(*arguments: object) -> object:
        capsys.readouterr()
        main([*map(str, arguments), "--json"])
        return json.loads(capsys.readouterr().out)

    made = numbers("prepare", cohort.dataset_dir, "--out", tmp_path / "list.json", "--folds", 2, "--allow_unlabelled")
    assert [part["name"] for part in made["parts"]][:2] == ["fold 0", "fold 1"]
    for name in ("first", "second"):
        (rows,) = numbers("score", masks, "--out", tmp_path / name, "--workers", 1, *where).values()
        assert [row["median"] for row in rows] == [1, 1, 1]
    assert numbers("report", tmp_path / "first")["cases"] == 4
    assert numbers("compare", tmp_path / "first", tmp_path / "second", "--out", tmp_path / "c")["patients"] == 4
    assert numbers("raters", masks, shutil.copytree(masks, tmp_path / "ben"), "--out", tmp_path / "r")["images"]
