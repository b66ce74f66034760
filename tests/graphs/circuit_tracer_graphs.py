"""The same graph in circuit-tracer's own type: so that its functions can be held against ours."""

from __future__ import annotations

import contextlib

import numpy as np
import torch

from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, LOGIT


@contextlib.contextmanager
def double_precision():
    """Its functions make weights of the default type, which must be the matrix's."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def to_circuit_tracer(graph):
    """(graph, order): a `circuit_tracer.graph.Graph`, whose node i is node `order[i]` of ours."""
    from circuit_tracer.attribution.targets import LogitTarget
    from circuit_tracer.graph import Graph
    from circuit_tracer.utils.tl_nnsight_mapping import UnifiedConfig

    order = np.concatenate([graph.nodes_of(kind) for kind in (FEATURE, ERROR, EMBEDDING, LOGIT)])
    matrix = np.zeros((graph.n_nodes, graph.n_nodes))
    matrix[graph.target, graph.source] = graph.weight
    features, tokens, logits = (graph.nodes_of(kind) for kind in (FEATURE, EMBEDDING, LOGIT))
    blocks = int(graph.layer[logits[0]])
    sizes = {name: 1 for name in ("d_model", "d_head", "n_heads", "d_mlp")}
    theirs = Graph(
        input_string="".join(graph.tokens),
        input_tokens=torch.from_numpy(graph.feature[tokens]),
        active_features=torch.from_numpy(np.stack([graph.layer, graph.position, graph.feature], 1)[features]),
        adjacency_matrix=torch.from_numpy(matrix[np.ix_(order, order)]),
        cfg=UnifiedConfig(
            n_layers=blocks, d_vocab=1000, tokenizer_name="", model_name="", original_architecture="", **sizes
        ),
        selected_features=torch.arange(len(features)),
        activation_values=torch.from_numpy(graph.activation[features]),
        logit_targets=[LogitTarget(f"t{token}", int(token)) for token in graph.feature[logits]],
        logit_probabilities=torch.from_numpy(graph.probability[logits].astype(np.float64)),
        scan="made/up",
    )
    return theirs, order
