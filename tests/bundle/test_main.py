"""Invalid command lines end in one sentence before anything is written."""

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
