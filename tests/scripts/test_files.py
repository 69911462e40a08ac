"""A killed run or a full disk leaves the old file or none."""

import json
import os
import stat

import pytest

from scripts.errors import InputError
from scripts.files import atomic_write, write_json, write_text


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_gets_its_content_and_the_folder_is_made(tmp_path):
    write_text(tmp_path / "new" / "folder" / "a.txt", "Ödem\n")
    assert (tmp_path / "new" / "folder" / "a.txt").read_bytes() == "Ödem\n".encode()
    assert names(tmp_path / "new" / "folder") == ["a.txt"]


@pytest.mark.parametrize(("name", "ending"), [("a.nii.gz", ".nii.gz"), ("a.pt", ".pt"), ("v1.2.json", ".json")])
def test_the_temporary_name_keeps_the_ending_that_writers_go_by(tmp_path, name, ending):
    with atomic_write(tmp_path / name) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(ending)
        assert temporary.name != name


def test_concurrent_reader_reads_the_old_file_to_its_end(tmp_path):
    path = tmp_path / "cases.csv"
    write_text(path, "old, and long enough")
    with open(path, "rb", buffering=0) as reader:
        assert reader.read(3) == b"old"
        write_text(path, "new")
        assert reader.read() == b", and long enough"
    assert path.read_text() == "new"


def test_full_disk_leaves_the_old_file_and_no_temporary_one(tmp_path, full_disk):
    path = tmp_path / "cases.csv"
    write_text(path, "old")
    with full_disk(10), pytest.raises(InputError, match=r"cases\.csv cannot be written .*free space there"):
        write_text(path, "x" * 1000)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["cases.csv"]


def test_file_in_place_of_folders_is_not_called_full_disk(tmp_path):
    write_text(tmp_path / "text.txt", "a file")
    with pytest.raises(InputError, match=r"cannot be written \(.*\): choose another folder") as refused:
        write_text(tmp_path / "text.txt" / "cases.csv", "x")
    assert "free space" not in str(refused.value)


def test_disk_failing_on_flush_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "cases.csv"
    write_text(path, "old")

    def fails(_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(InputError, match="No space left on device"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["cases.csv"]


def test_run_stopped_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("old")

    def write_and_stop():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["model.pt"]


def test_folder_that_cannot_be_created_ends_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"out\.txt cannot be written .*choose another folder"):
        write_text(tmp_path / "file" / "below" / "out.txt", "x")


def test_others_may_read_a_result_as_any_other_file(tmp_path):
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_json_is_readable_by_people_and_programs(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Ödem", "values": [1, 2]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"name": "Ödem", "values": [1, 2]}
    assert "Ödem" in text
    assert text.count("\n") > 3
