"""The folder of a MONAI Label server, and the message when a server exits."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.packaging import monai_label_server as servers
from scripts.errors import InputError

PATTERNS = {name: [f"{{case}}/{{case}}_{name.lower()}.nii*"] for name in ("T1", "FLAIR")}


@pytest.fixture
def prepare(package, patients, tmp_path):
    """Makes the server's folder, as if MONAI Label had made its app in it."""
    (tmp_path / "work" / "apps" / "monaibundle").mkdir(parents=True)

    def make(shown=None, source=package, names=None) -> servers.ServerFolder:
        folder = servers.prepare_folder(tmp_path / "work", source, Path(sys.executable), patients)
        servers.link_scans(folder, shown or {}, names)
        return folder

    return make


def test_unreadable_studies_are_refused(patients):
    patients.chmod(0)
    root = os.geteuid() == 0  # who may read everything
    try:
        if root:
            os.seteuid(65534)
        with pytest.raises(InputError, match="cannot be read"):
            servers.find_scans(patients, ["T1"], {}, None)
    finally:
        if root:
            os.seteuid(0)
        patients.chmod(0o755)


def test_each_scan_is_linked_and_the_scan_folder_stays_unchanged(prepare, patients):
    before = sorted(patients.rglob("*"))
    linked = prepare(servers.find_scans(patients, list(PATTERNS), PATTERNS, "FLAIR")).studies
    assert {path.name: path.resolve().name for path in linked.iterdir()} == {
        "BraTS2021_00000.nii.gz": "BraTS2021_00000_flair.nii.gz",
        "BraTS2021_00001.nii.gz": "BraTS2021_00001_flair.nii.gz",
    }
    assert sorted(patients.rglob("*")) == before


def test_removed_scan_is_unlinked_but_its_label_stays(prepare, patients):
    linked = prepare({"A": patients / "A.nii.gz", "B": patients / "B.nii.gz"}).studies
    (linked / "labels").mkdir()
    prepare({"B": patients / "B.nii.gz"})
    assert sorted(path.name for path in linked.iterdir()) == ["B.nii.gz", "labels"]


def test_numbered_scans_are_found_by_their_own_names(prepare, patients):
    shown = servers.find_scans(patients, list(PATTERNS), PATTERNS, "FLAIR")
    folder = prepare(shown, names={"BraTS2021_00000": "002_BraTS2021_00000", "BraTS2021_00001": "001_BraTS2021_00001"})
    scans = sorted(path.name for path in folder.studies.glob("*.nii.gz"))
    assert scans == ["001_BraTS2021_00001.nii.gz", "002_BraTS2021_00000.nii.gz"]
    assert (folder.names / "BraTS2021_00001").samefile(patients / "BraTS2021_00001")
    assert not [*prepare(shown).names.iterdir()]


def test_fine_tuned_weights_are_kept_and_another_package_is_refused(prepare, package, tmp_path):
    copy = prepare().model
    (copy / "models" / "model.pt").write_bytes(b"tuned")
    assert prepare().model == copy
    assert (copy / "models" / "model.pt").read_bytes() == b"tuned"
    assert (package / "models" / "model.pt").read_bytes() != b"tuned"
    other = shutil.copytree(package, tmp_path / package.name)
    (other / "LICENSE").write_text("another")
    with pytest.raises(InputError, match="serves another package of the name"):
        prepare(source=other)


def test_server_that_exits_at_once_shows_its_log_tail(tmp_path):
    log = tmp_path / "server.log"
    log.write_text("first\nImportError: no module named pydicom_seg\n")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.raises(InputError, match="no module named pydicom_seg"):
        servers.wait_for_answer(ended, 9, ["x"], log)


PRETENDER = f"""#!{sys.executable}
import http.server, json, sys
class Info(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200), self.end_headers()
        models = {{sys.argv[sys.argv.index("models") + 1]: {{"labels": {{}}}}}}
        self.wfile.write(json.dumps({{"models": models, "datastore": {{"total": 2}}}}).encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Info).serve_forever()
"""


def test_server_is_awaited_and_ends_with_its_block(prepare, package, tmp_path):
    python = tmp_path / "python"
    python.write_text(PRETENDER)
    python.chmod(0o755)
    with socket.socket() as probe:
        probe.bind((servers.HOST, 0))
        port = probe.getsockname()[1]
    folder = prepare()
    with servers.running_server(folder, python, port, [package.name]) as server:
        info = servers.wait_for_answer(server, port, [package.name], folder.log)
        assert server.poll() is None
    assert info["datastore"]["total"] == 2
    assert server.poll() is not None
