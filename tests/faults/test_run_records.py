"""A run's record cannot be made to lie: its data list, its patients, its weights and who trains in it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import run

from scripts.data.datalist import file_hash, read_datalist
from scripts.errors import input_error_message
from scripts.network.weights import NEW_MODEL, find_weights
from scripts.scoring.run import patient_roles, training_roles
from scripts.training.run_folder import RunFolder
from scripts.training.run_lock import lock_folder
from tests.made import ROOT, refused

PATIENT = "BraTS2021_00001"


@pytest.fixture
def begin(small_train, tmp_path):
    """Opens the folder of a run as training does, on a copy of the data list that the test may change."""

    def call(change=None, **settings) -> Path:
        config = small_train(opened="$@folder.open()", **settings)
        path = tmp_path / "list.json"
        if not path.is_file():
            shutil.copyfile(config["datalist"], path)
        content = json.loads(path.read_text())
        if change:
            change(content)
        path.write_text(json.dumps(content))
        config["datalist"] = str(path)
        config.get_parsed_content("opened")
        config.get_parsed_content("folder").close()
        return tmp_path / "run"

    return call


def message_of(function, *arguments, **options) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI's around ours
        function(*arguments, **options)
    message = input_error_message(caught.value)
    assert message is not None
    return message


# ---- data list and patients ----------------------------------------------------------------------------------------


def set_aside(content: dict) -> None:
    (entry,) = (entry for entry in content["training"] if entry["patient"] == PATIENT)
    del entry["fold"]
    entry["split"] = "test"


def other_fold(content: dict) -> None:
    next(entry for entry in content["training"] if entry["patient"] == PATIENT)["fold"] = 0


def other_file(content: dict) -> None:
    content["hashes"][next(iter(content["hashes"]))] = "0" * 64


def without_patient(content: dict) -> None:
    content["training"] = [entry for entry in content["training"] if entry["patient"] != PATIENT]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_aside, f"case {PATIENT} of patient {PATIENT} was in fold"),
        (other_fold, "and is in fold 0"),
        (other_file, "has another hash"),
        (without_patient, f"case {PATIENT} is gone"),
    ],
)
def test_resume_refuses_a_changed_data_list_and_names_the_change(begin, change, named):
    folder = begin()
    before = (folder / "environment.json").read_bytes()
    message = message_of(begin, change, resume=str(folder))
    assert "was trained on another data list" in message
    assert named in message
    assert (folder / "environment.json").read_bytes() == before


def test_the_same_data_list_written_otherwise_resumes(begin, tmp_path):
    folder = begin()
    path = tmp_path / "list.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=7))
    begin(resume=str(folder))


def test_a_resumed_run_keeps_the_patients_of_its_start(begin, tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "environment.json").write_text(
        json.dumps({"patients": {"training": ["A"], "validation": ["B"]}})
    )
    folder = begin(init_from=str(tmp_path / "first" / "model.pt"))
    begin(resume=str(folder))  # without init_from
    used = json.loads((folder / "environment.json").read_text())["patients"]
    assert {"A", "B", PATIENT} <= {*used["training"]}


def test_a_run_without_its_record_is_not_resumed(begin):
    folder = begin()
    (folder / "environment.json").unlink()
    assert "records which patients the run has used" in message_of(begin, resume=str(folder))


def test_weights_without_a_record_leave_roles_unknown(cohort, tmp_path):
    roles = training_roles(read_datalist(cohort.datalist), 0, tmp_path / "model.pt")
    assert roles["unrecorded"] == [str(tmp_path / "model.pt")]
    (tmp_path / "environment.json").write_text(json.dumps({"patients": roles}))
    assert patient_roles([tmp_path / "model.pt"], ["new"]) == {}
    assert patient_roles([tmp_path / "model.pt"], [PATIENT])["training"] == [PATIENT]


# ---- weights -------------------------------------------------------------------------------------------------------


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((3,), value)}


@pytest.fixture
def trained(tmp_path) -> Path:
    """The folder of a run that has kept weights twice."""
    folder = RunFolder(tmp_path / "trained", resume=False, settings={}, about={})
    for value in (1.0, 2.0):
        folder.keep_weights(weights(value), {"WT": value}, {"epoch": value})
    return folder.path


def found(folder: Path, **others) -> str:
    """What a workflow takes as weights, with the settings of a run laid over it."""
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    return find_weights(settings["checkpoint"], settings["checkpoint_sha256"], **others)


def test_settings_hold_path_and_hash_of_the_weights(trained):
    settings = yaml.safe_load((trained / "settings.yaml").read_text())
    model = (trained / "model.pt").as_posix()
    assert settings["checkpoint_sha256"] == {model: file_hash(model)}
    assert found(trained) == found(trained, run_dir=trained) == model


def test_a_copy_is_not_evaluated_with_the_originals_new_weights(trained, tmp_path):
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    assert found(copy) == (trained / "model.pt").as_posix()  # the same weights
    RunFolder(trained, resume=True, settings={}, about={}).keep_weights(weights(3.0), {}, {})
    assert "--run_dir" in refused(found, copy)
    (trained / "settings.yaml").unlink()
    assert "--run_dir" in refused(found, copy)
    shutil.rmtree(trained)
    assert "--run_dir" in refused(found, copy)
    assert found(copy, run_dir=copy) == (copy / "model.pt").as_posix()


def test_weights_of_another_run_in_its_place_are_refused(trained):
    torch.save(weights(9.0), trained / "model.pt")
    assert "its sha256 differs" in refused(found, trained)
    assert "its sha256 differs" in refused(found, trained, run_dir=trained)
    assert "its sha256 differs" in refused(find_weights, trained / "model.pt")  # without its settings, by init_from


def test_settings_of_one_run_refuse_the_folder_of_another(trained, tmp_path):
    other = RunFolder(tmp_path / "other", resume=False, settings={}, about={})
    other.keep_weights(weights(5.0), {}, {})
    assert "is of another run than the given settings" in refused(found, trained, run_dir=other.path)


def test_weights_in_another_form_may_be_given(trained, tmp_path):
    torch.save({"state_dict": weights(2.0)}, tmp_path / "other.pt")
    settings = yaml.safe_load((trained / "settings.yaml").read_text())
    assert find_weights(tmp_path / "other.pt", settings["checkpoint_sha256"]) == (tmp_path / "other.pt").as_posix()


@pytest.mark.parametrize("step", ["save_state", "write_settings", "complete_replacement", "none"])
def test_a_kill_while_weights_are_replaced_leaves_a_sound_run(trained, monkeypatch, step):
    class Killed(Exception):
        pass

    def kill(*_, **__):
        raise Killed

    target = RunFolder if step == "write_settings" else sys.modules[RunFolder.__module__]
    if step != "none":
        monkeypatch.setattr(target, step, kill)
    folder = RunFolder(trained, resume=True, settings={}, about={})
    with contextlib.suppress(Killed):
        folder.keep_weights(weights(3.0), {"WT": 3.0}, {"epoch": 3})
    monkeypatch.undo()
    value = float(torch.load(found(trained), weights_only=True)["weight"][0])
    assert value == (3.0 if step in ("complete_replacement", "none") else 2.0)
    assert yaml.safe_load((trained / "settings.yaml").read_text())["min_component_ml"]["WT"] == value
    assert (trained / NEW_MODEL).exists() == (step == "write_settings")


# ---- who trains ----------------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from scripts.training.run_lock import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_with_who_trains(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"locked\n"
    for _ in range(2):
        assert f"is in use by process {other.pid} of " in refused(lock_folder, tmp_path / "run")
    other.send_signal(signal.SIGKILL)
    other.wait()
    lock_folder(tmp_path / "run").release()


def test_leftovers_of_a_kill_are_cleared_by_the_next_start(begin):
    folder = begin()
    for name in (".writing-abc.pt", f".writing-elsewhere-{os.getpid()}-abc.pt"):
        (folder / name).write_bytes(b"half")
    begin(resume=str(folder))
    assert not list(folder.glob(".writing-*"))


# ---- as commands ---------------------------------------------------------------------------------------------------


def test_a_moved_run_is_evaluated_and_segments(package, cohort, tmp_path, at_root):
    moved = Path(shutil.copytree(package.parents[1] / "run", tmp_path / "moved"))
    files = ["configs/inference.yaml", str(moved / "settings.yaml")]
    given = {"input": str(cohort.dataset_dir), "output_dir": str(tmp_path / "out"), "device": "cpu"}
    run("inferring", config_file=files, run_dir=str(moved), **given)
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 5
