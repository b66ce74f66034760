from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import pytest
import torch
import transformer_lens.loading_from_pretrained as loading
from circuit_tracer import attribute
from circuit_tracer.graph import compute_graph_scores
from conftest import K, mlp_inputs_and_outputs
from torch import nn

import reasondiff.graphs.replacement as replacement
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.graphs.replacement import ReluTopK, open_replacement, own_model
from reasondiff.models.load import ModelError, describe_model
from reasondiff.store import ArtefactError

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning")  # circuit-tracer's own

IDS = torch.tensor([300, 7, 41, 300, 12, 99, 230, 7, 18, 55, 260, 31])
TARGET = torch.tensor([17])


@pytest.fixture(scope="module")
def opened(small_models, trained_transcoders, small_tokenizer):
    return open_replacement(small_models["qwen2"], trained_transcoders, small_tokenizer, "cpu", None)


def random_transcoder(width, latents=40, k=4, seed=0, skip=True):
    make = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=make) / width**0.5  # noqa: E731
    skips = draw(width, width) if skip else None
    return Transcoder(draw(latents, width), draw(latents), draw(latents, width), draw(width), skips, k, {})


def active_latents(model, ids=IDS):
    """{(layer, position, latent): activation} of a replacement model."""
    matrix = model.setup_attribution(ids).activation_matrix
    return dict(zip(map(tuple, matrix.indices().T.tolist()), matrix.values().tolist(), strict=True))


def traced(model):
    return attribute(IDS, model, attribution_targets=TARGET, batch_size=64)


def largest_edge(model):
    return float(traced(model).adjacency_matrix.abs().max())


# ------------------------------------------------------------------------------------------------ the same model


@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_logits_are_those_of_hugging_face(name, small_models, small_tokenizer):
    model = open_replacement(small_models[name], {1: random_transcoder(16)}, small_tokenizer, "cpu", None)
    own = own_model(model)(IDS[None]).logits
    assert torch.allclose(model(IDS[None]), own, rtol=0, atol=1e-5 * float(own.detach().abs().max()))
    assert type(own_model(model)).__name__ == small_models[name].architecture


def test_a_folder_called_llama_or_gemma_holds_what_its_config_says(small_models, small_tokenizer, tmp_path):
    folder = tmp_path / "meta-llama" / "gemma-3-1b-it"
    shutil.copytree(small_models["qwen2"].folder, folder)
    model = open_replacement(describe_model("named", folder), {0: random_transcoder(16)}, small_tokenizer, "cpu", None)
    assert model.cfg.original_architecture == "Qwen2ForCausalLM"
    assert model.zero_positions == slice(0, 1)  # four, if circuit-tracer took it for a Gemma


def test_transformer_lens_is_left_as_it_was(opened):
    with pytest.raises(ValueError, match="not found"):
        loading.get_official_model_name("reasondiff/model")
    assert "from_pretrained" in vars(loading.AutoConfig)
    assert not isinstance(vars(loading.AutoConfig)["from_pretrained"], type(lambda: 0))


def test_nothing_is_printed_while_a_model_opens(small_models, small_tokenizer, capsys):
    open_replacement(small_models["qwen2"], {0: random_transcoder(16)}, small_tokenizer, "cpu", None)
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------------------------------------------ the same ids


@pytest.mark.parametrize("special", [{}, {"bos_token": "<|im_start|>"}, {"pad_token": None}, {"eos_token": None}])
def test_ids_are_attributed_as_they_are_given_whatever_the_tokenizer(special, opened, small_tokenizer):
    tokenizer = copy.deepcopy(small_tokenizer)
    for name, token in special.items():
        setattr(tokenizer, name, token)
    opened.set_tokenizer(tokenizer)
    assert IDS[0] not in tokenizer.all_special_ids  # circuit-tracer would put a special token before it
    assert traced(opened).input_tokens.tolist() == IDS.tolist()
    assert opened.ensure_tokenized(IDS.tolist()).tolist() == IDS.tolist()


def test_padding_ids_in_a_context_are_read_like_any_other(small_models, small_tokenizer):
    tokenizer = copy.deepcopy(small_tokenizer)
    tokenizer.padding_side = "left"  # TransformerLens would mask them
    model = open_replacement(small_models["qwen2"], {0: random_transcoder(16)}, tokenizer, "cpu", None)
    ids = torch.cat([torch.full((3,), tokenizer.pad_token_id), IDS])
    assert torch.allclose(model(ids[None]), own_model(model)(ids[None]).logits, atol=1e-4)
    assert tokenizer.padding_side == "left"


# ------------------------------------------------------------------------------------------------ the same latents


def test_latents_are_those_of_the_transcoders_on_the_inputs_of_the_mlps(opened, trained_transcoders):
    found = opened.setup_attribution(IDS).activation_matrix.to_dense()
    for layer, (x, _) in enumerate(mlp_inputs_and_outputs(own_model(opened), IDS[None])):
        ours = trained_transcoders[layer].encode(x).dense()
        ours[0] = 0  # circuit-tracer leaves out the first position
        assert torch.allclose(found[layer], ours, atol=1e-5) and int((ours > 0).sum()) > 20


def test_of_the_largest_responses_only_positive_ones_fire():
    responses = torch.tensor([[3.0, -1.0, 2.0, 0.5], [-3.0, -1.0, 0.5, -2.0]])
    assert ReluTopK(2)(responses).tolist() == [[3.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.5, 0.0]]


def test_transcoders_of_unequal_size_and_without_a_skip_fit_together(small_models, small_tokenizer):
    small = random_transcoder(16, 24, 3, seed=2)
    silent = replace(small, encoder_bias=small.encoder_bias - 1e3)
    unequal = {0: random_transcoder(16, 40, 4, seed=1, skip=False), 1: silent, 2: small}
    model = open_replacement(small_models["qwen2"], unequal, small_tokenizer, "cpu", None)
    assert {layer for layer, _, _ in active_latents(model)} == {0, 2}  # what fills up the silent one is silent too
    assert max(latent for layer, _, latent in active_latents(model) if layer == 2) < 24
    # a set whose first layer has no skip would be taken for one without any
    assert model.skip_transcoder and float(model.transcoders[2].W_skip.abs().max()) > 0


def test_latents_before_the_window_count_as_error(opened, small_models, trained_transcoders, small_tokenizer):
    windowed = open_replacement(small_models["qwen2"], trained_transcoders, small_tokenizer, "cpu", 4)
    whole, part = opened.setup_attribution(IDS), windowed.setup_attribution(IDS)
    first = len(IDS) - 4
    every, kept = active_latents(opened), active_latents(windowed)
    assert kept == {key: value for key, value in every.items() if key[1] >= first} and kept
    for layer in range(3):
        written = torch.zeros(len(IDS), 16)
        for (of, position, latent), value in every.items():
            if of == layer and position < first:
                written[position] += value * trained_transcoders[layer].decoder[latent]
        moved = part.error_vectors[layer] - whole.error_vectors[layer]
        assert torch.allclose(moved, written, atol=1e-5)


def test_a_window_longer_than_the_context_holds_all_of_it(opened, small_models, trained_transcoders, small_tokenizer):
    windowed = open_replacement(small_models["qwen2"], trained_transcoders, small_tokenizer, "cpu", 100)
    assert active_latents(windowed) == active_latents(opened)


def test_a_block_without_a_transcoder_is_all_error(small_models, trained_transcoders, small_tokenizer):
    some = {layer: trained_transcoders[layer] for layer in (0, 2)}
    model = open_replacement(small_models["qwen2"], some, small_tokenizer, "cpu", None)
    context = model.setup_attribution(IDS)
    assert {layer for layer, _, _ in active_latents(model)} == {0, 2}
    (_, outputs) = mlp_inputs_and_outputs(own_model(model), IDS[None])[1]
    assert torch.allclose(context.error_vectors[1][1:], outputs[1:], atol=1e-5)
    assert not model.transcoders[1].W_skip.any() and not model.transcoders[1].b_dec.any()


# ------------------------------------------------------------------------------------------------ known faults


def test_identity_skips_as_stand_ins_would_blow_up_edges(small_models, trained_transcoders, small_tokenizer):
    last = {2: trained_transcoders[2]}
    model = open_replacement(small_models["qwen2"], last, small_tokenizer, "cpu", None)
    right = largest_edge(model)
    for layer in (0, 1):
        model.transcoders[layer].W_skip.data.copy_(torch.eye(16))
    assert largest_edge(model) > 2 * right


def test_transcoders_of_topk_loaded_as_relu_would_fire_far_more(
    opened, small_models, trained_transcoders, small_tokenizer
):
    assert len(active_latents(opened)) <= 3 * K * (len(IDS) - 1)
    relu = open_replacement(small_models["qwen2"], trained_transcoders, small_tokenizer, "cpu", None)
    for transcoder in relu.transcoders:
        transcoder.activation_function = nn.ReLU()
    # nothing else would show it: what dense codes leave as error may even be less
    assert len(active_latents(relu)) > 1.5 * len(active_latents(opened))


def test_transcoders_that_read_before_the_norm_would_explain_less(
    opened, small_models, trained_transcoders, small_tokenizer, monkeypatch
):
    monkeypatch.setattr(replacement, "INPUT_HOOK", "hook_resid_mid")
    before_norm = open_replacement(small_models["qwen2"], trained_transcoders, small_tokenizer, "cpu", None)
    right, wrong = (compute_graph_scores(traced(model))[0] for model in (opened, before_norm))
    assert wrong < right - 0.2
    errors = [float(model.setup_attribution(IDS).error_vectors.norm()) for model in (opened, before_norm)]
    assert errors[1] > 1.5 * errors[0]


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("name", "transcoders", "error", "says"),
    [
        ("qwen2", {}, ArtefactError, "no transcoder at all"),
        ("wide", {0: random_transcoder(16)}, ArtefactError, "16 units, model 'wide' has 24"),
        ("qwen2", {0: random_transcoder(16), 3: random_transcoder(16)}, ArtefactError, r"layer\(s\) \[3\]"),
    ],
)
def test_transcoders_that_are_not_the_models_are_refused(name, transcoders, error, says, small_models, small_tokenizer):
    with pytest.raises(error, match=says):
        open_replacement(small_models[name], transcoders, small_tokenizer, "cpu", None)


def test_transcoders_of_another_models_weights_are_refused(small_models, trained_transcoders, small_tokenizer):
    with pytest.raises(ArtefactError, match=f"{small_models['qwen2'].weights_digest}.*'other' has"):
        open_replacement(small_models["other"], trained_transcoders, small_tokenizer, "cpu", None)


def test_an_architecture_that_is_not_known_is_refused(small_models, small_tokenizer):
    strange = replace(small_models["qwen2"], architecture="MambaForCausalLM")
    with pytest.raises(ModelError, match="MambaForCausalLM"):
        open_replacement(strange, {0: random_transcoder(16)}, small_tokenizer, "cpu", None)


def test_a_model_that_transformer_lens_computes_otherwise_is_refused(small_models, small_tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(small_models["llama"].folder)
    model.config.rope_theta = 50.0  # TransformerLens takes 10,000 for every Llama that is not on its list
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="other logits than Hugging Face"):
        open_replacement(describe_model("odd", tmp_path), {0: random_transcoder(16)}, small_tokenizer, "cpu", None)
