"""The same model in another basis: equal logits, rotated activations."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from reasondiff.models.load import ModelError, describe_model, load_model
from reasondiff.models.reparametrisation import random_rotation, reparametrised

IDS = torch.arange(40).reshape(2, 20)


@pytest.fixture(params=["qwen2", "llama"])
def info(request, small_models):
    return small_models[request.param]


@pytest.fixture
def model(info):
    """A model whose norms weigh units differently, as those of trained models do."""
    model = load_model(info, "cpu", "float32")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.mul_(0.5 + torch.rand(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("scale", [1.0, 3.0, 0.01])
@pytest.mark.parametrize("rotated", [True, False])
@torch.no_grad()
def test_logits_stay_as_they_are(model, rotated, scale):
    rotation = random_rotation(16, 1) if rotated else None
    other = reparametrised(model, rotation, scale)
    torch.testing.assert_close(other(IDS).logits, model(IDS).logits, rtol=0, atol=1e-4)


@torch.no_grad()
def test_activations_are_rotated_and_scaled_in_every_block(model):
    rotation = random_rotation(16, 1)
    own, other = (
        m(IDS, output_hidden_states=True).hidden_states for m in (model, reparametrised(model, rotation, 3.0))
    )
    for before, after in list(zip(own, other, strict=True))[:-1]:  # the last is after the final norm
        torch.testing.assert_close(after.double(), 3 * before.double() @ rotation, rtol=0, atol=1e-4)
    assert (own[1] - other[1]).norm() > own[1].norm()  # it is not the activations themselves


@torch.no_grad()
def test_the_model_itself_is_left_alone_and_its_unembedding_tied(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reparametrised(model, random_rotation(16, 1), 2.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_saved_copy_is_read_back_with_the_same_logits(model, small_tokenizer, tmp_path):
    other = reparametrised(model, random_rotation(16, 1), 3.0)
    other.save_pretrained(tmp_path)
    small_tokenizer.save_pretrained(tmp_path)
    again = load_model(describe_model("again", tmp_path), "cpu", "float32")
    with torch.no_grad():
        torch.testing.assert_close(again(IDS).logits, model(IDS).logits, rtol=0, atol=1e-4)


def test_rotations_are_orthogonal_and_follow_the_seed():
    rotation = random_rotation(16, 1)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(16, dtype=torch.float64))
    assert torch.equal(rotation, random_rotation(16, 1)) and not torch.equal(rotation, random_rotation(16, 2))


def test_another_architecture_is_refused():
    gpt = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20))
    with pytest.raises(ModelError, match="GPT2LMHeadModel cannot be reparametrised: expected a Qwen2 or a Llama"):
        reparametrised(gpt, None, 1.0)
