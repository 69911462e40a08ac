import shlex

from bundle.__main__ import main as front_door
from bundle.commands.phantom import phantom


def test_final_message_names_a_next_command_that_works(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    phantom("two words", cases=3, layout="brats2023", unlabelled=1, size=32, spacing=6.0)
    said = capsys.readouterr().out
    assert "3 synthetic cases and 1 without a label" in said
    command = shlex.split(said.partition("next: ")[2])
    assert command[:3] == ["python", "-m", "bundle"]
    front_door(command[3:])
    assert (tmp_path / "datalist.json").is_file()


def test_a_single_patient_is_not_advised_to_prepare(tmp_path, capsys):
    phantom(str(tmp_path / "one"), cases=1, size=32, spacing=6.0)
    said = capsys.readouterr().out
    assert "next: " not in said
    assert "--cases" in said
