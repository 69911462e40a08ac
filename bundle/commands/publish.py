"""The `publish` command: write a package in the Model Zoo's layout, or upload it to Hugging Face."""

from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from bundle.commands.arguments import Optional, check_arguments
from bundle.commands.shared import Outcome, ask_user
from scripts.errors import InputError


@check_arguments
def publish(
    package: Path,
    *,
    out: Optional[Path] = None,
    url: Optional[str] = None,
    repo: Optional[str] = None,
    private: bool = True,
    dry_run: bool = False,
    trust: bool = False,
) -> Outcome:
    """Write a package in the Model Zoo's layout, ready for a pull request; or upload it to a Hugging Face repository.

    OUT gets models/NAME/ without files over 25 MB, which large_files.yml lists with their hashes and addresses instead,
    and an entry in models/model_info.json. The package is checked first: files, metadata, hashes, weights. A package is
    a program, which this check runs in part.

    Examples:
        python -m bundle publish dist/brats2021_segmentation-0.1.0 --out model-zoo
        python -m bundle publish dist/brats2021_segmentation-0.1.0 --out model-zoo --url https://example.org/weights
        python -m bundle publish dist/brats2021_segmentation-0.1.0 --repo me/brats2021_segmentation --dry_run

    Args:
        package: the folder that `export` wrote.
        out: a folder, such as a clone of the Model Zoo.
        url: where the large files can be fetched, without their names.
        repo: OWNER/NAME on the hub; needs huggingface_hub, and a token in the environment variable HF_TOKEN.
        private: a repository that is created can be seen by its owner alone; --private False shows it to all.
        dry_run: show what would be written or sent, and do nothing.
        trust: the package is trusted: its code and configs may run with your rights. Without it you are asked at the
            first use; it is remembered until a file of the package changes.
    """
    from bundle.packaging import archive, hub, package_check, zoo
    from scripts.inference import package_manifest as manifest

    metadata = package_check.check_package(package, trust, ask_user)
    name, version = package_check.read_name_and_version(package, metadata)
    names = [path.relative_to(package).as_posix() for path in archive.list_files(package)]
    if others := [name for name in names if name != manifest.MANIFEST and not manifest.is_part(name)]:
        raise InputError(
            f"{manifest.printable(package / others[0])} is not part of the package, and would be published with it:"
            " move it elsewhere."
        )
    if (out is None) == (repo is None):
        raise InputError(
            "the target is not clear: give --out FOLDER for the Model Zoo's layout, or --repo OWNER/NAME for the hub."
        )
    if out is not None and out.resolve().is_relative_to(package.resolve()):
        raise InputError(
            f"{out} lies in the package {package}, which would be copied into itself: give another folder."
        )
    if url is not None and not url.startswith(("https://", "http://")):
        raise InputError(f"url is {url}: give an address that begins with https://.")
    large = zoo.find_large_files(package) if out is not None else []
    title = f"{out}/models/{name}" if out is not None else f"hub: {repo}"
    table = Table("file", Column("MB", justify="right"), "", title=title)
    for path in archive.list_files(package):
        remark = "in large_files.yml" if path in large else ""
        table.add_row(path.relative_to(package).as_posix(), f"{path.stat().st_size / 1e6:.2f}", remark)
    Console().print(table)

    files = [
        {"file": path.relative_to(package).as_posix(), "bytes": path.stat().st_size}
        for path in archive.list_files(package)
    ]
    numbers = Outcome(lambda: {"name": name, "version": version, "files": files, "written": not dry_run})
    if repo is not None:
        hub.require_repository_name(repo)
        if dry_run:
            print(f"nothing was sent; {repo} would get these files and README.md, tagged {version}.")
            return numbers
        hub.upload_package(package, repo, version, private)
        kind = "private" if private else "public"
        print(f"sent: {repo}, tagged {version} and {hub.LATEST}; a repository that is created is {kind}")
        return numbers
    entry = zoo.plan_entry(out, name, version)
    if dry_run:
        print(f"nothing was written; {entry.index} would get {entry.key}.")
        return numbers
    zoo.write_entry(entry, package, url)
    print(f"written: {entry.target}, {entry.index} and {entry.zipped}")
    if not url:
        files = ", ".join(path.name for path in [*large, entry.zipped])
        print(f"upload {files}, then put the addresses where these files say")
    print(f"next: a pull request to the Model Zoo with models/{name}")
    return numbers
