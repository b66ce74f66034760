from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reasondiff.graphs.replaced import compare_replaced
from reasondiff.models.load import load_model

IDS = torch.tensor([300, 7, 41, 300, 12, 99, 230, 7, 18, 55, 260, 31])


@pytest.fixture(scope="module")
def own(small_models):
    return load_model(small_models["qwen2"], "cpu", "float32")


@torch.no_grad()
def logits_of(model, ids=IDS):
    return model(ids[None]).logits[0, -1]


def silent(transcoder):
    """Writes nothing at all."""
    return replace(
        transcoder, decoder=0 * transcoder.decoder, decoder_bias=0 * transcoder.decoder_bias, skip=0 * transcoder.skip
    )


def test_a_model_with_other_mlps_is_another_model(own, trained_transcoders):
    found = compare_replaced(own, trained_transcoders, IDS, logits_of(own), 2)
    assert found.kl > 1e-4
    without = {layer: silent(one) for layer, one in trained_transcoders.items()}
    assert compare_replaced(own, without, IDS, logits_of(own), 2).kl > 2 * found.kl


def test_the_divergence_is_that_of_a_model_whose_mlps_write_nothing(own, small_models, trained_transcoders):
    emptied = load_model(small_models["qwen2"], "cpu", "float32")
    for block in emptied.model.layers:
        torch.nn.init.zeros_(block.mlp.down_proj.weight)
    before, after = (logits_of(model).double().softmax(0) for model in (own, emptied))
    without = {layer: silent(one) for layer, one in trained_transcoders.items()}
    found = compare_replaced(own, without, IDS, logits_of(own), 0)
    assert found.kl == pytest.approx(float((before * (before / after).log()).sum()), rel=1e-4)
    assert found.top1 == bool(before.argmax() == after.argmax())


def test_the_first_positions_keep_their_own_mlps(own, trained_transcoders):
    without = {layer: silent(one) for layer, one in trained_transcoders.items()}
    found = [compare_replaced(own, without, IDS, logits_of(own), first).kl for first in (0, 6, len(IDS))]
    assert found[0] != found[1] and found[2] == pytest.approx(0, abs=1e-9)


def test_a_model_that_says_something_else_does_not_agree(own, trained_transcoders):
    logits = logits_of(own)
    assert compare_replaced(own, trained_transcoders, IDS, logits, len(IDS)).top1
    logits[(int(logits.argmax()) + 1) % len(logits)] += 100.0
    assert not compare_replaced(own, trained_transcoders, IDS, logits, len(IDS)).top1
