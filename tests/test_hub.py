"""Is the hub asked rightly, and is what it says told from its silence?"""

from __future__ import annotations

import pytest
from fake_hub import FakeHub
from huggingface_hub.utils import reset_sessions

from reasondiff.hub import HubError, UnreachableError, bytes_to_fetch, cached_folder, commit_of, is_commit


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one model, and an empty cache."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name, size in (("config.json", 10), ("a.safetensors", 1000), ("b.safetensors", 500), ("picture.png", 7000)):
        (folder / name).write_bytes(bytes(size))
    with FakeHub({("model", "some/model"): folder}) as running:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        reset_sessions()
        yield running
    reset_sessions()


def test_a_branch_is_at_a_commit_and_a_commit_at_itself(hub):
    commit = hub.commit("model", "some/model")
    assert is_commit(commit)
    assert commit_of("some/model", None) == commit_of("some/model", "main") == commit_of("some/model", commit) == commit


def test_what_the_hub_does_not_have_is_told_from_a_hub_that_does_not_answer(hub, monkeypatch):
    with pytest.raises(HubError, match=r"has no some/slip \(model\), or it is private: check the name, or log in"):
        commit_of("some/slip", None)
    with pytest.raises(HubError, match=r"has no some/model \(dataset\)"):
        commit_of("some/model", None, "dataset")
    with pytest.raises(HubError, match="has no revision 'v2'"):
        commit_of("some/model", "v2")
    with pytest.raises(HubError, match="check the name"):
        commit_of("no name at all", None)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(UnreachableError, match="cannot be reached to ask for some/model"):
        commit_of("some/model", None)


def test_only_what_is_wanted_and_not_there_is_to_be_fetched(hub, tmp_path):
    patterns = ["*.json", "*.safetensors"]
    assert bytes_to_fetch("some/model", None, patterns) == 1510
    snapshot = tmp_path / "cache/models--some--model/snapshots" / hub.commit("model", "some/model")
    snapshot.mkdir(parents=True)
    (snapshot / "a.safetensors").write_bytes(bytes(1000))
    assert bytes_to_fetch("some/model", None, patterns) == 510


def test_the_cache_is_looked_at_without_asking_anybody(hub, tmp_path):
    commit = hub.commit("model", "some/model")
    assert cached_folder("some/model", commit) is None and cached_folder("no name at all", None) is None
    snapshot = tmp_path / "cache/models--some--model/snapshots" / commit
    snapshot.mkdir(parents=True)
    assert cached_folder("some/model", commit) == snapshot and hub.asked == []
