"""A model is known by its sizes and weights; a broken one is refused with its name and its file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reasondiff.config import ModelSize
from reasondiff.hub import HubError
from reasondiff.models.load import (
    ModelError,
    describe_model,
    download_model,
    info_to_json,
    load_model,
    load_tokenizer,
    own_tokenizer,
    read_info,
    refuse_other_size,
    save_tokenizer,
    size_of_folder,
)
from reasondiff.models.unembedding import read_unembedding
from reasondiff.store import ArtefactError, write_json

COMMIT = "0" * 40
"""Stands for the weights of a model from the hub, whose own digest is not known."""


@pytest.fixture
def folder(small_models, tmp_path):
    """A copy of the small Qwen2 that a test may break."""
    return Path(shutil.copytree(small_models["qwen2"].folder, tmp_path / "model"))


@pytest.mark.parametrize(("name", "architecture"), [("qwen2", "Qwen2ForCausalLM"), ("llama", "LlamaForCausalLM")])
def test_a_folder_is_described_without_loading_it(small_models, name, architecture):
    info = small_models[name]
    assert (info.layers, info.hidden, info.vocabulary, info.architecture) == (3, 16, 420, architecture)


def test_the_digest_of_the_weights_follows_the_weights_and_not_the_name(small_models, folder):
    same = describe_model("copy", folder)
    assert same.weights_digest == small_models["qwen2"].weights_digest != small_models["other"].weights_digest
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert describe_model("copy", folder).weights_digest != same.weights_digest


def test_model_json_comes_back_and_its_folder_may_move_with_it(small_models, tmp_path):
    info = replace(small_models["qwen2"], unseen_ids=(3, 5), untrained_tokens=("<think>",))
    write_json(tmp_path / "model.json", {**info_to_json(info), "folder": "."}, {})
    assert read_info(tmp_path / "model.json") == replace(info, folder=str(tmp_path))
    write_json(tmp_path / "model.json", info_to_json(info), {})
    assert read_info(tmp_path / "model.json") == info  # an absolute folder stays


def test_a_model_json_without_a_field_is_refused(small_models, tmp_path):
    content = info_to_json(small_models["qwen2"])
    del content["hidden"]
    write_json(tmp_path / "model.json", content)
    with pytest.raises(ArtefactError, match=r"model\.json lacks 'hidden'"):
        read_info(tmp_path / "model.json")


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "read", [lambda info: load_model(info, "cpu", "float32"), lambda info: read_unembedding(info, "cpu")]
)
def test_weights_that_are_no_longer_those_of_model_json_are_refused(folder, read):
    info = describe_model("x", folder)
    read(info)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="model 'x': the weights in .* were replaced. Fetch them again"):
        read(info)


def test_a_tokenizer_that_was_written_here_is_refused_when_one_letter_of_it_changes(small_tokenizer, tmp_path):
    save_tokenizer(small_tokenizer, tmp_path)
    load_tokenizer(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace('"a"', '"A"', 1))
    with pytest.raises(ArtefactError, match=r"tokenizer\.json cannot be read"):
        load_tokenizer(tmp_path)


def test_a_missing_folder_config_or_weights_file_is_named(folder):
    with pytest.raises(ModelError, match="model 'x': there is no folder"):
        describe_model("x", folder / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="model 'x': no weights"):
        describe_model("x", folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"model 'x': .*config\.json is missing"):
        describe_model("x", folder)


@pytest.mark.parametrize("content", ["{", '{"hidden_size": 16}', '{"image_size": 3}'])
def test_a_config_of_something_else_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match="num_hidden_layers, hidden_size and vocab_size"):
        describe_model("x", folder)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.9])
def test_truncated_weights_are_found_before_they_are_loaded_and_when_they_are(small_models, folder, share):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match=r"model 'x': .*model\.safetensors is truncated"):
        describe_model("x", folder)
    with pytest.raises(ModelError, match=r"model 'qwen2' in .*model cannot be loaded.*truncated"):
        load_model(replace(small_models["qwen2"], folder=str(folder), weights_digest=COMMIT), "cpu", "float32")


def test_missing_weights_are_named_and_not_made_up(small_models, folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"weights are missing from .*model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(replace(small_models["qwen2"], folder=str(folder), weights_digest=COMMIT), "cpu", "float32")


def test_weights_that_do_not_fit_the_config_are_refused(small_models, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(ModelError, match="do not fit its config.json"):
        load_model(replace(small_models["qwen2"], folder=str(folder)), "cpu", "float32")


def test_more_layers_than_there_are_is_refused(small_models):
    with pytest.raises(ModelError, match=r"has 3 layers \(0 to 2\); layer 3 was asked for"):
        load_model(small_models["qwen2"], "cpu", "float32", layers=4)


def test_a_hub_model_that_cannot_be_fetched_is_an_error_that_says_what_to_do(monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(HubError, match=r"some/model \(model\) at revision abc cannot be fetched.*HF_HOME"):
        download_model("some/model", "abc")


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no tokenizer can be read from"):
        load_tokenizer(tmp_path)


# ------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("name", ["qwen2", "llama"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@torch.no_grad()
def test_the_blocks_of_a_shortened_model_give_what_they_give_in_the_whole(small_models, name, layers):
    ids = torch.arange(12)[None]
    whole = load_model(small_models[name], "cpu", "float32")
    short = load_model(small_models[name], "cpu", "float32", layers=layers)
    caught = []
    short.model.layers[-1].register_forward_hook(lambda module, inputs, output: caught.append(output))
    short.model(ids)
    assert len(short.model.layers) == layers
    states = whole.model(ids, output_hidden_states=True).hidden_states
    if layers < 3:  # the framework's last hidden state is after the final norm
        assert torch.equal(caught[0], states[layers])


def test_a_loaded_model_is_frozen_and_in_evaluation_mode(small_models):
    model = load_model(small_models["llama"], "cpu", "bfloat16")
    assert not model.training and model.dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_guard_gets_the_vocabulary_and_the_unseen_ids_of_a_model(small_models):
    own = own_tokenizer(replace(small_models["qwen2"], unseen_ids=(3, 5), untrained_tokens=("<think>",)))
    assert (own.name, own.vocabulary, own.unseen_ids, own.untrained_tokens) == ("qwen2", 420, {3, 5}, ("<think>",))
    assert own.tokenizer.convert_tokens_to_ids("<think>") == 418


# ------------------------------------------------------------------------------------------- declared sizes


def declared(**changes):
    sizes = {"hidden": 16, "layers": 3, "mlp": 32, "heads": 2, "kv_heads": 1, "vocabulary": 420, "tied": False}
    return ModelSize(**{**sizes, **changes})


def test_a_model_of_the_sizes_that_were_declared_is_let_through(small_models):
    folder = small_models["qwen2"].folder
    assert size_of_folder("x", folder) == declared()
    refuse_other_size("x", folder, declared())


def test_each_size_that_differs_is_named_with_both_figures(small_models):
    with pytest.raises(ModelError) as refusal:
        refuse_other_size("x", small_models["qwen2"].folder, declared(hidden=24, kv_heads=2, tied=True))
    told = str(refusal.value)
    assert "hidden: 24 declared, 16 found; kv_heads: 2 declared, 1 found; tied: True declared, False found" in told
    assert "models.x.size" in told and "layers" not in told


def test_what_a_config_leaves_out_is_as_its_architecture_has_it(small_models, tmp_path):
    """A Llama without `num_key_value_heads` has as many as heads."""
    config = json.loads((Path(small_models["llama"].folder) / "config.json").read_text())
    del config["num_key_value_heads"], config["tie_word_embeddings"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert size_of_folder("x", tmp_path) == declared(kv_heads=2)


def test_a_config_of_no_known_kind_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"num_hidden_layers": 1, "hidden_size": 1, "vocab_size": 1, "model_type": "no such kind"})
    )
    with pytest.raises(ModelError, match=r"model 'x': .*config\.json is of no kind that is read here"):
        size_of_folder("x", tmp_path)


def test_weights_that_the_index_names_and_that_are_not_there_are_named(small_models, tmp_path):
    folder = shutil.copytree(small_models["qwen2"].folder, tmp_path / "model")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="model-00002-of-00002.safetensors is missing from"):
        describe_model("x", folder)
