"""Models small enough to be worked out, with transcoders beside their MLPs, and whole graphs traced in them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from circuit_tracer import attribute
from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet
from transformer_lens import HookedTransformerConfig

from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, LOGIT, NO_FEATURE, make_graph
from reasondiff.graphs.targets import Target

LAYERS, WIDTH, NEURONS, VOCABULARY, K = 3, 8, 12, 20, 4
IDS, TARGET = (0, 7, 3, 11, 5, 7), 4
CONTEXT = Target("sum", "arithmetic", "answer", "answer", "small", "greedy", 0, IDS, TARGET, "4", 0.5, 1.0, 0, None)
SIZES = {"n_layers": LAYERS, "d_model": WIDTH, "d_mlp": NEURONS, "n_heads": 2, "d_head": 4, "d_vocab": VOCABULARY}
HUGE = 1e16


def gated_model(seed=0):
    """Gated MLPs, as in Qwen2 and Llama, and random transcoders with a skip: at most `K` latents fire on a token."""
    model = _model(seed, 24, _top, gated_mlp=True, act_fn="silu")
    generator = torch.Generator().manual_seed(seed)
    for transcoder in model.transcoders:
        for weights in transcoder.parameters():
            weights.data = torch.randn(weights.shape, generator=generator) * 0.4
    return model


def relu_model(seed=0, bias=0.3, written=1.0):
    """MLPs with ReLUs, and transcoders that are these very MLPs: each neuron is a latent, nothing is left to error."""
    model = _model(seed, NEURONS, torch.relu, act_fn="relu")
    for block, transcoder in zip(model.blocks, model.transcoders, strict=True):
        mlp = block.mlp.old_mlp
        mlp.b_in.data += bias
        mlp.W_out.data *= written
        own = {"W_enc": mlp.W_in.T, "b_enc": mlp.b_in, "W_dec": mlp.W_out, "b_dec": mlp.b_out}
        transcoder.W_skip.data.zero_()
        for name, weights in own.items():
            getattr(transcoder, name).data = weights.detach().clone()
    return model


def linear_model(seed=0):
    """As `relu_model`, with every neuron active, norms of which nothing is left but a constant scale, and heads that
    attend to all tokens alike: linear throughout."""
    model = relu_model(seed, bias=20.0, written=0.02)
    norms = [model.ln_final, *(norm for block in model.blocks for norm in (block.ln1, block.ln2))]
    for norm in norms:
        norm.eps, norm.w.data = HUGE, torch.full_like(norm.w, HUGE**0.5)
    for block in model.blocks:
        block.attn.W_Q.data.zero_()
        block.attn.b_Q.data.zero_()
    return model


def _top(responses):
    positive = responses.relu()
    values, latents = positive.topk(K, dim=-1)
    return torch.zeros_like(positive).scatter_(-1, latents, values)


def _model(seed, latents, activation, **kind):
    config = HookedTransformerConfig(**SIZES, **kind, n_ctx=16, normalization_type="RMS", seed=seed, device="cpu")
    single = {
        layer: SingleLayerTranscoder(
            WIDTH, latents, activation, layer, True, device=torch.device("cpu"), dtype=torch.float32
        )
        for layer in range(LAYERS)
    }
    model = TransformerLensReplacementModel.from_config(config, TranscoderSet(single, "mlp.hook_in", "mlp.hook_out"))
    generator = torch.Generator().manual_seed(seed)
    for weights in model.parameters():
        if weights.ndim > 1:
            weights.data = torch.randn(weights.shape, generator=generator) * 0.5
    model.tokenizer = SimpleNamespace(
        all_special_ids=[0], vocab_size=VOCABULARY, padding_side="right", decode=lambda ids: str(ids)
    )
    return model


def traced(model, ids=IDS, target_id=TARGET):
    """The whole graph of one logit, every active latent in it."""
    found = attribute(torch.tensor(ids), model, attribution_targets=torch.tensor([target_id]), batch_size=64)
    layer, position, feature = found.active_features.T.numpy()
    latents, positions = len(layer), len(ids)
    errors = np.arange(LAYERS * positions)
    rows, columns = np.nonzero(found.adjacency_matrix.numpy())
    return make_graph(
        tuple(str(one) for one in ids),
        {"target_id": target_id, "ids": list(ids)},
        kind=np.repeat([FEATURE, ERROR, EMBEDDING, LOGIT], [latents, len(errors), positions, 1]),
        layer=np.concatenate([layer, errors // positions, np.full(positions, -1), [LAYERS]]),
        position=np.concatenate([position, errors % positions, np.arange(positions), [positions - 1]]),
        feature=np.concatenate([feature, np.full(len(errors), NO_FEATURE), ids, [target_id]]),
        activation=np.concatenate([found.activation_values.numpy(), np.full(len(errors) + positions + 1, np.nan)]),
        influence=np.full(latents + len(errors) + positions + 1, np.nan),
        probability=np.concatenate([np.full(latents + len(errors) + positions, np.nan), [0.5]]),
        source=columns,
        target=rows,
        weight=found.adjacency_matrix.numpy()[rows, columns],
    )
