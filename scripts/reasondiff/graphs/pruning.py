"""Which nodes and edges carry most of what reaches the logits?

Two cuts: `stored_part` is what goes to disk, `prune` what is shown and counted. The influences are those of the whole
graph and travel with the nodes, so that the stored part is pruned as the whole would have been.

Source: docs/methods.md §10; circuit-tracer 0.5.0, graph.py (`prune_graph`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, LOGIT, Graph
from reasondiff.graphs.influence import edge_influences, influences

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ranked:
    """The nodes of a graph by their influence in the whole graph."""

    influence: Float[np.ndarray, " node"]
    """Of each node, in the graph's order; 0 of logits."""
    cumulative: Float[np.ndarray, " node"]
    """The share of all influence, from 0 to 1, that a node carries with all that have more (of equal ones the earlier
    comes first). In a stored part the last ranks, beyond `facts["stored_share"]`, are too low."""
    total: float
    """The influence of all nodes of the whole graph."""


def ranked(graph: Graph) -> Ranked:
    """The ranks of a graph's nodes, by the influences that it has, or by its own edges' where it has none."""
    known = not np.isnan(graph.influence).any()
    influence = (graph.influence if known else influences(graph).astype(np.float32)).astype(np.float64)
    order = np.argsort(-influence, kind="stable")
    sums = np.cumsum(influence[order])
    total = float(graph.facts.get("influence_total", sums[-1]))
    cumulative = np.empty(graph.n_nodes)
    cumulative[order] = sums / total if total > 0 else 1.0
    return Ranked(influence, cumulative, total)


def stored_part(graph: Graph, share: float, max_nodes: int) -> Graph:
    """The latents and errors that carry `share` of a whole graph's influence, at most `max_nodes` of them, with all
    embeddings and logits and all edges among these.

    `facts["influence_total"]` is the influence of the whole graph, `facts["stored_share"]` the node share up to which
    the part prunes as the whole does: 1 where nothing was left out, else at least `share` unless `max_nodes` is less.
    """
    if not graph.n_nodes:
        return graph
    ranks, always = ranked(graph), _always_kept(graph)
    kept = ranks.influence >= _threshold(ranks.influence, ranks.total, share)
    others = np.sort(ranks.influence[~always])[::-1]
    if len(others) > max_nodes:
        kept &= ranks.influence > others[max_nodes]  # of equal nodes all or none
    carried = 1.0 if (kept | always).all() else float(ranks.cumulative[kept].max(initial=0.0))
    stored = min(carried, graph.facts.get("stored_share", 1.0))
    facts = {**graph.facts, "influence_total": ranks.total, "stored_share": stored}
    whole = replace(graph, influence=ranks.influence.astype(np.float32), facts=facts)
    return whole.part(kept | always, np.ones(graph.n_edges, dtype=bool))


def prune(graph: Graph, node_share: float, edge_share: float) -> Graph:
    """The graph of the nodes that carry `node_share` of all influence and, of the edges among them, those that carry
    `edge_share` of what passes through these, without latents and errors that then lead nowhere and latents that
    nothing leads to. Embeddings and logits stay.

    A stored part is pruned as its whole would be while `node_share` is at most `facts["stored_share"]`; beyond it
    nothing more can be kept than was stored. `facts["pruning"]` says the shares, the nodes' as far as it could be kept.

    Raises:
        ValueError: a share that is not from 0 to 1.
    """
    for name, share in (("node_share", node_share), ("edge_share", edge_share)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be from 0 to 1, it is {share}")
    if not graph.n_nodes:
        return graph
    if (stored := graph.facts.get("stored_share", 1.0)) < node_share:
        log.info("the graph was stored with nodes that carry %.3f of its influence; asked %.3f", stored, node_share)
    ranks = ranked(graph)
    nodes = (ranks.influence >= _threshold(ranks.influence, ranks.total, node_share)) | _always_kept(graph)
    shares = {"node_share": min(node_share, stored), "edge_share": edge_share}
    facts = {**graph.facts, "influence_total": ranks.total, "pruning": shares}
    whole = replace(graph, influence=ranks.influence.astype(np.float32), facts=facts)
    part = whole.part(nodes, np.ones(graph.n_edges, dtype=bool))
    return part.part(*_connected(part, _strongest_edges(part, edge_share)))


def _always_kept(graph: Graph) -> Bool[np.ndarray, " node"]:
    return np.isin(graph.kind, (EMBEDDING, LOGIT))


def _strongest_edges(graph: Graph, share: float) -> Bool[np.ndarray, " edge"]:
    influence = edge_influences(graph)
    return influence >= _threshold(influence, float(influence.sum()), share)


def _threshold(values: Float[np.ndarray, " value"], total: float, share: float) -> float:
    """The least of the largest values that together make up `share` of `total`; 0 where all of it is asked for."""
    if share >= 1 or not len(values):
        return 0.0
    falling = np.sort(values)[::-1]
    place = int(np.searchsorted(np.cumsum(falling) / max(total, np.finfo(float).tiny), share))
    return float(falling[min(place, len(falling) - 1)])


def _connected(
    graph: Graph, edges: Bool[np.ndarray, " edge"]
) -> tuple[Bool[np.ndarray, " node"], Bool[np.ndarray, " edge"]]:
    """(nodes, edges) that remain when latents and errors without an edge out, and latents without one in, are taken
    away until there are none."""
    must_lead = np.isin(graph.kind, (FEATURE, ERROR))
    nodes = np.ones(graph.n_nodes, dtype=bool)
    while True:
        leads, led_to = (np.bincount(end[edges], minlength=graph.n_nodes) > 0 for end in (graph.source, graph.target))
        kept = nodes & (leads | ~must_lead) & (led_to | (graph.kind != FEATURE))
        if (kept == nodes).all():
            return nodes, edges
        nodes, edges = kept, edges & kept[graph.source] & kept[graph.target]
