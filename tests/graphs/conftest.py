"""Lets the tests of this room import their helpers, and trains transcoders of a small model once for all of them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import pytest  # noqa: E402
import torch  # noqa: E402

from reasondiff.dictionaries.code import topk  # noqa: E402
from reasondiff.dictionaries.transcoder import Transcoder  # noqa: E402
from reasondiff.models.load import load_model  # noqa: E402

LATENTS, K = 96, 6


@pytest.fixture(scope="session")
def trained_transcoders(small_models):
    """{layer: transcoder} of the small Qwen2 model, trained until they leave a small part of the variance."""
    info = small_models["qwen2"]
    seen = mlp_inputs_and_outputs(
        load_model(info, "cpu", "float32"), torch.randint(0, 420, (60, 64), generator=seeded())
    )
    return {layer: train(x, y, info) for layer, (x, y) in enumerate(seen)}


def seeded():
    return torch.Generator().manual_seed(0)


@torch.no_grad()
def mlp_inputs_and_outputs(model, ids):
    """[(inputs, outputs)] of each layer's MLP in a Hugging Face model, a row for each token."""
    seen = []
    handles = [
        block.mlp.register_forward_hook(
            lambda _, given, found: seen.append((given[0].flatten(0, 1), found.flatten(0, 1)))
        )
        for block in model.model.layers
    ]
    model(ids)
    for handle in handles:
        handle.remove()
    return seen


def train(x, y, info, steps=160):
    """A skip transcoder that begins as the best linear map."""
    whole = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    linear = torch.linalg.lstsq(whole, y).solution
    encoder = torch.randn(LATENTS, x.shape[1], generator=seeded()) / x.norm(dim=1).mean()
    weights = [encoder, torch.zeros(LATENTS), 0.01 * encoder, linear[-1].clone(), linear[:-1].T.clone()]
    for tensor in weights:
        tensor.requires_grad_()
    optimiser = torch.optim.Adam(weights, lr=0.02)
    made = Transcoder(*weights, K, {"models": [[info.name, info.weights_digest]]})
    for step in range(steps):
        part = slice(step * 512 % len(x), step * 512 % len(x) + 512)
        code = topk(torch.addmm(weights[1], x[part], weights[0].T), K)
        loss = (made.decode(code, x[part]) - y[part]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Transcoder(*(tensor.detach() for tensor in weights), K, made.card)
