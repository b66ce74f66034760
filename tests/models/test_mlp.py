"""An MLP gives its input and output away, and what takes its place changes the model where it should."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reasondiff.models.load import ModelError, load_model
from reasondiff.models.losses import final_hidden, final_hidden_and_inputs, final_hidden_from
from reasondiff.models.mlp import MLPS, find_mlp, replaced_mlps
from reasondiff.models.stream import model_inputs
from reasondiff.text.tokens import pack

LAYERS = (0, 1, 2)


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def model(request, small_models):
    return load_model(small_models[request.param], "cpu", "float32")


@pytest.fixture(scope="module")
def rows(numbers_table):
    return next(pack(numbers_table, np.arange(18), 200, 3))


@pytest.fixture(scope="module")
def inputs(rows):
    return model_inputs(rows, "cpu")


def itself(_given, own):
    return own


def zeros(_given, own):
    return torch.zeros_like(own)


def turned(given, _own):
    """Something that reads the MLP's input."""
    return 0.5 * given.flip(1)


@torch.no_grad()
def test_an_mlp_in_its_own_place_changes_nothing(model, inputs):
    plain = final_hidden(model, inputs)
    with replaced_mlps(model, dict.fromkeys(LAYERS, itself)):
        assert torch.equal(final_hidden(model, inputs), plain)


@torch.no_grad()
@pytest.mark.parametrize("layer", LAYERS)
def test_zeros_in_place_of_one_mlp_change_the_model_and_then_it_is_itself_again(model, inputs, layer):
    plain = final_hidden(model, inputs)
    with replaced_mlps(model, {layer: zeros}):
        assert (final_hidden(model, inputs) - plain).abs().mean() > 0.01
    assert torch.equal(final_hidden(model, inputs), plain)


@torch.no_grad()
def test_a_replacement_reads_what_comes_after_the_norm(model, inputs):
    """With the MLP's own function of what it is given in its place, the model is the same."""
    plain = final_hidden(model, inputs)
    mlps = {layer: find_mlp(model, layer) for layer in LAYERS}
    own = {layer: (lambda x, _own, mlp=mlp: mlp.forward(x)) for layer, mlp in mlps.items()}
    with replaced_mlps(model, own):
        torch.testing.assert_close(final_hidden(model, inputs), plain, atol=1e-5, rtol=0)


@torch.no_grad()
def test_only_marked_tokens_are_replaced(model, inputs):
    """In rows where token 5 alone is replaced, nothing before it changes; without the mask everything does."""
    plain, ids = final_hidden(model, inputs), inputs["input_ids"]
    marked = torch.zeros_like(ids, dtype=torch.bool)
    marked[:, 5] = True
    with replaced_mlps(model, {1: zeros}, marked):
        changed = (final_hidden(model, inputs) - plain).abs().amax(2)
    assert (changed[:, :5] == 0).all() and (changed[:, 5] > 1e-3).all()
    with replaced_mlps(model, {1: zeros}):
        assert ((final_hidden(model, inputs) - plain).abs().amax(2)[:, :5] > 1e-3).all()


@torch.no_grad()
def test_each_layer_may_have_its_own_mask_asked_anew_in_each_pass(model, inputs):
    ids = inputs["input_ids"]
    masks = {layer: torch.zeros_like(ids, dtype=torch.bool) for layer in LAYERS}
    masks[0][:, 3] = True
    masks[2][:, 8] = True
    given = {}

    def counting(layer):
        return lambda x, own: given.setdefault(layer, []).append(len(x)) or own

    with replaced_mlps(model, {layer: counting(layer) for layer in LAYERS}, masks.__getitem__):
        final_hidden(model, inputs)
        masks[1][:, :4] = True
        final_hidden(model, inputs)
    assert given == {0: [3, 3], 1: [0, 12], 2: [3, 3]}  # three rows


@torch.no_grad()
@pytest.mark.parametrize("layers", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_going_on_from_the_first_replaced_block_equals_the_whole_pass(model, inputs, rows, layers):
    """The blocks below are the model's own, so they need not run again. With masks that differ between layers."""
    replacements = dict.fromkeys(layers, turned)
    real = torch.from_numpy(rows.document >= 0)
    masks = {layer: real & (inputs["position_ids"] >= layer) for layer in LAYERS}
    plain, entering = final_hidden_and_inputs(model, layers, inputs)
    assert torch.equal(plain, final_hidden(model, inputs)) and set(entering) == set(layers)
    with replaced_mlps(model, replacements, masks.__getitem__):
        whole = final_hidden(model, inputs)
        first = min(layers)
        assert torch.equal(final_hidden_from(model, first - 1, entering[first], inputs), whole)
    assert (whole - plain).abs().mean() > 0.01


@torch.no_grad()
def test_the_model_is_itself_again_even_when_a_replacement_fails(model, inputs):
    plain = final_hidden(model, inputs)
    with pytest.raises(ZeroDivisionError), replaced_mlps(model, {0: zeros, 1: lambda given, own: 1 / 0}):
        final_hidden(model, inputs)
    assert torch.equal(final_hidden(model, inputs), plain)


def test_an_unknown_architecture_is_refused_with_those_that_are_known():
    class GemmaForCausalLM(SimpleNamespace):
        pass

    with pytest.raises(ModelError, match=f"GemmaForCausalLM are not known.*{', '.join(MLPS)}"):
        find_mlp(GemmaForCausalLM(), 0)
