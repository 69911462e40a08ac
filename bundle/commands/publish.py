"""The `publish` command: write a package in the Model Zoo's layout, or upload it to Hugging Face."""

from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from scripts.errors import InputError


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
    from bundle.packaging import archive, hub, package_check, zoo

    folder = Path(str(package).rstrip("/"))
    name, version = package_check.read_name_and_version(folder, package_check.check_package(folder))
    if (to is None) == (repo is None):
        raise InputError("say where to: --to FOLDER for the Model Zoo's layout, or --repo OWNER/NAME for the hub.")
    if to is not None and Path(to).resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{to} lies in the package {folder}, which would be copied into itself: give another folder.")
    if url is not None and not str(url).startswith(("https://", "http://")):
        raise InputError(f"url is {url}: give an address that begins with https://.")
    large = zoo.find_large_files(folder) if to is not None else []
    title = f"{to}/models/{name}" if to is not None else f"hub: {repo}"
    table = Table("file", Column("MB", justify="right"), "", title=title)
    for path in archive.list_files(folder):
        remark = "in large_files.yml" if path in large else ""
        table.add_row(path.relative_to(folder).as_posix(), f"{path.stat().st_size / 1e6:.2f}", remark)
    Console().print(table)

    if to is None:
        hub.require_repository_name(str(repo))
        if dry_run:
            print(f"nothing was sent; {repo} would get these files, tagged {version}.")
            return
        hub.upload_package(folder, str(repo), version)
        print(f"sent: {repo}, tagged {version}")
        return
    entry = zoo.plan_entry(Path(to), name, version)
    if dry_run:
        print(f"nothing was written; {entry.index} would get {entry.key}.")
        return
    zoo.write_entry(entry, folder, url)
    print(f"written: {entry.target}, {entry.index} and {entry.zipped}")
    if not url:
        files = ", ".join(path.name for path in [*large, entry.zipped])
        print(f"upload {files}, then put the addresses where these files say")
    print(f"next: a pull request to the Model Zoo with models/{name}")
