"""Is nothing uploaded unless it was meant, with a token from the environment and whole?"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from reasondiff.config import Release
from reasondiff.release.packaging import package
from reasondiff.release.upload import UploadError, require_upload, upload_release

SETTINGS = {"licence": "mit", "licences": {}, "examples": True, "upload": True, "organisation": None, "private": True}


def release(**changes) -> Release:
    return Release.model_validate({**SETTINGS, **changes})


class FakeHub:
    """What of `huggingface_hub.HfApi` is used; a name without an owner belongs to the token's account."""

    def __init__(self):
        self.asked = []

    def create_repo(self, *, repo_id, repo_type, private, exist_ok):
        self.asked.append(("create", repo_id, repo_type, private))
        assert exist_ok
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"account/{repo_id}")

    def upload_folder(self, *, repo_id, repo_type, folder_path, ignore_patterns, commit_message):
        self.asked.append(("upload", repo_id, repo_type, str(folder_path)))
        assert ".*" in ignore_patterns and commit_message
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "file").write_text("x")
    for name in ("s-crosscoders-a", "s-graphs"):
        package(tmp_path / name, {"file": tmp_path / "file"}, "# Card\n")
    return {str(tmp_path / "s-crosscoders-a"): "model", str(tmp_path / "s-graphs"): "dataset"}


def test_uploading_is_refused_unless_the_study_asks_for_it(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    with pytest.raises(UploadError, match="release.upload is false"):
        require_upload(release(upload=False))
    assert require_upload(release()) == "hf_made_up"


@pytest.mark.parametrize("token", [None, "", " "])
def test_uploading_without_a_token_is_refused_with_its_name(monkeypatch, token):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UploadError, match="export HF_TOKEN"):
        require_upload(release())


def test_an_upload_needs_a_licence():
    with pytest.raises(ValueError, match="licence is null"):
        release(licence=None)


@pytest.mark.parametrize(("organisation", "owner"), [(None, "account"), ("lab", "lab")])
def test_each_folder_becomes_a_private_repository_of_its_kind(folders, organisation, owner):
    hub = FakeHub()
    sent = upload_release(folders, release(organisation=organisation), hub)
    assert sent == {
        f"{owner}/{name}": f"https://hub/{owner}/{name}/commit/1" for name in ("s-crosscoders-a", "s-graphs")
    }
    created = [asked for asked in hub.asked if asked[0] == "create"]
    assert [(kind, private) for _, _, kind, private in created] == [("model", True), ("dataset", True)]


def test_a_folder_that_was_harmed_stops_the_upload_before_the_first(tmp_path, folders):
    (tmp_path / "s-graphs/README.md").write_text("# Cart\n")
    hub = FakeHub()
    with pytest.raises(UploadError, match="README.md is changed"):
        upload_release(folders, release(), hub)
    assert hub.asked == []


def test_the_fake_hub_takes_what_the_real_one_takes():
    import inspect

    from huggingface_hub import HfApi

    for name in ("create_repo", "upload_folder"):
        fake = set(inspect.signature(getattr(FakeHub, name)).parameters) - {"self"}
        assert fake <= set(inspect.signature(getattr(HfApi, name)).parameters)
