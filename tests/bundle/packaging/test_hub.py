"""Uploads to the hub are complete or end in one sentence."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from bundle.packaging import hub
from scripts.errors import InputError


@pytest.fixture
def calls(monkeypatch) -> list:
    """The calls of the hub, which is replaced."""
    asked = []

    class Api:
        def __init__(self, token):
            asked.append(("token", token))

        def create_repo(self, repo, exist_ok):
            asked.append(("create", repo, exist_ok))

        def upload_folder(self, repo_id, folder_path, commit_message, ignore_patterns):
            if repo_id == "others/closed":
                raise PermissionError("403 Forbidden\nsee the log")
            asked.append(("upload", repo_id, folder_path, commit_message))

        def create_tag(self, repo, tag, exist_ok):
            asked.append(("tag", repo, tag))

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=Api))
    monkeypatch.setenv(hub.TOKEN, "secret")
    return asked


def test_a_package_is_uploaded_and_tagged_with_its_version(calls, tmp_path):
    hub.upload_package(tmp_path, "me/brats", "0.2.0")
    assert calls == [
        ("token", "secret"),
        ("create", "me/brats", True),
        ("upload", "me/brats", tmp_path, "version 0.2.0"),
        ("tag", "me/brats", "0.2.0"),
    ]


def test_hub_refusal_ends_in_one_sentence(calls, tmp_path):
    with pytest.raises(InputError, match=r"the hub refused others/closed \(403 Forbidden\): check token"):
        hub.upload_package(tmp_path, "others/closed", "0.2.0")
    assert ("tag", "others/closed", "0.2.0") not in calls


@pytest.mark.usefixtures("calls")
def test_an_upload_needs_a_token(tmp_path, monkeypatch):
    monkeypatch.delenv(hub.TOKEN)
    with pytest.raises(InputError, match="set HF_TOKEN to a token of the hub"):
        hub.upload_package(tmp_path, "me/brats", "0.2.0")


@pytest.mark.parametrize("repo", ["brats", "a/b/c"])
def test_a_repository_has_an_owner_and_a_name(repo):
    with pytest.raises(InputError, match="expected OWNER/NAME"):
        hub.require_repository_name(repo)
