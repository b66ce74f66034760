"""Is a study of the hub read at the commits that were written down, and at no others?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from fake_hub import FakeHub
from running import ROOT, copy_workflow, said, snakemake

from reasondiff.config import ConfigError, Study, load_study
from reasondiff.revisions import (
    hub_names,
    pinned,
    read_revisions,
    refuse_unpinned,
    unpinned,
    write_revisions,
)
from reasondiff.store import read_card, read_json, read_table

A, B = "a" * 40, "0123456789" * 4
READY = {"folder": None, "repo": "some/transcoders", "revision": None, "hookpoint": None}


def hub_config(**changes) -> dict:
    """The smoke study with two models and the text of the hub."""
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    hub = {"stage": "hub", "revision": None, "elicitations": ["direct"]}
    rows = {"kind": "hub", "weight": 1.0, "repo": "some/rows", "revision": None, "subset": None, "split": "train"}
    return config | {
        "study": "hub",
        "results_dir": "results/hub",
        "revisions": "config/hub.revisions.yaml",
        "tokenizers": {"own": {"source": "model", "model": "second"}},
        "models": {"first": {**hub, "repo": "some/first"}, "second": {**hub, "repo": "some/second"}},
        "text": {"mine": {**config["text"]["traces"], "sources": {"rows": {**rows, "rows": None}}}},
        "pairs": {
            "pair": {"models": ["first", "second"], "tokenizer": "own", "texts": ["mine"], "role": "effect",
                     "control": None}
        },
        "split": config["split"] | {"held_out_family": None},
        "banks": {},
        **dict.fromkeys(("transcoders", "concepts", "prompts", "graphs", "motifs", "comparisons")),
        **changes,
    }  # fmt: skip


def with_transcoders() -> Study:
    config = hub_config(transcoders=yaml.safe_load((ROOT / "config/smoke.yaml").read_text())["transcoders"])
    config["transcoders"] |= {
        "models": {
            "first": {"text": "mine", "tokenizer": "own", "layers": [0], "seeds": [0], "start_from": None,
                      "ready": READY},
        },
        "sweep": None,
    }  # fmt: skip
    return load_study(config)


# ------------------------------------------------------------------------------------------------ names


def test_every_repository_that_a_study_names_is_listed_with_its_kind_and_place():
    found = [(name.key, name.repo, name.kind, name.revision) for name in hub_names(with_transcoders())]
    assert found == [
        ("models.first", "some/first", "model", None),
        ("models.second", "some/second", "model", None),
        ("text.mine.sources.rows", "some/rows", "dataset", None),
        ("transcoders.models.first.ready", "some/transcoders", "model", None),
    ]


def test_a_study_without_the_hub_names_nothing():
    assert hub_names(load_study(yaml.safe_load((ROOT / "config/config.yaml").read_text()))) == []


@pytest.mark.parametrize(("revision", "is_pinned"), [(None, False), ("main", False), ("v1.0", False), ("a" * 7, False),
                                                     (A, True), (B, True), ("A" * 40, False)])  # fmt: skip
def test_only_a_whole_commit_pins(revision, is_pinned):
    config = hub_config()
    config["models"]["first"]["revision"] = revision
    assert (hub_names(load_study(config))[0] not in unpinned(load_study(config))) == is_pinned


# ------------------------------------------------------------------------------------------------ filling in


def test_commits_of_the_file_stand_where_the_study_names_none():
    study = pinned(with_transcoders(), {"some/first": A, "some/rows": B, "some/transcoders": A, "not/named": B})
    assert study.models["first"].revision == A and study.models["second"].revision is None
    assert study.text["mine"].sources["rows"].revision == B
    assert study.transcoders.models["first"].ready.revision == A
    assert [name.key for name in unpinned(study)] == ["models.second"]


def test_a_commit_in_the_study_beats_the_file_and_a_branch_has_an_entry_of_its_own():
    config = hub_config()
    config["models"]["first"]["revision"] = B
    config["models"]["second"]["revision"] = "main"
    study = load_study(config)
    assert pinned(study, {"some/first": A, "some/second": A}) == study
    assert pinned(study, {"some/second@main": A}).models["second"].revision == A


def test_one_entry_cannot_be_a_models_commit_and_a_data_sets():
    config = hub_config()
    config["text"]["mine"]["sources"]["rows"]["repo"] = "some/first"
    with pytest.raises(ConfigError, match="both a model and a data set"):
        pinned(load_study(config), {})


def test_the_refusal_names_each_repository_and_both_ways_on():
    config = hub_config()
    config["models"]["second"]["revision"] = "main"
    with pytest.raises(ConfigError) as refusal:
        refuse_unpinned([str(name) for name in unpinned(load_study(config))])
    told = str(refusal.value)
    assert "models.first: some/first (model)\n" in told and "at 'main', which is a branch or a tag" in told
    assert "some/rows (dataset)" in told and "resolve_revisions" in told and "--config unpinned=allow" in told
    refuse_unpinned([])


# ------------------------------------------------------------------------------------------------ the file


def test_what_is_written_is_read_and_says_which_command_wrote_it(tmp_path):
    path = tmp_path / "x.revisions.yaml"
    # of digits alone, YAML would make a number of it
    write_revisions(path, {"some/second": "1" * 40, "some/first": A, "some/third@main": "0" * 40})
    assert read_revisions(path) == {"some/first": A, "some/second": "1" * 40, "some/third@main": "0" * 40}
    assert "snakemake --cores 1 resolve_revisions" in path.read_text()
    assert path.read_text().index("some/first") < path.read_text().index("some/second")


def test_unquoted_digits_are_a_commit_and_no_file_or_an_empty_one_has_none(tmp_path):
    (tmp_path / "digits.yaml").write_text(f"some/first: {'1' * 40}\n")
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert read_revisions(tmp_path / "digits.yaml") == {"some/first": "1" * 40}
    assert read_revisions(tmp_path / "empty.yaml") == read_revisions(tmp_path / "none.yaml") == {}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("some/first: main\n", "some/first: expected a commit of 40 hexadecimal digits, came 'main'"),
        (f"some/first: {A[:-1]}\n", "expected a commit of 40 hexadecimal digits"),
        (f"first: {A}\n", "'first' is not the name of a repository"),
        ("- some/first\n", "expected lines of the form"),
        ("some/first:\n  commit: x\n", "is not the name of a repository"),
        ("some/first: [\n", "cannot be read as YAML"),
    ],
)
def test_a_malformed_file_is_refused_by_name(tmp_path, content, told):
    (tmp_path / "x.revisions.yaml").write_text(content)
    with pytest.raises(ConfigError, match="x.revisions.yaml") as refusal:
        read_revisions(tmp_path / "x.revisions.yaml")
    assert told in str(refusal.value) and "delete it and write it again" in str(refusal.value)


# ------------------------------------------------------------------------------------------------ the workflow


@pytest.fixture(scope="module")
def hub(tmp_path_factory, small_models):
    """A hub with two models and a data set of two subsets."""
    from reasondiff.text.corpus import openr1_rows

    data = tmp_path_factory.mktemp("rows")
    rows = openr1_rows(n=60, generations=1, steps_weights={1: 1.0}, wrong_share=0.1, truncated_share=0.1, seed=9)
    for subset in ("data", "more"):
        (data / subset).mkdir()
        pd.DataFrame(rows).to_parquet(data / subset / "train-0.parquet")
    configs = [
        {"config_name": name, "data_files": [{"split": "train", "path": f"{folder}/train-*"}]}
        for name, folder in (("default", "data"), ("more", "more"))
    ]
    (data / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    folders = {("model", "some/first"): small_models["qwen2"], ("model", "some/second"): small_models["other"]}
    with FakeHub(
        {name: Path(info.folder) for name, info in folders.items()} | {("dataset", "some/rows"): data}
    ) as running:
        yield running


@pytest.fixture
def study_folder(tmp_path):
    folder = copy_workflow(tmp_path / "study")
    (folder / "config/hub.yaml").write_text(yaml.safe_dump(hub_config(), sort_keys=False))
    return folder


def online(*arguments: str, folder: Path, hub: FakeHub) -> subprocess.CompletedProcess:
    """Snakemake with a hub that can be reached."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf")}
    command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "1", "--configfile", "config/hub.yaml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def offline(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    return snakemake(*arguments, "--cores", "1", "--configfile", "config/hub.yaml", folder=folder)


def test_commits_are_resolved_once_and_inputs_fetched_so_that_jobs_need_no_network(study_folder, hub, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(study_folder / "hf"))
    lock = study_folder / "config/hub.revisions.yaml"
    other = "c" * 40
    lock.write_text(f"some/first: {hub.commit('model', 'some/first')}\nnot/named: {other}\n")

    resolved = online("resolve_revisions", folder=study_folder, hub=hub)
    assert resolved.returncode == 0, said(resolved)[-3000:]
    commits = {name: hub.commit(kind, name) for kind, name in hub.folders}
    assert read_revisions(lock) == {**commits, "not/named": other}
    assert not [path for path in hub.asked if "some/first" in path], "what stands there is not asked for again"

    fetched = online("fetch_inputs", folder=study_folder, hub=hub)
    assert fetched.returncode == 0, said(fetched)[-3000:]
    table = read_table(study_folder / "results/hub/inputs.tsv").set_index("key")
    assert dict(zip(table["source"], table["revision"], strict=True)) == commits
    assert table.loc["models.first", "bytes"] > 10_000 and "some/rows" in said(fetched)
    assert not [path for path in hub.asked if "more/train" in path], "the other subset is not fetched"

    made = ("results/hub/models/first/model.json", "results/hub/text/mine/documents.parquet")
    run = offline(*made, folder=study_folder)
    assert run.returncode == 0, said(run)[-3000:]
    assert read_json(study_folder / made[0])["weights_digest"] == commits["some/first"]
    assert read_card(study_folder / made[1])["text"]["sources"]["rows"]["revision"] == commits["some/rows"]
    assert "Nothing to be done" in said(offline("--dry-run", *made, folder=study_folder))

    lock.write_text(lock.read_text().replace(commits["some/first"], "d" * 40))
    planned = said(offline("--dry-run", *made, folder=study_folder))
    assert "locate_model" in planned and "prepare_text" not in planned


def test_without_commits_a_run_stops_before_any_job_and_what_needs_none_still_works(study_folder, hub):
    dry = offline("--dry-run", folder=study_folder)
    assert dry.returncode == 0 and "locate_model" in said(dry)
    run = offline(folder=study_folder)
    assert run.returncode != 0 and "models.first: some/first" in said(run) and "resolve_revisions" in said(run)
    assert not list((study_folder / "results").rglob("*"))
    hidden = offline("--no-hooks", "results/hub/models/first/model.json", folder=study_folder)
    assert hidden.returncode != 0 and "models.first: some/first" in said(hidden)  # the job itself refuses as well


def test_a_name_that_the_hub_does_not_have_leaves_the_file_as_it_is(study_folder, hub):
    config = hub_config()
    config["models"]["second"]["repo"] = "some/slip"
    (study_folder / "config/hub.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    run = online("resolve_revisions", folder=study_folder, hub=hub)
    assert run.returncode != 0 and "the hub has no some/slip (model)" in said(run)
    assert not (study_folder / "config/hub.revisions.yaml").exists()


def test_unpinned_the_commit_that_was_read_is_written_down(study_folder, hub):
    made = ("results/hub/models/first/model.json", "results/hub/text/mine/documents.parquet")
    run = online(*made, "--config", "unpinned=allow", folder=study_folder, hub=hub)
    assert run.returncode == 0, said(run)[-3000:]
    assert json.loads((study_folder / made[0]).read_text())["card"]["settings"]["revision"] == hub.commit(
        "model", "some/first"
    )
    rows = read_card(study_folder / made[1])["text"]["sources"]["rows"]
    assert rows["revision"] == hub.commit("dataset", "some/rows")
