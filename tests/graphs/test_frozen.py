from __future__ import annotations

import pytest
import torch
from circuit_tracer import attribute

from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.graphs.frozen import FrozenContext
from reasondiff.graphs.replacement import open_replacement

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning")  # circuit-tracer's own

IDS = torch.tensor([300, 7, 41, 300, 12, 99, 230, 7, 18, 55, 260, 31])
TARGETS = torch.tensor([17, 301, 5])


def opened(name, small_models, transcoders, tokenizer, window=None):
    return open_replacement(small_models[name], transcoders, tokenizer, "cpu", window)


@pytest.fixture(scope="module")
def model(small_models, trained_transcoders, small_tokenizer):
    return opened("qwen2", small_models, trained_transcoders, small_tokenizer)


def directions(model):
    unembedding = model.unembed.W_U
    return (unembedding[:, TARGETS] - unembedding.mean(1, keepdim=True)).T


@torch.no_grad()
def rows_of(model, ids=IDS):
    """(context, what all columns add to all active latents, and to the logits)"""
    context = FrozenContext(model, ids)
    every = torch.arange(len(context.latents))
    return context, context.into_latents(every), context.into_logits(directions(model), skips=True)


def random_transcoders(layers, width=16):
    make = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=make) / width**0.5  # noqa: E731
    return {
        layer: Transcoder(draw(40, width), draw(40), draw(40, width), draw(width), draw(width, width), 4, {})
        for layer in layers
    }


# ------------------------------------------------------------------------------------------------ by oracle


@pytest.mark.parametrize(
    ("name", "layers", "window"), [("qwen2", (0, 1, 2), None), ("llama", (0, 2), 5), ("qwen2", (1,), 1)]
)
def test_rows_are_those_of_circuit_tracer(name, layers, window, small_models, small_tokenizer):
    model = opened(name, small_models, random_transcoders(layers), small_tokenizer, window)
    context, into_latents, into_logits = rows_of(model)
    theirs = attribute(IDS, model, attribution_targets=TARGETS, batch_size=7)
    assert torch.equal(theirs.active_features, context.latents) and len(context.latents) >= 4
    matrix = theirs.adjacency_matrix
    scale = float(matrix.abs().max())
    latents = len(context.latents)
    assert torch.allclose(into_latents, matrix[:latents, :-3], atol=1e-5 * scale)
    assert torch.allclose(into_logits, matrix[-3:, :-3], atol=1e-5 * scale)


def test_some_latents_in_any_order_have_the_rows_that_they_have_among_all(model):
    context, into_latents, _ = rows_of(model)
    some = torch.tensor([30, 2, 101, 55, 3, len(context.latents) - 1])
    assert torch.allclose(context.into_latents(some), into_latents[some], atol=1e-6)


# ------------------------------------------------------------------------------------------------ by identity


def bias_terms(model, ids, places):
    """What constants add to some values: biases of attention and transcoders, and the first position's MLP outputs,
    which circuit-tracer leaves out. `places` maps a forward pass's tensors, by hook, to one number each."""
    blocks, seen = range(model.cfg.n_layers), {}

    def keep(value, hook):
        seen[hook.name] = value

    names = [
        f"blocks.{layer}.{name}"
        for layer in blocks
        for name in ("mlp.hook_in", "mlp.hook_out.hook_out_grad", "hook_attn_out")
    ]
    with model.hooks(fwd_hooks=[(name, keep) for name in [*names, "unembed.hook_pre"]]):
        model(ids[None])
    written = [seen[f"blocks.{layer}.mlp.hook_out.hook_out_grad"] for layer in blocks]
    attended = [seen[f"blocks.{layer}.hook_attn_out"] for layer in blocks]
    found = []
    for place in places:
        value = place(seen)
        slopes = torch.autograd.grad(value, [*written, *attended], retain_graph=True, allow_unused=True)
        total = 0.0
        for layer in blocks:
            of_mlp, of_attention = (torch.zeros(1) if one is None else one[0] for one in slopes[layer :: len(blocks)])
            if of_mlp.ndim > 1:
                total += float(of_mlp[1:].sum(0) @ model.transcoders[layer].b_dec)
                read = seen[f"blocks.{layer}.mlp.hook_in"][0, 0]
                dropped = written[layer][0, 0] - model.transcoders.compute_skip(layer, read)  # the skip itself is kept
                total += (of_mlp[0] @ dropped).item()
            if of_attention.ndim > 1:
                total += float(of_attention.sum(0) @ model.blocks[layer].attn.b_O)
        found.append((value.item(), total))
    return found


@pytest.mark.parametrize("window", [None, 4])
def test_edges_and_constants_sum_to_what_every_latent_and_logit_reads(
    window, small_models, trained_transcoders, small_tokenizer
):
    model = opened("qwen2", small_models, trained_transcoders, small_tokenizer, window)
    context, into_latents, into_logits = rows_of(model)

    def of_latent(layer, position, latent):
        row = model.transcoders[layer].W_enc[latent]
        return lambda seen: seen[f"blocks.{layer}.mlp.hook_in"][0, position] @ row

    def of_logit(direction):
        return lambda seen: seen["unembed.hook_pre"][0, -1] @ direction

    places = [*(of_latent(*one) for one in context.latents.tolist()), *map(of_logit, directions(model))]
    sums = torch.cat([into_latents, into_logits]).sum(1).tolist()
    with torch.enable_grad():
        whole = bias_terms(model, IDS, places)
    assert len(whole) > 60
    for (value, constants), edges in zip(whole, sums, strict=True):
        assert edges + constants == pytest.approx(value, rel=1e-4, abs=1e-4)


def test_an_active_latents_activation_is_what_its_edges_and_bias_add_up_to(model):
    context = FrozenContext(model, IDS)
    values = context.traced.activation_matrix.values()
    read = [float(model.transcoders[layer].b_enc[latent]) for layer, _, latent in context.latents.tolist()]
    x = {}
    with model.hooks(
        fwd_hooks=[(f"blocks.{layer}.mlp.hook_in", lambda v, hook: x.update({hook.name: v})) for layer in range(3)]
    ):
        model(IDS[None])
    for (layer, position, latent), value, bias in zip(context.latents.tolist(), values.tolist(), read, strict=True):
        response = (x[f"blocks.{layer}.mlp.hook_in"][0, position] @ model.transcoders[layer].W_enc[latent]).item()
        assert response + bias == pytest.approx(value, rel=1e-4, abs=1e-5) and value > 0


def test_doubling_a_latent_moves_every_other_by_its_edge(model):
    context, into_latents, into_logits = rows_of(model)
    _, before = model.get_activations(IDS, apply_activation_function=False)
    for column in (0, 17, len(context.latents) // 2, len(context.latents) - 40):
        layer, position, latent = context.latents[column].tolist()
        doubled = 2 * float(context.traced.activation_matrix.values()[column])
        logits, after = model.feature_intervention(
            IDS, [(layer, position, latent, doubled)], constrained_layers=range(3), apply_activation_function=False
        )
        moved = (after - before)[tuple(context.latents.T)]
        assert torch.allclose(moved, into_latents[:, column], atol=1e-4)
        change = (logits - context.traced.logits)[0, -1]
        demeaned = change[TARGETS] - change.mean()
        assert torch.allclose(demeaned, into_logits[:, column], atol=1e-4)


# ------------------------------------------------------------------------------------------------ by hand


def test_without_skips_an_edge_is_what_it_is_where_there_are_none(small_models, trained_transcoders, small_tokenizer):
    model = opened("qwen2", small_models, trained_transcoders, small_tokenizer)
    context = FrozenContext(model, IDS)
    cut = context.into_logits(directions(model), skips=False)
    with_skips = context.into_logits(directions(model), skips=True)
    assert not torch.allclose(cut, with_skips, atol=1e-3)
    for block in context.blocks:
        block.skip.zero_()  # the constants alone: the same latents, errors and patterns
    assert torch.allclose(cut, context.into_logits(directions(model), skips=True), atol=1e-6)


def test_nothing_writes_into_its_own_layer_or_into_earlier_positions(model):
    context, into_latents, _ = rows_of(model)
    layer, position, _ = context.latents.T
    forbidden = (layer[None] >= layer[:, None]) | (position[None] > position[:, None])
    assert not into_latents[:, : len(layer)][forbidden].any()
    assert float((into_latents[:, : len(layer)][~forbidden] != 0).float().mean()) > 0.9
