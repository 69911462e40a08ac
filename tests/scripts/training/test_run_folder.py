"""The run folder: what it records, how it is resumed, and that no other run writes into it."""

import json

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from scripts.errors import input_error_message
from scripts.training.run_folder import MAY_DIFFER, RunFolder, describe_environment


def open_folder(path, resume: bool = False, writes: bool = True, **settings) -> None:
    """Open the folder from a config, as the workflow does."""
    ConfigParser(
        {
            "learning_rate": 0.1,
            "borrowed": "%learning_rate",
            "resume": resume,
            **settings,
            "folder": {
                "_target_": "scripts.training.run_folder.RunFolder",
                "path": str(path),
                "resume": "@resume",
                "settings": {"channels": ["T1", "Ödem"], "spacing": None},
                "about": {"seed": 7, "device": "$__import__('torch').device('cpu')"},
                "writes": writes,
            },
            "open": "$@folder.open()",
        }
    ).get_parsed_content("open")


def refused(path, **others) -> str:
    with pytest.raises(RuntimeError) as caught:  # MONAI's, around ours
        open_folder(path, **others)
    message = input_error_message(caught.value)
    assert message is not None
    return message


def test_a_run_leaves_its_config_resolved(tmp_path):
    open_folder(tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert config["borrowed"] == 0.1
    assert config["folder"]["settings"]["channels"] == ["T1", "Ödem"]


def test_a_run_leaves_versions_machine_seed_and_code(tmp_path, at_root):
    open_folder(tmp_path / "run")
    about = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert about["versions"]["torch"] == torch.__version__
    assert about["versions"].keys() == {"torch", "monai", "ignite", "nibabel", "numpy"}
    assert (about["seed"], about["device"]) == (7, "cpu")
    assert about["python"].startswith("3.")
    assert "started" in about


def test_code_is_identified_by_its_revision(at_root):
    if not (at_root / ".git").exists():
        pytest.skip("this copy of the repository has no git history")
    about = describe_environment()
    assert len(about["git"]) == 40
    assert isinstance(about["git_changes"], bool)


def test_training_works_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert describe_environment()["git"] is None


def test_settings_are_saved_before_the_first_validation(tmp_path):
    open_folder(tmp_path / "run")
    config = ConfigParser()
    config.read_config(str(tmp_path / "run" / "settings.yaml"))
    assert config["channels"] == ["T1", "Ödem"]
    assert config["spacing"] is None
    assert config["min_component_ml"] == {}
    assert config["checkpoint"] == (tmp_path / "run" / "model.pt").as_posix()


def test_folder_of_another_run_is_left_unchanged(tmp_path):
    open_folder(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    message = refused(tmp_path / "run")
    assert "already holds files: choose another folder" in message
    assert f"--resume {tmp_path / 'run'}" in message
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "run").mkdir()
    open_folder(tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_existing_file_of_that_name_is_left_unchanged(tmp_path):
    (tmp_path / "run").write_text("precious")
    assert "already holds files" in refused(tmp_path / "run")
    assert (tmp_path / "run").read_text() == "precious"


def test_folder_that_cannot_be_created_ends_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(tmp_path / "file" / "run")


def test_folder_without_a_run_cannot_be_resumed(tmp_path):
    assert "holds no run to resume" in refused(tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_resumed_run_uses_its_own_config_and_keeps_choices(tmp_path):
    open_folder(tmp_path / "run", max_epochs=5)
    (tmp_path / "run" / "settings.yaml").write_text("chosen: before\n")
    open_folder(tmp_path / "run", resume=True, max_epochs=9)
    assert (tmp_path / "run" / "settings.yaml").read_text() == "chosen: before\n"


@pytest.mark.parametrize("change", [{"learning_rate": 0.2}, {"batch_size": 4}])
def test_a_run_is_not_resumed_with_another_config(tmp_path, change):
    open_folder(tmp_path / "run")
    message = refused(tmp_path / "run", resume=True, **change)
    assert "was started with other values of" in message
    assert next(iter(change)) in message


@pytest.mark.parametrize(("git", "revision"), [("0123456789abcdef", "revision 0123456"), (None, "an unknown revision")])
def test_run_whose_parts_have_moved_names_its_revision(tmp_path, git, revision):
    open_folder(tmp_path / "run")
    config = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(config.replace("training.run_folder", "folders"))
    (tmp_path / "run" / "environment.json").write_text(json.dumps({"git": git}))
    message = refused(tmp_path / "run", resume=True)
    assert f"was made at {revision} by an earlier version whose parts have moved: check out that" in message


@pytest.mark.parametrize("setting", [name for name in MAY_DIFFER if name != "resume"])  # which differs by itself
def test_a_run_may_be_resumed_elsewhere_or_for_longer(tmp_path, setting):
    open_folder(tmp_path / "run", **{setting: 1})
    open_folder(tmp_path / "run", resume=True, **{setting: 2})


def test_run_can_be_extended_but_not_with_another_network(small_train, tmp_path):
    def begin(**settings) -> None:
        small_train(opened="$@folder.open()", **settings).get_parsed_content("opened")

    begin()
    begin(resume=str(tmp_path / "run"), max_epochs=5, num_workers=1, cache="disk")
    with pytest.raises(RuntimeError) as caught:  # MONAI's, around ours
        begin(resume=str(tmp_path / "run"), filters=[4, 4, 4])
    assert "other values of filters" in input_error_message(caught.value)


def test_one_of_several_processes_writes_while_the_others_wait(tmp_path, in_two_processes):
    def there(rank: int) -> bool:
        open_folder(tmp_path / "run", writes=rank == 0)
        return (tmp_path / "run" / "config.yaml").is_file()

    assert in_two_processes(there) == [True, True]


def test_a_process_that_does_not_write_leaves_nothing(tmp_path):
    open_folder(tmp_path / "run", writes=False)
    assert not (tmp_path / "run").exists()


def test_choices_are_recorded_for_people_and_for_the_config(tmp_path, small_train):
    folder = small_train().get_parsed_content("folder")
    folder.write_settings(min_component_ml={"ET": 0.05}, chosen={"epoch": 12, "score": 0.8})
    text = (folder.path / "settings.yaml").read_text(encoding="utf-8")
    assert '# Selected on the validation cases: {"epoch": 12, "score": 0.8}' in text
    assert "configs/evaluate.yaml" in text
    assert yaml.safe_load(text)["min_component_ml"] == {"ET": 0.05}


def test_opening_outside_of_a_config_is_reported_as_a_bug(small_train):
    folder = small_train().get_parsed_content("folder")
    with pytest.raises(RuntimeError, match="outside a config"):
        folder.open()


def folder(path, resume: bool = False, writes: bool = True) -> RunFolder:
    return RunFolder(path, resume=resume, settings={"statistics": None}, about={}, writes=writes)


def test_data_dependent_settings_are_computed_once_and_passed_to_inference(tmp_path):
    first = folder(tmp_path)
    assert first.measure_once("statistics", lambda: {"T1": [0.5, 2.0]}) == {"T1": [0.5, 2.0]}
    first.write_settings(min_component_ml={"WT": 0.1}, chosen=None)  # a later validation
    settings = yaml.safe_load((tmp_path / "settings.yaml").read_text())
    assert settings["statistics"] == {"T1": [0.5, 2.0]}
    assert settings["min_component_ml"] == {"WT": 0.1}


def test_resumed_run_keeps_its_statistics_and_later_choices(tmp_path):
    first = folder(tmp_path)
    first.measure_once("statistics", lambda: 1.0)
    first.write_settings(min_component_ml={"WT": 0.1}, chosen=None)
    assert folder(tmp_path, resume=True).measure_once("statistics", lambda: pytest.fail("measured again")) == 1.0
    assert yaml.safe_load((tmp_path / "settings.yaml").read_text())["min_component_ml"] == {"WT": 0.1}


def test_a_process_that_does_not_write_measures_for_itself(tmp_path):
    assert folder(tmp_path / "run", writes=False).measure_once("statistics", lambda: 2.0) == 2.0
    assert not (tmp_path / "run").exists()
