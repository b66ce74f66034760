"""Is everything on this machine that a study takes from elsewhere? (What is of the hub: tests/test_revisions.py.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from running import ROOT

from reasondiff import inputs
from reasondiff.config import load_study
from reasondiff.hub import HubError, UnreachableError
from reasondiff.models.load import ModelError
from reasondiff.store import ArtefactError, file_digest
from reasondiff.text.sources import SourceError


@pytest.fixture
def local_study(tmp_path, small_models):
    """A study with a model and a text of this machine."""
    (tmp_path / "rows.jsonl").write_text(json.dumps({"problem": "1?", "generations": ["1"]}) + "\n")
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    config["models"]["rl"] = {"stage": "local", "folder": small_models["qwen2"].folder, "elicitations": ["think"]}
    config["text"]["traces"]["sources"]["mine"] = {"kind": "files", "weight": 1.0, "rows": None,
                                                   "files": [str(tmp_path / "rows.jsonl")]}  # fmt: skip
    return load_study(config)


def hub_study():
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    config["models"]["rl"] = {"stage": "hub", "repo": "some/model", "revision": "a" * 40, "elicitations": ["think"]}
    return load_study(config)


def test_what_is_local_is_listed_with_its_digest_and_size(local_study, tmp_path, small_models):
    prompts = str(ROOT / "config/prompts_smoke.yaml")
    table = inputs.fetch_inputs(local_study, prompts).set_index("key")
    assert list(table.index) == ["models.rl", "text.traces.sources.mine", "prompts.file"]
    assert set(table["kind"]) == {"local"}
    assert table.loc["models.rl", "revision"] == small_models["qwen2"].weights_digest
    row = table.loc["text.traces.sources.mine"]
    assert (row["revision"], row["files"], row["bytes"]) == (
        file_digest(tmp_path / "rows.jsonl"), 1, (tmp_path / "rows.jsonl").stat().st_size,
    )  # fmt: skip


def test_what_is_local_and_missing_is_named(local_study, tmp_path):
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(SourceError, match="'mine': there is no file .*rows.jsonl"):
        inputs.fetch_inputs(local_study, None)
    config = local_study.model_dump()
    config["models"]["rl"]["folder"] = "nowhere"
    with pytest.raises(ModelError, match="'rl': there is no folder nowhere"):
        inputs.fetch_inputs(load_study(config), None)


def test_more_than_the_disk_holds_is_not_begun(monkeypatch):
    monkeypatch.setattr(inputs, "bytes_to_fetch", lambda *_: 10**18)
    monkeypatch.setattr(inputs, "download_model", lambda *_: pytest.fail("fetched"))
    with pytest.raises(ArtefactError, match="1000000000.0 GB are to be fetched, and .* set HF_HOME"):
        inputs.fetch_inputs(hub_study(), None)


def test_without_a_network_what_is_in_the_cache_is_enough(monkeypatch, small_models):
    def unreachable(*_):
        raise UnreachableError("no network")

    monkeypatch.setattr(inputs, "bytes_to_fetch", unreachable)
    monkeypatch.setattr(inputs, "download_model", lambda *_: Path(small_models["qwen2"].folder))
    (row,) = inputs.fetch_inputs(hub_study(), None).to_dict("records")
    assert row["source"] == "some/model" and row["bytes"] > 10_000


def test_a_name_that_the_hub_does_not_have_is_no_want_of_a_network(monkeypatch):
    def unknown(*_):
        raise HubError("the hub has no some/model")

    monkeypatch.setattr(inputs, "bytes_to_fetch", unknown)
    with pytest.raises(HubError, match="has no some/model"):
        inputs.fetch_inputs(hub_study(), None)
