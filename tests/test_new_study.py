"""Does a study of any pair and any text follow from their names, and is a hopeless one told before it costs hours?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from running import ROOT, copy_workflow

from reasondiff import new_study
from reasondiff.config import ConfigError, load_study
from reasondiff.models.load import ModelError, load_model
from reasondiff.new_study import as_yaml, find_model, find_text, make_config, warnings
from reasondiff.text.sources import SourceError

TEMPLATE = (ROOT / "config/deepscaler.yaml").read_text()
ROW = {"problem": "1 + 1?", "generations": ["2"], "answer": "2"}


@pytest.fixture
def models(small_models):
    return {side: find_model(side, small_models[name].folder) for side, name in (("base", "qwen2"), ("tuned", "other"))}


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW) + "\n")
    return str(path)


# ------------------------------------------------------------------------------------------------ the inputs


def test_a_local_model_says_its_sizes_itself(small_models):
    model = find_model("base", small_models["llama"].folder)
    assert model.settings["stage"] == "local" and model.positions == 512
    size = {"hidden": 16, "layers": 3, "mlp": 32, "heads": 2, "kv_heads": 1, "vocabulary": 420, "tied": False}
    assert model.settings["size"] == model.size.model_dump() == size


def test_of_a_model_of_the_hub_the_config_alone_is_fetched(small_models, monkeypatch):
    asked = []

    def download(repo, revision, repo_type, allow_patterns):
        asked.append((repo, revision, repo_type, allow_patterns))
        return small_models["qwen2"].folder

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    model = find_model("tuned", "some/model")
    assert asked == [("some/model", None, "model", ["config.json"])]
    assert model.settings["stage"] == "hub" and model.settings["revision"] is None and model.size.hidden == 16


def test_what_is_neither_a_folder_nor_a_name_is_refused():
    with pytest.raises(ModelError, match="--base nowhere: expected a local folder or a name on the hub"):
        find_model("base", "nowhere")
    with pytest.raises(SourceError, match="--text nowhere.jsonl: expected a file"):
        find_text("nowhere.jsonl", None)


def test_a_text_is_known_by_its_columns(tmp_path, rows):
    assert find_text(rows, None)["kind"] == "files"
    (tmp_path / "plain.txt").write_text("a line\n")
    assert find_text(str(tmp_path / "plain.txt"), None)["kind"] == "plain_files"
    pd.DataFrame({"text": ["a"]}).to_parquet(tmp_path / "plain.parquet")
    assert find_text(str(tmp_path / "plain.parquet"), None)["kind"] == "plain_files"
    pd.DataFrame({"body": ["a"]}).to_parquet(tmp_path / "body.parquet")
    with pytest.raises(SourceError, match="came body; name a column of plain text with --column"):
        find_text(str(tmp_path / "body.parquet"), None)
    assert find_text(str(tmp_path / "body.parquet"), "body")["column"] == "body"
    assert find_text("some/rows", None)["kind"] == "hub"
    (tmp_path / "broken.jsonl").write_text("{")
    with pytest.raises(SourceError, match="broken.jsonl: cannot be read"):
        find_text(str(tmp_path / "broken.jsonl"), None)


# ------------------------------------------------------------------------------------------------ the config


def test_layers_latents_and_lengths_are_those_of_the_models(models, rows):
    study = load_study(make_config("mine", models, find_text(rows, None), "cpu", yaml.safe_load(TEMPLATE)))
    assert study.results_dir == "results/mine" and study.dtype == "float32" and study.revisions is None
    assert study.text["text"].context == study.text["text"].max_tokens == 512  # the template has 4,096
    methods = {point.method for bank in study.banks.values() for point in bank.points.values()}
    assert methods == {"l1", "batch_topk"}
    for bank in study.banks.values():
        assert bank.pairs == ("base-tuned",) and bank.layers == (2,)
        assert bank.latents == 16 * 32  # 32 times the width, as in the template
        assert all(point.sides is None for point in bank.points.values()) and not bank.independent_halves
    assert study.pairs["base-tuned"].tokenizer == "tuned" and study.tokenizers["tuned"].model == "tuned"
    assert study.cost.source_rows == {"text": 2} and study.release.licences == {}


def test_what_comes_from_the_hub_gets_a_file_of_revisions_and_a_card_bfloat16(models):
    study = load_study(make_config("mine", models, find_text("some/rows", None), "cuda", yaml.safe_load(TEMPLATE)))
    assert study.revisions == "config/mine.revisions.yaml" and study.unpinned == "refuse"
    assert study.dtype == "bfloat16" and study.cost.source_rows == {}


def test_models_of_different_width_are_refused(models, small_models, rows):
    wide = {**models, "tuned": find_model("tuned", small_models["wide"].folder)}
    with pytest.raises(ConfigError, match="base 16, tuned 24"):
        make_config("mine", wide, find_text(rows, None), "cpu", yaml.safe_load(TEMPLATE))


def test_sections_that_stay_keep_their_comments(models, rows):
    config = make_config("mine", models, find_text(rows, None), "cpu", yaml.safe_load(TEMPLATE))
    text = as_yaml(config, TEMPLATE, "# A heading.\n")
    assert yaml.safe_load(text) == config
    assert text.startswith("# A heading.\n") and "max_new_tokens: 8192          # truncated responses" in text
    assert "Qwen" not in text


def test_a_template_whose_sections_lean_on_one_another_gives_a_whole_study_without_comments():
    template = "a: &a {x: 1}\nb: *a  # as a\n"
    text = as_yaml({"a": {"x": 2}, "b": {"x": 1}}, template, "# A heading.\n")
    assert yaml.safe_load(text) == {"a": {"x": 2}, "b": {"x": 1}} and text.startswith("# A heading.\n")


# ------------------------------------------------------------------------------------------------ the warnings

ALIGNED = {"foreign": [], "foreign_share": 0.0}


def distances(cosine=0.95, turned=0.95, norm_ratio=1.0, relative_l2=0.2) -> pd.DataFrame:
    rows = [
        {"layer": layer, "mask": mask, "relative_l2": relative_l2, "norm_ratio": norm_ratio,
         "centred_cosine": cosine if layer == 2 and mask == "unmasked" else np.nan,
         "turned_cosine": turned if layer == 2 and mask == "unmasked" else np.nan,
         "suggested": 3 - layer}
        for layer in range(3)
        for mask in ("all", "unmasked")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_pair_as_it_should_be_gets_no_warning():
    assert list(warnings(ALIGNED, distances())) == list(warnings(ALIGNED, None)) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"norm_ratio": 3.0}, "rescaled residual stream: norms of the tuned model are 3 times"),
        ({"norm_ratio": 0.3}, "rescaled residual stream"),
        ({"cosine": 0.05, "turned": 0.98}, "rotated residual stream: activations have cosine 0.05, and 0.98"),
        ({"cosine": 0.05, "turned": 0.2}, "no orthogonal map brings them together"),
        ({"relative_l2": 0.001}, "the models hardly differ"),
    ],
)
def test_each_fault_of_the_residual_stream_has_its_warning(change, told):
    (warning,) = warnings(ALIGNED, distances(**change))
    assert told in warning


def test_foreign_tokens_are_shown_the_most_frequent_first():
    foreign = [
        {"id": 7, "token": "<think>", "model": "base", "why": "other string (xyz)", "count": 10},
        {"id": 8, "token": "</think>", "model": "base", "why": "never trained", "count": 90},
    ]
    share, differ = warnings({"foreign": foreign, "foreign_share": 0.02}, None)
    assert "2.00%" in share and share.index("</think>") < share.index("<think>")
    assert "tokenizers differ: 1 of the ids" in differ


# ------------------------------------------------------------------------------------------------ the command


def turn(model, seed: int) -> None:
    """Writes a model's function in a residual stream turned at random; its norms' weights must be ones."""
    turned = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(seed)))[0]
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight @ turned)
        model.lm_head.weight.copy_(model.lm_head.weight @ turned)
        for block in model.model.layers:
            attention, mlp = block.self_attn, block.mlp
            for reading in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
                reading.weight.copy_(reading.weight @ turned)
            for writing in (attention.o_proj, mlp.down_proj):
                writing.weight.copy_(turned.T @ writing.weight)


@pytest.fixture
def folder(tmp_path, small_models, small_tokenizer, monkeypatch):
    """A copy of the workflow with a model, the same turned, and a text."""
    from reasondiff.text.corpus import openr1_rows

    folder = copy_workflow(tmp_path / "workflow")
    model = load_model(small_models["llama"], "cpu", "float32")
    for name in ("base", "turned"):
        model.save_pretrained(folder / "inputs" / name)
        small_tokenizer.save_pretrained(folder / "inputs" / name)
        turn(model, seed=0)
    rows = openr1_rows(n=120, generations=1, steps_weights={1: 1.0}, wrong_share=0.1, truncated_share=0.1, seed=9)
    (folder / "inputs/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


NAMED = ("--base", "inputs/base", "--tuned", "inputs/turned", "--text", "inputs/rows.jsonl", "--device", "cpu")


def test_from_two_folders_and_a_file_to_a_study_its_costs_and_a_warning(folder, capfd):
    assert new_study.main([*NAMED, "--cores", "1"]) == 0, capfd.readouterr().out
    told = capfd.readouterr().out
    assert "wrote config/base_turned.yaml" in told and "reckoned: " in told and "GB of disk" in told
    assert "WARNING rotated residual stream" in told and "foreign" not in told
    assert "layers: the study has [2]; the models differ most in" in told
    study = load_study(yaml.safe_load((folder / "config/base_turned.yaml").read_text()))
    assert (folder / study.results_dir / "crosscoders/base-tuned/text/divergence.tsv").exists()
    assert new_study.main([*NAMED]) == 1
    assert "config/base_turned.yaml is there already" in capfd.readouterr().err


def test_with_no_check_only_the_file_is_written(folder, capfd):
    assert new_study.main([*NAMED, "--name", "mine", "--no-check"]) == 0
    assert (folder / "config/mine.yaml").exists() and not (folder / "results").exists()


def test_a_run_that_fails_is_shown_and_ends_with_1(folder, capfd, monkeypatch):
    monkeypatch.setattr(new_study, "_snakemake", lambda *_: "AlignmentError: 80 % are foreign")
    assert new_study.main([*NAMED]) == 1
    assert "80 % are foreign\nstopped: this pair cannot be compared" in capfd.readouterr().out


def test_a_slip_in_a_name_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    Path("config/deepscaler.yaml").write_text(TEMPLATE)
    assert new_study.main(["--base", "nowhere", "--tuned", "nowhere", "--text", "x.jsonl"]) == 1
    assert "--base nowhere: expected a local folder" in capsys.readouterr().err
    assert [path.name for path in Path("config").iterdir()] == ["deepscaler.yaml"]
