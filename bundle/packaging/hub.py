"""Upload a package to a repository on the Hugging Face hub."""

import os
from pathlib import Path

from scripts.errors import InputError

TOKEN = "HF_TOKEN"


def require_repository_name(repo: str) -> None:
    """Refuse a repository name that is not OWNER/NAME."""
    if repo.count("/") != 1:
        raise InputError(f"repo is '{repo}': expected OWNER/NAME.")


def upload_package(package: Path, repo: str, version: str) -> None:
    """Upload a package's folder, tagged with its version; the repository is created if it does not exist.

    Raises:
        InputError: huggingface_hub or a token is missing, or the hub refuses.
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
    try:
        hub.create_repo(repo, exist_ok=True)
        hub.upload_folder(
            repo_id=repo, folder_path=package, commit_message=f"version {version}", ignore_patterns="*.pyc"
        )
        hub.create_tag(repo, tag=version, exist_ok=True)
    except Exception as error:  # network, hub and token errors have different classes
        raise InputError(
            f"the hub refused {repo} ({str(error).splitlines()[0]}): check token, name and network."
        ) from error
