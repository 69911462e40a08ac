"""How does a package reach the screen of who draws? The `serve` command: a real MONAI Label server, on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scripts.data import pictures
from scripts.errors import InputError

HOST = "127.0.0.1"  # MONAI Label asks nobody for a password
TESTED = "0.8.5"
SET_UP = "bash tests/monailabel/environment.sh .venv-monailabel"
PATIENCE = 180  # seconds to the first answer; 10 to 20 are usual
MANNERS = 15  # seconds that the server gets to end by itself


def serve(
    package: str,
    studies: str,
    port: int = 8000,
    monailabel: str | None = None,
    show: str | None = None,
    work: str | None = None,
) -> None:
    """Serve an exported package by MONAI Label, so that 3D Slicer shows its masks and trains it on corrected ones.

    Nothing is installed, and neither the package nor the scans are changed: the server works on a copy of the package
    and on links to the scans, in a folder that is kept. So labels and fine-tuned weights are there at the next start.
    Only this machine can reach it. Ctrl-C ends it. docs/monai-label.md leads from a package to a mask in Slicer.

    Examples:
        python -m bundle serve dist/brats-1.0.0 --studies /data/new_patients --monailabel .venv-monailabel
        python -m bundle serve dist/brats-1.0.0 --studies /data/new_patients --show FLAIR --port 8001

    Args:
        package: the folder that `python -m bundle export` made.
        studies: a folder of patients, as `--input` of the inference workflow takes it.
        port: where the server listens.
        monailabel: the virtual environment with MONAI Label, or its python; by default this python, or the `monailabel`
            on the PATH.
        show: the channel that Slicer shows; the first one by default. The network gets all of them.
        work: the folder of the server; by default runs/served/<package>.
    """
    from bundle.packaging import check

    source = Path(str(package))
    check.check(source)
    source = source.resolve()
    knobs = yaml.safe_load((source / "configs" / "inference.yaml").read_text(encoding="utf-8"))
    scans = _scans(Path(str(studies)), knobs, show)
    python = _python(monailabel)
    _require_free(port)
    folder = Path(str(work)) if work else Path("runs", "served", source.name)
    try:
        app, model = _app(python, folder.resolve(), source)
        shown = _link(scans, Path(str(studies)).resolve(), folder.resolve())
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error}): give another folder with --work.") from error

    log = folder.resolve() / "server.log"
    print(f"starting MONAI Label with {source.name}, its log is {log} ...", flush=True)
    with _server(python, app, shown, source.name, port, log) as server:
        info = _wait(server, port, source.name, log)
        _tell(port, info, source.name, shown, model)
        server.wait()
        raise InputError(f"MONAI Label ended by itself; the end of {log}:\n{_tail(log)}")


def _scans(studies: Path, knobs: Mapping[str, Any], show: str | None) -> dict[str, Path]:
    """Case to the file that Slicer shall show of it; beside that file the other channels are found."""
    from scripts.inference.scans import scans

    channels = knobs["channels"]
    if show is not None and show not in channels:
        raise InputError(f"--show is {show}: the channels are {', '.join(channels)}.")
    try:
        if not studies.is_dir():
            raise InputError(
                f"studies folder {studies} does not exist: give the folder that holds the patients' scans."
            )
        next(studies.iterdir(), None)
    except OSError as error:
        raise InputError(f"studies folder {studies} cannot be read ({error.strerror}): change its rights.") from error
    place = channels.index(show) if show else 0
    found = scans(studies, channels, knobs["channel_files"])
    images = {case["case"]: case["image"] for case in found}
    shown = {case: Path(image if isinstance(image, str) else image[place]) for case, image in images.items()}
    if flat := next((file for file in shown.values() if pictures.is_picture(file)), None):
        raise InputError(f"{flat} is a picture: `serve` is for volumes, such as NIfTI files.")
    return shown


def _python(given: str | None) -> Path:
    """The python that has MONAI Label."""
    on_path = shutil.which("monailabel")
    if given is not None:
        candidates = [Path(str(given)), Path(str(given), "bin", "python"), Path(str(given), "Scripts", "python.exe")]
    else:
        candidates = [Path(sys.executable), *([Path(on_path).with_name("python")] if on_path else [])]
    ask = "from importlib.metadata import version; print(version('monailabel'))"
    for python in candidates:
        if python.is_file() and os.access(python, os.X_OK):
            answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
            if answer.returncode == 0:
                if (version := answer.stdout.strip()) != TESTED:
                    print(f"note: {python} has MONAI Label {version}; this was tried with {TESTED}.")
                return python.absolute()
    raise InputError(
        f"there is no MONAI Label in {given or 'this environment'}: make one (3 GB) by `{SET_UP}`, and add --monailabel"
        f" {SET_UP.split()[-1]}."
    )


def _require_free(port: int) -> None:
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise InputError(f"--port is {port}: give a whole number from 1 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(f"port {port} cannot be taken ({error.strerror}): give another one by --port.") from error


def _app(python: Path, folder: Path, package: Path) -> tuple[Path, Path]:
    """MONAI Label's app for bundles, and the copy of the package in it; made once, since training writes into it."""
    app = folder / "apps" / "monaibundle"
    model, mark = app / "model" / package.name, folder / "package.sha256"
    if model.is_dir():
        if mark.read_text(encoding="utf-8") != _fingerprint(package):
            raise InputError(
                f"{folder} serves another package of the name {package.name}: remove it with its fine-tuned weights, or"
                " give another folder with --work."
            )
        return app, model
    folder.mkdir(parents=True, exist_ok=True)
    if not app.is_dir():
        command = [python, "-m", "monailabel.main", "apps", "--download", "--name", app.name, "--output", app.parent]
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if made.returncode:
            raise InputError(f"MONAI Label of {python} cannot make its app: {(made.stderr or made.stdout)[-500:]}")
    mark.write_text(_fingerprint(package), encoding="utf-8")
    unfinished = model.with_name(f".{model.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(package, unfinished, ignore=shutil.ignore_patterns("__pycache__"))
    unfinished.rename(model)
    return app, model


def _fingerprint(package: Path) -> str:
    from bundle.packaging.archive import files_of
    from scripts.data.datalist import file_hash

    hashes = [(path.relative_to(package).as_posix(), file_hash(path)) for path in files_of(package)]
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def _link(scans: Mapping[str, Path], studies: Path, folder: Path) -> Path:
    """A folder with a link to each scan, flat as MONAI Label wants it, and with its labels; one for each studies."""
    linked = folder / f"{studies.name}_{hashlib.sha256(str(studies).encode()).hexdigest()[:8]}"
    linked.mkdir(parents=True, exist_ok=True)
    for old in linked.iterdir():
        if old.is_symlink():
            old.unlink()
    for case, file in scans.items():
        ending = ".nii.gz" if file.name.endswith(".nii.gz") else file.suffix
        (linked / f"{case}{ending}").symlink_to(file.resolve())
    return linked


@contextlib.contextmanager
def _server(python: Path, app: Path, studies: Path, name: str, port: int, log: Path) -> Iterator[subprocess.Popen]:
    """The running server, in a process group of its own; ended on the way out, with the trainings that it started."""
    conf = {"models": name, "zoo_source": "local", "sam2": "false"}
    command: list[str | Path] = [python, "-m", "monailabel.main", "start_server", "--app", app, "--studies", studies]
    command += ["--host", HOST, "--port", str(port)]
    command += [word for pair in conf.items() for word in ("--conf", *pair)]
    # `scripts` must be the package's own
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    environment["MONAI_LABEL_SESSION_PATH"] = str(log.parent / "sessions")
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with log.open("w", encoding="utf-8") as stream:
        server = subprocess.Popen(
            command, cwd=log.parent, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        yield server
    finally:
        signal.signal(signal.SIGTERM, before)
        _end(server)


def _end(server: subprocess.Popen) -> None:
    for sign, seconds in ((signal.SIGINT, MANNERS), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(seconds)


def _wait(server: subprocess.Popen, port: int, name: str, log: Path) -> dict[str, Any]:
    """What the server says of itself once it answers."""
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/info/", timeout=PATIENCE) as answer:
                info = json.load(answer)
        except (OSError, urllib.error.URLError):
            time.sleep(0.5)
            continue
        if name not in info["models"]:
            break
        return info
    raise InputError(f"MONAI Label does not serve {name}; the end of {log}:\n{_tail(log)}")


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _tell(port: int, info: Mapping[str, Any], name: str, studies: Path, model: Path) -> None:
    segments: Sequence[str] = list(info["models"][name]["labels"])
    url = f"http://{HOST}:{port}"
    print(
        f"\nMONAI Label serves {name} at {url}: {info['datastore']['total']} scans, segments {', '.join(segments)}.\n"
        f"In 3D Slicer: module MONAI Label, MONAI Label server {url}, Next Sample, Auto Segmentation > Run.\n"
        f"labels:  {studies / 'labels'}\n"
        f"weights: {model / 'models'} (training overwrites model.pt there; the package stays as it is)\n"
        "Ctrl-C ends it.",
        flush=True,
    )
