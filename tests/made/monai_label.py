"""A real MONAI Label server of a package, and the requests of 3D Slicer."""

from __future__ import annotations

import contextlib
import email
import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import nibabel as nib
import numpy as np
import pytest

from tests.made import ROOT

ENVIRONMENT = Path(os.environ.get("MONAILABEL", ROOT / ".venv-monailabel"))
SET_UP = "bash tests/monailabel/environment.sh .venv-monailabel"
needs_server = [
    pytest.mark.monailabel,
    pytest.mark.slow(reason="starts a server, and trains"),
    pytest.mark.skipif(
        not (ENVIRONMENT / "bin" / "python").exists(), reason=f"no MONAI Label at {ENVIRONMENT}: make it by `{SET_UP}`"
    ),
]
MODALITIES = ("t1", "t1ce", "t2", "flair")


def one_thread() -> dict[str, str]:
    """The environment, in which the tests trust their own packages, with one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


class Served(NamedTuple):
    """A server that runs, and what it serves."""

    port: int
    name: str
    package: Path  # as it was exported
    models: Path  # of the server's copy
    patients: Path
    process: subprocess.Popen

    def ask(self, method: str, path: str, fields: dict[str, str] | None = None, files: dict[str, Path] | None = None):
        """What the server answers; `fields` and `files` go as a form, as 3D Slicer sends them."""
        return self._send(method, path, *form(fields or {}, files or {}))

    def post(self, path: str, content: Any):
        """What the server answers to JSON."""
        return self._send("POST", path, json.dumps(content).encode(), "application/json")

    def click(self, image: Path | str, label: str, annotator: str = "", **clicks: Any) -> tuple[Any, dict[str, Any]]:
        """The mask of a click, as an image of nibabel, and the `params` that come with it."""
        params = {"label": label, "client_id": annotator, "device": "cpu", "result_extension": ".nii.gz", **clicks}
        path = f"/infer/{self.name}_deepgrow?image={quote(str(image))}&output=all"
        answer = email.message_from_bytes(self.ask("POST", path, {"params": json.dumps(params)}))
        sent, mask = (part.get_payload(decode=True) for part in answer.get_payload())
        return nib.Nifti1Image.from_bytes(gzip.decompress(mask)), json.loads(sent)

    def infer(self, target: Path, image: str = "", **fields_and_files: Any) -> np.ndarray:
        """The mask of an image of the server, or of an uploaded one; kept as `target`."""
        params = json.dumps({"result_dtype": "uint8", "device": "cpu"})
        path = f"/infer/{self.name}?image={quote(image)}&output=image"
        target.write_bytes(self.ask("POST", path, {"params": params}, **fields_and_files))
        return voxels(target)

    def await_end(self, path: str) -> None:
        """Wait for a background task of the server."""
        while (task := self.ask("GET", path))["status"] in ("SUBMITTED", "RUNNING"):
            time.sleep(1)
        assert task["status"] == "DONE", "\n".join(task["details"])

    def refuse(self, image: str = "", model: str = "", files: dict[str, Path] | None = None, **params: Any):
        """The status and the content of the response to a request that is refused."""
        path = f"/infer/{model or self.name}?image={quote(image)}&output=image"
        status, _, content = self._request("POST", path, *form({"params": json.dumps(params)}, files or {}))
        return status, json.loads(content)

    def _send(self, method: str, path: str, body: bytes | None, kind: str):
        status, given, content = self._request(method, path, body, kind)
        assert status == 200, f"{method} {path}: {status} {content[:500]!r}"
        if given.startswith("multipart/"):
            return f"Content-Type: {given}\r\n\r\n".encode() + content
        return json.loads(content) if given == "application/json" else content

    def _request(self, method: str, path: str, body: bytes | None, kind: str) -> tuple[int, str, bytes]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)) as connection:
            connection.request(method, path, body, {"Content-Type": kind} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.getheader("content-type", ""), answer.read()


def form(fields: dict[str, str], files: dict[str, Path]) -> tuple[bytes | None, str]:
    """The body of a form, and its content type."""
    border, parts = uuid.uuid4().hex, []
    for key, value in fields.items():
        parts.append(f'--{border}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode())
    for key, file in files.items():
        head = f'--{border}\r\nContent-Disposition: form-data; name="{key}"; filename="{file.name}"\r\n\r\n'
        parts.append(head.encode() + file.read_bytes() + b"\r\n")
    body = b"".join([*parts, f"--{border}--\r\n".encode()]) if parts else None
    return body, f"multipart/form-data; boundary={border}"


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def run(*command: Any, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=cwd, env=one_thread(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def segment(package: Path, scan: Path, out: Path, *options: Any) -> Path:
    """The mask of the package's own `inferring`, run in the package."""
    run("monai.bundle", "run", "inferring", "--config_file", "configs/inference.yaml", "--input", scan.resolve(),
        "--output_dir", out, "--device", "cpu", *options, cwd=package)  # fmt: skip
    (mask,) = out.glob("*.nii.gz")
    return mask


@contextlib.contextmanager
def serve(package: Path, studies: Path, folder: Path, *options: Any) -> Iterator[Served]:
    """`bundle serve`, until Ctrl-C."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bundle", "serve", package, "--studies", studies, "--show", "FLAIR",
               "--port", port, "--monailabel", ENVIRONMENT, "--out", folder / "work", *options]  # fmt: skip
    told = folder / "told.txt"
    with told.open("w") as stream:
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=one_thread(), stdout=stream, stderr=stream)
    while "Ctrl-C ends it" not in told.read_text():
        assert process.poll() is None, told.read_text()
        time.sleep(0.5)
    models = folder / "work" / "apps" / "monaibundle" / "model" / package.name / "models"
    yield Served(port, package.name, package, models, studies, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)), "the server still listens after Ctrl-C"
