"""Uploads to the hub are complete or end in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from bundle.packaging import hub
from scripts.errors import InputError


class Hub:
    """A stand-in of the hub's client: repositories with their files, and tags with the number of the commit."""

    def __init__(self) -> None:
        self.repositories: dict[str, SimpleNamespace] = {}

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        self.repositories.setdefault(repo_id, SimpleNamespace(private=private, files={}, commits=[], tags={}))

    def list_repo_refs(self, repo_id):
        return SimpleNamespace(tags=[SimpleNamespace(name=name) for name in self.repositories[repo_id].tags])

    def create_commit(self, repo_id, operations, *, commit_message):
        if repo_id == "others/closed":
            raise PermissionError("403 Forbidden\nsee the log")
        repository = self.repositories[repo_id]
        for name, source in operations:
            repository.files[name] = source if isinstance(source, bytes) else Path(source).read_bytes()
        repository.commits.append(commit_message)

    def create_tag(self, repo_id, *, tag):
        assert tag not in self.repositories[repo_id].tags
        self.repositories[repo_id].tags[tag] = len(self.repositories[repo_id].commits)

    def delete_tag(self, repo_id, *, tag):
        del self.repositories[repo_id].tags[tag]


@pytest.fixture
def online(monkeypatch) -> Hub:
    stand_in = Hub()
    client = SimpleNamespace(
        HfApi=lambda token: stand_in,
        CommitOperationAdd=lambda path_in_repo, path_or_fileobj: (path_in_repo, path_or_fileobj),
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    monkeypatch.setenv(hub.TOKEN, "secret")
    return stand_in


@pytest.fixture
def package(tmp_path) -> Path:
    for name, text in {
        "docs/README.md": "# Model overview\n\n![network](network.svg)\n",
        "models/model.pt": "weights",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_package_is_uploaded_and_tagged_with_its_version(online, package):
    hub.upload_package(package, "me/brats", "0.2.0", private=True)
    repository = online.repositories["me/brats"]
    assert repository.private
    assert set(repository.files) == {"README.md", "docs/README.md", "models/model.pt"}
    assert repository.tags == {"0.2.0": 1, "latest_version": 1}


def test_pictures_of_the_card_are_found_from_the_front_page(package):
    assert "![network](docs/network.svg)" in hub.render_front_page(package)


def test_the_latest_version_moves_to_the_next_upload(online, package):
    for version in ("0.2.0", "0.3.0"):
        hub.upload_package(package, "me/brats", version, private=False)
    assert online.repositories["me/brats"].tags == {"0.2.0": 1, "0.3.0": 2, "latest_version": 2}
    assert not online.repositories["me/brats"].private


def test_a_version_is_uploaded_once(online, package):
    hub.upload_package(package, "me/brats", "0.2.0", private=True)
    with pytest.raises(InputError, match=r"me/brats has version 0.2.0 already: export a higher --version"):
        hub.upload_package(package, "me/brats", "0.2.0", private=True)
    assert len(online.repositories["me/brats"].commits) == 1


@pytest.mark.parametrize(("terms", "licence"), [(False, "apache-2.0"), (True, "other")])
def test_the_front_page_is_the_card_with_front_matter(package, terms, licence):
    if terms:
        (package / "docs" / "data_license.txt").write_text("CC BY-NC")
    _, front, card = hub.render_front_page(package).split("---\n", 2)
    found = yaml.safe_load(front)
    assert (found["tags"], found["library_name"], found["license"]) == (["monai", "medical"], "monai", licence)
    assert ("license_link" in found) == terms
    assert card.strip().splitlines()[0] == "# Model overview"


def test_hub_refusal_ends_in_one_sentence(online, package):
    with pytest.raises(InputError, match=r"the hub refused others/closed \(403 Forbidden\): check token"):
        hub.upload_package(package, "others/closed", "0.2.0", private=True)
    assert not online.repositories["others/closed"].tags


@pytest.mark.usefixtures("online")
def test_an_upload_needs_a_token(package, monkeypatch):
    monkeypatch.delenv(hub.TOKEN)
    with pytest.raises(InputError, match="set HF_TOKEN to a token of the hub"):
        hub.upload_package(package, "me/brats", "0.2.0", private=True)


@pytest.mark.parametrize("repo", ["brats", "a/b/c"])
def test_a_repository_has_an_owner_and_a_name(repo):
    with pytest.raises(InputError, match="expected OWNER/NAME"):
        hub.require_repository_name(repo)
