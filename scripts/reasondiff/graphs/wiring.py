"""Two models, one context: do their graphs differ in the latents that are used, or in how these are wired?

An edge's weight is its source's activation times a virtual weight, which holds all else: the two latents' directions,
and the attention patterns and norms' scales between them. On edges between nodes that both graphs have, the difference
of two such products is exactly

    A1 - A0 = mean(w) (a1 - a0) + mean(a) (w1 - w0),

of which the first term is *usage* (how strongly the source fires) and the second *wiring*. An edge with an end that is
a node of one graph only is usage as well (which latents take part).

A latent whose activation is doubled and whose decoder row is halved is the same latent, yet another activation, and
other weights. Activations, as sources and as targets, are therefore taken times the latent's decoder norm.

Source: docs/methods.md §12.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Int

from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, LOGIT, Graph
from reasondiff.graphs.influence import logit_weights
from reasondiff.graphs.pruning import ranked

NO_PARTNER = -1
ROUNDING = 1e-6  # of the flow: weights are stored in single precision


@dataclass(frozen=True)
class LayerCorrespondence:
    """Which latents of two transcoders of one layer are taken for the same."""

    partner: Int[np.ndarray, " latent"]
    """The latent of the second transcoder that each of the first corresponds to, none twice; -1 where there is none."""
    first_norm: Float[np.ndarray, " latent"]
    """Decoder norms of the first transcoder."""
    second_norm: Float[np.ndarray, " second_latent"]
    """Decoder norms of the second."""


Correspondence = Mapping[int, LayerCorrespondence]
"""{layer: correspondence} of two sets of transcoders."""


@dataclass(frozen=True)
class Change:
    """How far two graphs of one context differ, and in what way; from 0 to 1 each.

    The flow is the weighted sum of absolute edge weights (see `compare`) of both graphs together. Unless said
    otherwise, edges that start at errors take no part.
    """

    total_change: float
    """Sum over edges of the absolute difference, over the flow: 0 for equal graphs, 1 without an edge in common."""
    usage_set: float
    """The same of edges with an end that only one graph has: its latent is silent in the other, or counts too little
    there to be in it."""
    without_partner: float
    """The part of `usage_set` with an end that corresponds to no latent of the other dictionary."""
    usage_strength: float
    """On edges between nodes of both graphs: the absolute first term, over the flow."""
    wiring: float
    """The absolute second term, over the flow. Where the two terms cancel, the parts exceed the total."""
    usage_set_share: float
    """Of the sum of the three parts; NaN where nothing differs but by rounding."""
    usage_strength_share: float
    wiring_share: float
    node_overlap: float
    """Share of the latents' influence that lies on those of both graphs; NaN without latents."""
    edge_overlap: float
    """Share of the flow on edges that both graphs have."""
    error_change: float
    """As `total_change`, of the edges that start at errors, the part that no dictionary sees; NaN without them."""


QUANTITIES = tuple(field.name for field in fields(Change))


def compare(first: Graph, second: Graph, correspondence: Correspondence) -> Change:
    """How two graphs of one context differ. No figure depends on which of them is the first.

    An edge is weighted by its target: what the target counts (its influence; of a logit the share of probability), over
    the sum of absolute weights into it, both as means of the graphs that have it. The edges into a node then make up as
    much as the node counts, whatever its unit. Logits that one graph alone has are left out, with the edges into them:
    which other tokens are likely is another question.

    Raises:
        ValueError: other tokens or another target; a layer that the correspondence does not know, a partner that it
            names twice; a latent whose activation is not positive.
    """
    _refuse_other_context(first, second)
    nodes = _joined_nodes(*_with_common_logits(first, second), correspondence)
    edges = _joined_edges(nodes)
    known = ~nodes.is_error[edges.source]
    shared = known & nodes.in_both[edges.source] & nodes.in_both[edges.target]
    lone = nodes.without_partner[edges.source] | nodes.without_partner[edges.target]
    differs = edges.counts * np.abs(edges.first - edges.second)
    size = edges.counts * (np.abs(edges.first) + np.abs(edges.second))
    strength, wiring = (edges.counts * np.abs(term) for term in _terms(nodes, edges))

    flow, influence = size[known].sum(), nodes.influence[nodes.is_latent]
    parts = {
        "usage_set": differs[known & ~shared].sum(),
        "usage_strength": strength[shared].sum(),
        "wiring": wiring[shared].sum(),
    }
    changed = sum(parts.values())
    changed = changed if changed > ROUNDING * flow else 0.0
    return Change(
        total_change=_ratio(differs[known].sum(), flow),
        without_partner=_ratio(differs[known & lone].sum(), flow),
        **{name: _ratio(part, flow) for name, part in parts.items()},
        **{f"{name}_share": _ratio(part, changed) for name, part in parts.items()},
        node_overlap=_ratio(influence[nodes.in_both[nodes.is_latent]].sum(), influence.sum()),
        edge_overlap=_ratio(size[known & (edges.first != 0) & (edges.second != 0)].sum(), flow),
        error_change=_ratio(differs[~known].sum(), size[~known].sum()),
    )


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")


def _refuse_other_context(first: Graph, second: Graph) -> None:
    """Ids decide where they are known: two models may call the same id by different names."""
    named = [("tokens", first.tokens, second.tokens)] if first.facts.get("ids") is None else []
    for what, one, other in (
        *named,
        *((name, first.facts.get(name), second.facts.get(name)) for name in ("ids", "target_id")),
    ):
        if one != other:
            raise ValueError(
                f"two graphs are compared on one context and target, but their {what} differ: trace the second model "
                "on the ids, position and target token of the first"
            )


def _with_common_logits(first: Graph, second: Graph) -> tuple[Graph, Graph]:
    logits = [{(int(g.position[n]), int(g.feature[n])) for n in g.nodes_of(LOGIT)} for g in (first, second)]
    common = logits[0] & logits[1]

    def without_others(graph: Graph) -> Graph:
        places = zip(graph.position.tolist(), graph.feature.tolist(), strict=True)
        kept = (graph.kind != LOGIT) | np.array([place in common for place in places], dtype=bool)
        return graph.part(kept, np.ones(graph.n_edges, dtype=bool))

    return without_others(first), without_others(second)


# ------------------------------------------------------------------------------------------------ nodes


@dataclass(frozen=True)
class _Side:
    """One of the two graphs, its nodes numbered as in the joint list, in units that no latent's scale enters."""

    graph: Graph
    number: Int[np.ndarray, " own_node"]
    """Place of each node in the joint list."""
    unit: Float[np.ndarray, " own_node"]
    """Decoder norm of latents; 1 of other nodes."""
    activation: Float[np.ndarray, " node"]
    """Of joint nodes: activation times decoder norm; 1 of embeddings, NaN of errors, 0 where the graph lacks it."""
    counts: Float[np.ndarray, " node"]
    """Of joint nodes: influence, or the share of probability of a logit; 0 where the graph lacks it."""


@dataclass(frozen=True)
class _Nodes:
    """The nodes of two graphs, those that correspond as one."""

    first: _Side
    second: _Side
    in_both: Bool[np.ndarray, " node"]
    is_error: Bool[np.ndarray, " node"]
    is_latent: Bool[np.ndarray, " node"]
    without_partner: Bool[np.ndarray, " node"]
    """Latents that no latent of the other dictionary corresponds to."""

    @property
    def influence(self) -> Float[np.ndarray, " node"]:
        return self.first.counts + self.second.counts


def _joined_nodes(first: Graph, second: Graph, correspondence: Correspondence) -> _Nodes:
    renamed = _renamed(first, second, correspondence)
    names = (renamed.first_names, second.feature)
    keys = [
        np.stack([graph.layer, graph.position, graph.kind, own], axis=1).astype(np.int64)
        for graph, own in zip((first, second), names, strict=True)
    ]
    joint, number = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    numbers = np.split(number.reshape(-1), [first.n_nodes])
    in_first, in_second = (np.bincount(own, minlength=len(joint)) > 0 for own in numbers)
    alone = np.zeros(len(joint), dtype=bool)
    for own, alone_here in zip(numbers, renamed.alone, strict=True):
        alone[own] |= alone_here
    sides = (_side(*own, len(joint)) for own in zip((first, second), numbers, renamed.units, strict=True))
    return _Nodes(*sides, in_first & in_second, joint[:, 2] == ERROR, joint[:, 2] == FEATURE, alone)


@dataclass(frozen=True)
class _Renamed:
    """What a correspondence says of the nodes of two graphs."""

    first_names: Int[np.ndarray, " first_node"]
    """The first graph's latents by the second's numbers, those without a partner by negative ones."""
    units: list[Float[np.ndarray, " _"]]
    """Of each graph's nodes: decoder norms of latents, 1 of others."""
    alone: list[Bool[np.ndarray, " _"]]
    """Of each graph's nodes: latents without a partner."""


def _renamed(first: Graph, second: Graph, correspondence: Correspondence) -> _Renamed:
    graphs, names = (first, second), first.feature.astype(np.int64)
    units = [np.ones(graph.n_nodes) for graph in graphs]
    alone = [np.zeros(graph.n_nodes, dtype=bool) for graph in graphs]
    for layer in sorted({int(layer) for graph in graphs for layer in graph.layer[graph.kind == FEATURE]}):
        if layer not in correspondence:
            raise ValueError(f"the graphs have latents at layer {layer}, for which no correspondence is given")
        known = correspondence[layer]
        partners = known.partner[known.partner != NO_PARTNER]
        if len(np.unique(partners)) < len(partners):
            raise ValueError(f"layer {layer}: a latent of the second transcoder is named as a partner twice")
        own, other = (np.flatnonzero((graph.kind == FEATURE) & (graph.layer == layer)) for graph in graphs)
        units[0][own], units[1][other] = known.first_norm[first.feature[own]], known.second_norm[second.feature[other]]
        partner = known.partner[first.feature[own]]
        alone[0][own], alone[1][other] = partner == NO_PARTNER, ~np.isin(second.feature[other], partners)
        names[own] = np.where(partner == NO_PARTNER, -1 - first.feature[own], partner)
    return _Renamed(names, units, alone)


def _side(graph: Graph, number: np.ndarray, unit: np.ndarray, nodes: int) -> _Side:
    own = np.where(graph.kind == EMBEDDING, 1.0, graph.activation.astype(np.float64) * unit)
    if not (own[graph.kind == FEATURE] > 0).all():
        raise ValueError("a latent of a graph has an activation or a decoder norm that is not positive")
    activation, counts = np.zeros(nodes), np.zeros(nodes)
    activation[number] = own
    counts[number] = np.where(graph.kind == LOGIT, logit_weights(graph), ranked(graph).influence)
    return _Side(graph, number, unit, activation, counts)


# ------------------------------------------------------------------------------------------------ edges


@dataclass(frozen=True)
class _Edges:
    """The edges of two graphs by joint nodes; a weight is 0 where a graph lacks the edge."""

    source: Int[np.ndarray, " edge"]
    target: Int[np.ndarray, " edge"]
    first: Float[np.ndarray, " edge"]
    second: Float[np.ndarray, " edge"]
    counts: Float[np.ndarray, " edge"]
    """What the change of an edge is weighted by."""


def _joined_edges(nodes: _Nodes) -> _Edges:
    n, sides = len(nodes.in_both), (nodes.first, nodes.second)
    keys = [side.number[side.graph.target].astype(np.int64) * n + side.number[side.graph.source] for side in sides]
    joint = np.unique(np.concatenate(keys))
    weights = np.zeros((2, len(joint)))
    for own, key, side in zip(weights, keys, sides, strict=True):
        own[np.searchsorted(joint, key)] = side.graph.weight.astype(np.float64) * side.unit[side.graph.target]
    target, source = np.divmod(joint, max(n, 1))
    into = np.bincount(target, np.abs(weights).sum(0), n)
    counts = np.divide(nodes.influence, into, out=np.zeros(n), where=into > 0)  # mean over mean: their 2s cancel
    return _Edges(source, target, *weights, counts[target])


def _terms(nodes: _Nodes, edges: _Edges) -> tuple[Float[np.ndarray, " edge"], Float[np.ndarray, " edge"]]:
    """(strength, wiring) of each edge, which add up to its difference; NaN where a graph lacks the source."""
    activations = [side.activation[edges.source] for side in (nodes.first, nodes.second)]
    with np.errstate(divide="ignore", invalid="ignore"):
        virtual = [edges.first / activations[0], edges.second / activations[1]]
    strength = (virtual[0] + virtual[1]) / 2 * (activations[0] - activations[1])
    return strength, (activations[0] + activations[1]) / 2 * (virtual[0] - virtual[1])
