"""How does a package reach others? The `publish` command: the Model Zoo's layout, or an upload to Hugging Face."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from bundle.packaging import archive, check
from bundle.packaging.metadata import VERSION
from scripts.data.datalist import file_hash
from scripts.errors import InputError
from scripts.files import write_json, write_text

LARGE = 25 * 10**6  # bytes; the Model Zoo keeps larger files outside its repository
ADDRESS = "URL of {path}: upload the file, then put its address here"
TOKEN = "HF_TOKEN"


def publish(
    package: str, to: str | None = None, url: str | None = None, repo: str | None = None, dry_run: bool = False
) -> None:
    """Write a package in the Model Zoo's layout, ready for a pull request; or upload it to a Hugging Face repository.

    TO gets models/NAME/ without files over 25 MB, which large_files.yml lists with their hashes and addresses instead,
    and an entry in models/model_info.json. The package is checked first: files, metadata, hashes, weights.

    Examples:
        python -m bundle publish dist/brats2021_segmentation-0.1.0 --to model-zoo
        python -m bundle publish dist/brats2021_segmentation-0.1.0 --to model-zoo --url https://example.org/weights
        python -m bundle publish dist/brats2021_segmentation-0.1.0 --repo me/brats2021_segmentation --dry-run

    Args:
        package: the folder that `export` wrote.
        to: a folder, such as a clone of the Model Zoo.
        url: where the large files can be fetched, without their names.
        repo: OWNER/NAME on the hub; needs huggingface_hub, and a token in the environment variable HF_TOKEN.
        dry_run: show what would be written or sent, and do nothing.
    """
    folder = Path(str(package).rstrip("/"))
    metadata = check.check(folder)
    name, _, version = folder.resolve().name.rpartition("-")
    if not name or not VERSION.match(version):
        raise InputError(f"{folder} is not called NAME-VERSION: give the folder that `python -m bundle export` wrote.")
    if version != metadata["version"]:
        raise InputError(f"{folder} says version {metadata['version']} in its metadata: export it anew.")
    if (to is None) == (repo is None):
        raise InputError("say where to: --to FOLDER for the Model Zoo's layout, or --repo OWNER/NAME for the hub.")
    if to is not None and Path(to).resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{to} lies in the package {folder}, which would be copied into itself: give another folder.")
    large = [path for path in archive.files_of(folder) if path.stat().st_size > LARGE] if to is not None else []
    _show(folder, large, f"{to}/models/{name}" if to is not None else f"hub: {repo}")
    if to is not None:
        try:
            _to_zoo(folder, Path(to), name, version, large, url, dry_run)
        except OSError as error:
            raise InputError(f"{to} cannot be written ({error.strerror or error}): give another folder.") from error
    else:
        _to_hub(folder, str(repo), version, dry_run)


def _show(folder: Path, large: list[Path], where: str) -> None:
    table = Table(title=where)
    table.add_column("file")
    table.add_column("MB", justify="right")
    table.add_column("")
    for path in archive.files_of(folder):
        remark = "in large_files.yml" if path in large else ""
        table.add_row(path.relative_to(folder).as_posix(), f"{path.stat().st_size / 1e6:.2f}", remark)
    Console().print(table)


def _to_zoo(
    folder: Path, zoo: Path, name: str, version: str, large: list[Path], url: str | None, dry_run: bool
) -> None:
    target, info = zoo / "models" / name, zoo / "models" / "model_info.json"
    entries = _model_info(info)
    entry = f"{name}_v{version}"
    if entry in entries:
        raise InputError(f"{info} has {entry} already: export a higher version.")
    if dry_run:
        print(f"nothing was written; {info} would get {entry}.")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as unfinished:
        copy = Path(unfinished, name)
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if large:
            write_text(copy / "large_files.yml", _large_files(folder, large, url))
            for path in large:
                (copy / path.relative_to(folder)).unlink()
        if target.exists():  # an earlier version, which git keeps
            target.rename(Path(unfinished, "earlier"))
        copy.rename(target)
    zipped = zoo / f"{entry}.zip"
    archive.zip_folder(folder, zipped, top=name)
    checksum = hashlib.sha1(zipped.read_bytes(), usedforsecurity=False).hexdigest()  # the zoo's own kind
    source = f"{url.rstrip('/')}/{zipped.name}" if url else ADDRESS.format(path=zipped.name)
    entries[entry] = {"checksum": checksum, "source": source}
    write_json(info, entries)
    print(f"written: {target}, {info} and {zipped}")
    if not url:
        print(
            f"upload {', '.join(path.name for path in [*large, zipped])}, then put the addresses where these files say"
        )
    print("next: a pull request to the Model Zoo with models/" + name)


def _large_files(folder: Path, large: list[Path], url: str | None) -> str:
    """What the zoo's checks download first; sha256 of each file."""
    listed = [
        {
            "path": path.relative_to(folder).as_posix(),
            "url": f"{url.rstrip('/')}/{path.name}" if url else ADDRESS.format(path=path.name),
            "hash_val": file_hash(path),
            "hash_type": "sha256",
        }
        for path in large
    ]
    return yaml.safe_dump({"large_files": listed}, sort_keys=False, width=200)


def _model_info(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not readable JSON: restore it from the zoo's repository.") from error
    if not isinstance(entries, dict):
        raise InputError(f"{path} holds no object with an entry a model: restore it from the zoo's repository.")
    return entries


def _to_hub(folder: Path, repo: str, version: str, dry_run: bool) -> None:
    if repo.count("/") != 1:
        raise InputError(f"repo is '{repo}': expected OWNER/NAME.")
    if dry_run:
        print(f"nothing was sent; {repo} would get these files, tagged {version}.")
        return
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            "uploads need huggingface_hub: pip install huggingface_hub, or write a folder by --to."
        ) from error
    token = os.environ.get(TOKEN)
    if not token:
        raise InputError(f"no token in the environment: set {TOKEN} to one of the hub that may write to {repo}.")
    hub = huggingface_hub.HfApi(token=token)
    try:
        hub.create_repo(repo, exist_ok=True)
        hub.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=f"version {version}", ignore_patterns="*.pyc"
        )
        hub.create_tag(repo, tag=version, exist_ok=True)
    except Exception as error:  # of the network, of the hub, of the token: each has its own class
        raise InputError(
            f"the hub refused {repo} ({str(error).splitlines()[0]}): check token, name and network."
        ) from error
    print(f"sent: {repo}, tagged {version}")
