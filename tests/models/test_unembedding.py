"""The last two steps of a model, read alone, say how its logits move with the residual stream."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from reasondiff.models.load import ModelError, describe_model, load_model
from reasondiff.models.unembedding import LAST_STEPS, read_unembedding

WIDTH = 16


@pytest.fixture(scope="module", params=["qwen2 tied", "qwen2 untied", "llama tied", "llama untied"])
def info(request, tmp_path_factory):
    """A random model whose final norm does not multiply by ones."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    name, how = request.param.split()
    settings, kind = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}[name]
    sizes = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(7)
    model = kind(settings(vocab_size=60, num_key_value_heads=1, tie_word_embeddings=how == "tied", **sizes))
    model.model.norm.weight.data = torch.randn(WIDTH)
    folder = tmp_path_factory.mktemp("models") / request.param.replace(" ", "-")
    model.save_pretrained(folder)
    return describe_model(name, folder)


@pytest.fixture(scope="module")
def model(info):
    return load_model(info, "cpu", "float32")


def test_the_last_steps_are_those_of_the_whole_model(info, model):
    read = read_unembedding(info, "cpu")
    assert read.model == info.name and read.width == WIDTH
    assert torch.equal(read.norm, model.model.norm.weight)
    assert torch.equal(read.weight, model.lm_head.weight)


def test_a_step_across_the_stream_moves_the_logits_by_its_effect_over_the_rms(info, model):
    """The derivative of the model's own logits along d, where x and d are at right angles: to first order the rms
    does not move then, and what is left is the effect divided by it."""
    make = torch.Generator().manual_seed(0)
    stream, directions = torch.randn(5, WIDTH, generator=make), torch.randn(3, WIDTH, generator=make)
    effects = read_unembedding(info, "cpu").effects(directions)
    for direction, effect in zip(directions, effects, strict=True):
        across = stream - (stream @ direction / direction.square().sum())[:, None] * direction
        rms = (across.square().mean(1) + model.config.rms_norm_eps).sqrt()
        logits = lambda x: model.lm_head(model.model.norm(x))  # noqa: E731
        _, moved = torch.autograd.functional.jvp(logits, across, direction.expand_as(across).clone())
        torch.testing.assert_close(moved, effect / rms[:, None], atol=1e-5, rtol=1e-4)


def test_adding_a_direction_with_the_rms_held_fixed_adds_its_effect(info, model):
    make = torch.Generator().manual_seed(1)
    x, direction = torch.randn(WIDTH, generator=make), torch.randn(WIDTH, generator=make)
    read = read_unembedding(info, "cpu")
    rms = (x.square().mean() + model.config.rms_norm_eps).sqrt()
    before = model.lm_head(model.model.norm(x))
    after = model.lm_head(model.model.norm.weight * (x + 0.3 * direction) / rms)
    torch.testing.assert_close(after - before, 0.3 * read.effects(direction[None])[0] / rms, atol=1e-5, rtol=1e-4)


def test_reading_in_half_precision_files_gives_float32(info, tmp_path):
    load_model(info, "cpu", "bfloat16").save_pretrained(tmp_path)
    read = read_unembedding(describe_model("half", tmp_path), "cpu")
    assert read.norm.dtype == read.weight.dtype == torch.float32
    assert torch.equal(read.norm, load_model(info, "cpu", "bfloat16").model.norm.weight.float())


def test_no_warning_of_the_blocks_that_are_not_read(info, caplog, capfd):
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_warning()
    with caplog.at_level(logging.WARNING):
        read_unembedding(info, "cpu")
    assert "not used" not in caplog.text + "".join(capfd.readouterr())
    assert transformers_logging.get_verbosity() == logging.WARNING  # as it was


def test_an_unknown_architecture_is_refused_by_name(info):
    with pytest.raises(ModelError, match="Gemma2ForCausalLM.*Qwen2ForCausalLM"):
        read_unembedding(replace(info, architecture="Gemma2ForCausalLM"), "cpu")
    assert info.architecture in LAST_STEPS


@pytest.mark.parametrize("lost", ["model.norm.weight", "lm_head.weight"])
def test_a_model_without_its_last_weights_is_refused(small_models, tmp_path, lost):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(small_models["qwen2"].folder, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(lost)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=lost):
        read_unembedding(describe_model("lost", folder), "cpu")


def test_values_that_are_not_finite_are_refused(small_models, tmp_path):
    broken = load_model(small_models["llama"], "cpu", "float32")
    broken.model.norm.weight.data[3] = torch.nan
    broken.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="not finite"):
        read_unembedding(describe_model("broken", tmp_path), "cpu")
