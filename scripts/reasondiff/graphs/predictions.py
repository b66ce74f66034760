"""By how much does a graph say that the target's logit changes when a latent is ablated or doubled?

Source: docs/methods.md §10; Ameisen et al. 2025, Circuit Tracing, "validating attribution graph hypotheses".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from reasondiff.graphs.graph import FEATURE, LOGIT, Graph


@dataclass(frozen=True)
class Predictions:
    """Changes of the demeaned target logit when one latent is doubled; times `factor - 1` when it is multiplied by
    `factor`, so that ablation is the same with the other sign."""

    nodes: Int[np.ndarray, " latent"]
    """The latents, as indices of the graph's nodes."""
    direct: Float[np.ndarray, " latent"]
    """Through the latent's edge into the logit: no other latent responds."""
    total: Float[np.ndarray, " latent"]
    """Through all paths: every latent of the graph responds in proportion to the change of what it reads."""


def predict(graph: Graph, target_id: int) -> Predictions:
    """What a whole graph predicts for each of its latents.

    With attention patterns, norm scales and the set of active latents fixed, an active latent changes by as much as
    what it reads. An edge A[t, s] is what s adds to t with all of its activation, so when s changes by the share r_s
    of its own, t changes by sum_s A[t, s] r_s, which is the share r_t = sum_s A[t, s] r_s / activation_t. The effect of
    a unit of r_s on the logit is therefore

        effect_s = A[logit, s] + sum_t A[t, s] / activation_t * effect_t,

    worked out from the last layer to the first, one operation per edge. Latents that are not in the graph do not
    respond, nor do errors: of a stored part, or a graph that was made of some latents, the total is a total over it.

    Raises:
        ValueError: the graph has no logit of that token, or a latent's activation is not above 0.
    """
    logit = graph.nodes_of(LOGIT)[graph.feature[graph.nodes_of(LOGIT)] == target_id]
    if len(logit) != 1:
        raise ValueError(
            f"expected a graph with one logit of token {target_id}, this one has {len(logit)}: trace it anew"
        )
    latents = graph.nodes_of(FEATURE)
    direct = np.zeros(graph.n_nodes)
    into = graph.target == logit[0]
    direct[graph.source[into]] = graph.weight[into]
    return Predictions(latents, direct[latents], _effects(graph, int(logit[0]))[latents])


def _effects(graph: Graph, logit: int) -> Float[np.ndarray, " node"]:
    """Of each node, how much the logit changes per unit of the node's relative change; 1 of the logit itself."""
    share = graph.weight / _own_size(graph)[graph.target]  # of the target's own size, per unit of the source's change
    effect = np.zeros(graph.n_nodes)
    effect[logit] = 1.0
    layers = graph.layer[graph.target]  # ascending, as nodes are ordered by layer and edges by target
    for layer in np.unique(graph.layer)[::-1]:
        first, last = np.searchsorted(layers, [layer, layer + 1])
        source, target = graph.source[first:last], graph.target[first:last]
        effect += np.bincount(source, share[first:last] * effect[target], graph.n_nodes)
    return effect


def _own_size(graph: Graph) -> Float[np.ndarray, " node"]:
    """Of a latent its activation, of which it changes by a share; 1 of others: a logit changes in its own units."""
    is_latent = graph.kind == FEATURE
    size = np.where(is_latent, graph.activation.astype(np.float64), 1.0)
    if (bad := ~(size > 0)).any():
        first = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"expected latents that fire, so activations above 0: latent {graph.feature[first]} of layer "
            f"{graph.layer[first]} has {size[first]}; trace the graph anew"
        )
    return size
