"""Compiled models give the same activations, and no hook is lost."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pytest
import torch

from reasondiff.models import compiled
from reasondiff.models.compiled import compiled_forwards, running
from reasondiff.models.load import load_model
from reasondiff.models.mlp import find_mlp
from reasondiff.models.stream import ActivationStream

EVERYTHING = np.arange(18)


@pytest.fixture
def read(small_models, numbers_table, stream_settings):
    """`read("block", compile=True)`: the activations of all documents at two layers, joined."""

    def make(place="block", **settings):
        infos = [small_models[name] for name in ("qwen2", "llama")][: 1 if place == "mlp" else 2]
        reading = stream_settings(batch_rows=2, **settings)
        stream = ActivationStream(infos, [0, 2], numbers_table, [], reading, 200, "cpu", "float32", place)
        blocks = list(stream(EVERYTHING))
        return {layer: torch.cat([block.activations[layer] for block in blocks]) for layer in (0, 2)}

    return make


@pytest.fixture
def calls(monkeypatch):
    """How often each module ran "compiled"; nothing is really compiled."""
    counted = Counter()

    def counting(forward, dynamic):
        assert dynamic is False  # packed rows have one shape

        def call(*arguments, **named):
            counted[type(forward.__self__).__name__] += 1
            return forward(*arguments, **named)

        return call

    monkeypatch.setattr(compiled.torch, "compile", counting)
    return counted


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
@pytest.mark.parametrize("place", ["block", "mlp"])
def test_compiled_models_read_the_same(read, place):
    """Of activations around 1 the largest difference was 4e-7."""
    plain, fast = read(place), read(place, compile=True)
    for layer, activations in plain.items():
        torch.testing.assert_close(fast[layer], activations, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("place", "expected"),
    [("block", {"Qwen2DecoderLayer", "LlamaDecoderLayer"}), ("mlp", {"Qwen2MLP", "Qwen2Attention"})],
)
def test_every_block_or_every_part_of_one_runs_compiled(read, calls, place, expected):
    read(place)
    assert not calls
    read(place, compile=True)
    assert expected <= set(calls) and len(set(calls.values())) <= 2


def test_a_module_with_a_hook_inside_runs_as_it_is(small_models, calls):
    model = load_model(small_models["qwen2"], "cpu", "float32")
    seen, forwards = [], compiled_forwards(model, "block")
    ids = torch.arange(8)[None]
    hook = find_mlp(model, 1).register_forward_hook(lambda *_: seen.append(1))
    with running(forwards), torch.no_grad():
        model(ids)
    assert seen == [1] and calls["Qwen2DecoderLayer"] == 2  # of three
    hook.remove()
    with running(forwards), torch.no_grad():
        model(ids)
    assert calls["Qwen2DecoderLayer"] == 5
    with torch.no_grad():
        model(ids)  # outside nothing is compiled
    assert calls["Qwen2DecoderLayer"] == 5
