"""How much of what reaches the logits passes through each node and edge of a graph?

Signs are left out: the edges into a node are taken as shares of their absolute sum, as circuit-tracer does, and what a
node passes on is followed back from the logits. Edges lead to later layers, so one sweep from the last layer to the
first is exact and costs one operation per edge.

Source: docs/methods.md §10; circuit-tracer 0.5.0, graph.py; Ameisen et al. 2025, Circuit Tracing, "graph pruning".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, LOGIT, Graph


@dataclass(frozen=True)
class Scores:
    """How much of a graph its latents explain. Shares from 0 to 1; NaN where a graph has nothing to take a share of."""

    replacement: float
    """Of the influence that starts at tokens or errors, the share that starts at tokens."""
    completeness: float
    """The share of the edges into a node that come from latents or tokens, averaged over nodes by their influence."""
    feature_share: float
    """Of the last hop, into the logits, the share that comes from latents; 0 for a graph without them."""
    share_layer0: float
    """The part of `feature_share` that comes from latents of layer 0, which see little more than their own token."""
    share_target_position: float
    """The part that comes from latents of later layers at the position of the logits."""
    share_rest: float
    """The part that comes from latents of later layers at earlier positions."""
    tokens_via_features: float
    """Of the tokens' influence, the share that passes through at least one latent on its way."""


def normalised(graph: Graph) -> Float[np.ndarray, " edge"]:
    """Each edge's share, above 0 and at most 1, of the absolute weights of all edges into its target."""
    size = np.abs(graph.weight.astype(np.float64))
    return size / np.bincount(graph.target, size, graph.n_nodes)[graph.target]


def logit_weights(graph: Graph) -> Float[np.ndarray, " node"]:
    """What each logit counts: its probability, over those of all logits of the graph (all alike where none is known);
    0 of other nodes."""
    weights = np.where(graph.kind == LOGIT, np.nan_to_num(graph.probability.astype(np.float64)), 0.0)
    if not weights.any():
        weights = (graph.kind == LOGIT).astype(np.float64)
    return weights / weights.sum() if weights.any() else weights


def influences(graph: Graph) -> Float[np.ndarray, " node"]:
    """Share of the logits' influence that passes through each node, from 0 to 1; 0 of the logits themselves.

    1 means that every path passes through the node, weighted by the shares of its edges. Values of all nodes sum to
    the mean number of nodes on a path before the logits.
    """
    return _swept(graph, normalised(graph))


def edge_influences(graph: Graph) -> Float[np.ndarray, " edge"]:
    """Share of the logits' influence that passes through each edge, from 0 to 1."""
    shares = normalised(graph)
    return shares * (_swept(graph, shares) + logit_weights(graph))[graph.target]


def scores(graph: Graph) -> Scores:
    """The scores of a *whole* graph: of one that was pruned they would flatter, since errors are pruned first."""
    shares, through, start = normalised(graph), influences(graph), logit_weights(graph)
    tokens, errors = (through[graph.kind == kind].sum() for kind in (EMBEDDING, ERROR))
    from_errors = np.bincount(graph.target, shares * (graph.kind[graph.source] == ERROR), graph.n_nodes)
    passed_on = through + start
    past_features = _swept(graph, np.where(graph.kind[graph.target] == FEATURE, 0.0, shares))
    return Scores(
        replacement=_ratio(tokens, tokens + errors),
        completeness=_ratio(((1 - from_errors) * passed_on).sum(), passed_on.sum()),
        **_last_hop(graph, shares * start[graph.target]),
        tokens_via_features=1 - _ratio(past_features[graph.kind == EMBEDDING].sum(), tokens),
    )


def _last_hop(graph: Graph, into_logits: Float[np.ndarray, " edge"]) -> dict[str, float]:
    """Where the latents sit that the logits are reached from."""
    kind, layer, position = (getattr(graph, name)[graph.source] for name in ("kind", "layer", "position"))
    at_target = position == graph.position[graph.target]

    def share(chosen: Bool[np.ndarray, " edge"]) -> float:
        return _ratio(into_logits[(kind == FEATURE) & chosen].sum(), into_logits.sum())

    return {
        "feature_share": share(kind == FEATURE),
        "share_layer0": share(layer == 0),
        "share_target_position": share((layer > 0) & at_target),
        "share_rest": share((layer > 0) & ~at_target),
    }


def _swept(graph: Graph, shares: Float[np.ndarray, " edge"]) -> Float[np.ndarray, " node"]:
    """For each node the sum, over paths from it to the logits, of the product of their edges' shares.

    The same as: for each edge, from the last target to the first: through[source] += share * (through + start)[target].
    A layer's edges are taken at once, since none of them lead to a node of their own layer.
    """
    start, through = logit_weights(graph), np.zeros(graph.n_nodes)
    layer = graph.layer[graph.target]
    borders = np.flatnonzero(np.diff(layer, prepend=layer[:1] - 1, append=layer[-1:] + 1))
    for first, end in zip(borders[-2::-1], borders[:0:-1], strict=True):
        sources, targets = graph.source[first:end], graph.target[first:end]
        np.add.at(through, sources, shares[first:end] * (through + start)[targets])
    return through


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")
