"""Run a MONAI Label server for a package: its Python environment, its app, links to the scans, and the process."""

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
from typing import Any, NamedTuple

from bundle.packaging.scan_order import rename_labels
from scripts.data.images import is_nifti
from scripts.errors import InputError
from scripts.inference.package_manifest import hash_files, hash_package
from scripts.inference.scans import find_input_scans

HOST = "127.0.0.1"  # MONAI Label has no password
TESTED = "0.8.5"
SET_UP = "bash tests/monailabel/environment.sh .venv-monailabel"
TIMEOUT = 180  # seconds to the first response; 10 to 20 are usual
GRACE = 15  # seconds for the server to stop by itself


class ServerFolder(NamedTuple):
    """The folder of a server."""

    path: Path
    app: Path  # MONAI Label's app for bundles
    model: Path  # the copy of the package, to which training writes
    studies: Path  # links to the scans, flat as MONAI Label needs, with the labels; one folder per studies
    names: Path  # links to the scans' folders by their own names, where the server looks for what it does not know
    log: Path  # what the server writes while it runs


def find_scans(
    studies: Path, channels: Sequence[str], channel_files: Mapping[str, Sequence[str]], show: str | None
) -> dict[str, Path]:
    """By case, the file of the channel to `show` in Slicer, by default the first; the others are next to it.

    Raises:
        InputError: there is no such channel, or the folder holds no scans that can be served.
    """
    if show is not None and show not in channels:
        raise InputError(f"--show is {show}: the channels are {', '.join(channels)}.")
    try:
        if not studies.is_dir():
            raise InputError(
                f"studies folder {studies} does not exist: give the folder that holds the patients' scans."
            )
        next(studies.iterdir(), None)
    except OSError as error:
        raise InputError(
            f"studies folder {studies} cannot be read ({error.strerror}): change its permissions."
        ) from error
    place = channels.index(show) if show else 0
    cases = find_input_scans(studies, channels, channel_files)
    if refused := next((case["refused"] for case in cases if "refused" in case), None):
        raise InputError(refused)
    images = {case["case"]: case["image"] for case in cases}
    shown = {case: Path(image if isinstance(image, str) else image[place]) for case, image in images.items()}
    if other := next((file for file in shown.values() if not is_nifti(file)), None):
        raise InputError(f"{other} is not a NIfTI file: `serve` shows volumes in that format; convert it.")
    return shown


def find_python(given: str | None) -> tuple[Path, str]:
    """The Python with MONAI Label, and its version.

    `given` is a Python or a virtual environment; by default this Python, or that of the `monailabel` on the PATH.
    """
    on_path = shutil.which("monailabel")
    if given is not None:
        candidates = [Path(given), Path(given, "bin", "python"), Path(given, "Scripts", "python.exe")]
    else:
        candidates = [Path(sys.executable), *([Path(on_path).with_name("python")] if on_path else [])]
    ask = "from importlib.metadata import version; print(version('monailabel'))"
    for python in candidates:
        if python.is_file() and os.access(python, os.X_OK):
            answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
            if answer.returncode == 0:
                return python.absolute(), answer.stdout.strip()
    raise InputError(
        f"there is no MONAI Label in {given or 'this environment'}: install it (3 GB) by `{SET_UP}`, and add"
        f" --monailabel {SET_UP.split()[-1]}."
    )


def require_free_port(port: int) -> None:
    """Refuse a port on which no server can listen."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(f"port {port} cannot be used ({error.strerror}): give another by --port.") from error


def prepare_folder(path: Path, package: Path, python: Path, studies: Path) -> ServerFolder:
    """Make the server's folder: MONAI Label's app with a copy of the package, once.

    Raises:
        InputError: the folder serves another package of this name, or cannot be written.
    """
    studies, root, app = studies.resolve(), path.resolve(), path.resolve() / "apps" / "monaibundle"
    linked = root / f"{studies.name}_{hashlib.sha256(str(studies).encode()).hexdigest()[:8]}"
    folder = ServerFolder(root, app, app / "model" / package.name, linked, root / "names", root / "server.log")
    with _writing(path):
        _make_app(folder, package, python)
    return folder


def link_scans(folder: ServerFolder, shown: Mapping[str, Path], names: Mapping[str, str] | None = None) -> None:
    """Make new links to the scans, by other names if they are given; labels follow them to these names.

    A request finds a scan by its own name too, if its files have a folder for themselves.

    Args:
        folder: of the server.
        shown: by case, the file that Slicer shows.
        names: by case.

    Raises:
        InputError: the folder cannot be written, or a name was that of another case.
    """
    folders = [file.parent for file in shown.values()]
    with _writing(folder.path):
        for place in (folder.studies, folder.names):
            place.mkdir(parents=True, exist_ok=True)
            for old in place.iterdir():
                if old.is_symlink():
                    old.unlink()
        names = names or {case: case for case in shown}
        rename_labels(folder.studies, names)
        for case, file in shown.items():
            ending = ".nii.gz" if file.name.endswith(".nii.gz") else file.suffix
            (folder.studies / f"{names[case]}{ending}").symlink_to(file.resolve())
            if names[case] != case and folders.count(file.parent) == 1:
                (folder.names / case).symlink_to(file.parent.resolve())


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}): give another folder with --out.") from error


@contextlib.contextmanager
def running_server(folder: ServerFolder, python: Path, port: int, models: Sequence[str]) -> Iterator[subprocess.Popen]:
    """The running server, in a process group of its own; stopped at the end, with any training that it started.

    `models` are the names of their folders; Slicer takes the first of a kind.
    """
    conf = {"models": ",".join(models), "zoo_source": "local", "sam2": "false"}
    command: list[str | Path] = [python, "-m", "monailabel.main", "start_server", "--app", folder.app]
    command += ["--studies", folder.studies, "--host", HOST, "--port", str(port)]
    command += [word for pair in conf.items() for word in ("--conf", *pair)]
    # `scripts` must be the package's own
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    environment["MONAI_LABEL_SESSION_PATH"] = str(folder.path / "sessions")
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with folder.log.open("w", encoding="utf-8") as stream:
        server = subprocess.Popen(
            command, cwd=folder.names, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        yield server
    finally:
        signal.signal(signal.SIGTERM, before)
        for sign, seconds in ((signal.SIGINT, GRACE), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(seconds)


def wait_for_answer(server: subprocess.Popen, port: int, models: Sequence[str], log: Path) -> dict[str, Any]:
    """Wait for the server, and return its description of what it serves.

    Raises:
        InputError: the server stopped, does not respond in time, or does not serve one of the models.
    """
    end = time.monotonic() + TIMEOUT
    while server.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/info/", timeout=TIMEOUT) as answer:
                info = json.load(answer)
        except (OSError, urllib.error.URLError):
            time.sleep(0.5)
            continue
        if {*models} <= {*info["models"]}:
            return info
        break
    raise InputError(f"MONAI Label does not serve {' and '.join(models)}; the end of {log}:\n{read_last_lines(log)}")


def read_last_lines(log: Path, lines: int = 30) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _make_app(folder: ServerFolder, package: Path, python: Path) -> None:
    content = hash_package(hash_files(package))
    model, mark = folder.model, folder.path / "package.sha256"
    if model.is_dir():
        if mark.read_text(encoding="utf-8") != content:
            raise InputError(
                f"{folder.path} serves another package of the name {model.name}: remove it with its fine-tuned weights,"
                " or give another folder with --out."
            )
        return
    folder.path.mkdir(parents=True, exist_ok=True)
    if not folder.app.is_dir():
        command = [python, "-m", "monailabel.main", "apps", "--download", "--name", folder.app.name]
        command += ["--output", folder.app.parent]
        made = subprocess.run(command, cwd=folder.path, capture_output=True, text=True, check=False)
        if made.returncode:
            raise InputError(f"MONAI Label of {python} cannot make its app: {(made.stderr or made.stdout)[-500:]}")
    mark.write_text(content, encoding="utf-8")
    unfinished = model.with_name(f".{model.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(package, unfinished, ignore=shutil.ignore_patterns("__pycache__"))
    unfinished.rename(model)
