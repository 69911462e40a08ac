"""Upload a package to a repository on the Hugging Face hub."""

import os
from pathlib import Path
from typing import Any

import yaml

from bundle.packaging import archive
from scripts.errors import InputError

TOKEN = "HF_TOKEN"
LATEST = "latest_version"  # the tag that MONAI's own uploads move to the newest version
CARD = Path("docs", "README.md")
DATA_TERMS = Path("docs", "data_license.txt")


def require_repository_name(repo: str) -> None:
    """Refuse a repository name that is not OWNER/NAME."""
    if repo.count("/") != 1:
        raise InputError(f"repo is '{repo}': expected OWNER/NAME.")


def render_front_page(package: Path) -> str:
    """The README.md of a repository: the package's model card after the front matter that the hub reads.

    The code is under Apache-2.0; where the data have terms, which may bind the weights too, the licence is "other".
    """
    licence = {"license": "apache-2.0"}
    if (package / DATA_TERMS).is_file():
        named = {"license_name": "apache-2.0-and-terms-of-the-data", "license_link": DATA_TERMS.as_posix()}
        licence = {"license": "other", **named}
    front = {"tags": ["monai", "medical"], "library_name": "monai", **licence}
    text = (package / CARD).read_text(encoding="utf-8").replace("](network.svg)", "](docs/network.svg)")
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{text}"


def upload_package(package: Path, repo: str, version: str, private: bool) -> None:
    """Upload a package in one commit, with its tags; the repository is created if it does not exist.

    Args:
        package: the folder that `export` wrote.
        repo: OWNER/NAME.
        version: the tag; `latest_version` is moved to it as well.
        private: of a repository that is created; one that exists stays as it is.

    Raises:
        InputError: huggingface_hub or a token is missing, the version is there already, or the hub refuses.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            "uploads need huggingface_hub: pip install huggingface_hub, or write a folder with --out."
        ) from error
    token = os.environ.get(TOKEN)
    if not token:
        raise InputError(f"no token in the environment: set {TOKEN} to a token of the hub with write access to {repo}.")
    hub = huggingface_hub.HfApi(token=token)
    content: dict[str, Any] = {
        path.relative_to(package).as_posix(): path.as_posix() for path in archive.list_files(package)
    }
    content["README.md"] = render_front_page(package).encode()
    operations = [
        huggingface_hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=source)
        for name, source in content.items()
    ]
    try:
        hub.create_repo(repo, private=private, exist_ok=True)
        tags = {tag.name for tag in hub.list_repo_refs(repo).tags}
        if version in tags:
            raise InputError(f"{repo} has version {version} already: export a higher --version.")
        hub.create_commit(repo, operations, commit_message=f"version {version}")
        if LATEST in tags:
            hub.delete_tag(repo, tag=LATEST)
        for tag in (version, LATEST):
            hub.create_tag(repo, tag=tag)
    except InputError:
        raise
    except Exception as error:  # network, hub and token errors have different classes
        raise InputError(
            f"the hub refused {repo} ({str(error).splitlines()[0]}): check token, name and network."
        ) from error
