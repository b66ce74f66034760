"""What is an attribution graph, and how does it stay the same on its way to disk and back?

A directed acyclic graph of one token that a model is about to say. An edge says how much its source adds to its
target: to a latent's value before the activation function, or to a logit.

Source: docs/methods.md §10; Ameisen et al. 2025, Circuit Tracing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from reasondiff.store import ArtefactError, read_arrays, write_arrays

KINDS = ("feature", "error", "embedding", "logit")
FEATURE, ERROR, EMBEDDING, LOGIT = range(4)
NO_FEATURE = -1
"""Stands for the feature number of nodes that have none."""
PHASES = {
    "prompt": "prompt",
    "think": "think",
    "answer": "answer",
    "correct": "answer",
    "incorrect": "answer",
    "own": "answer",
}
"""{target: the phase that it stands in}, in the order in which a page tells them."""
FORCED = ("prompt", "think", "answer")
"""Targets on the reasoning model's greedy response, on which the base is traced as well."""
_ARRAYS = {
    "kind": np.int8, "layer": np.int32, "position": np.int32, "feature": np.int64, "activation": np.float32,
    "influence": np.float32, "probability": np.float32, "source": np.int32, "target": np.int32, "weight": np.float32,
}  # fmt: skip


@dataclass(frozen=True)
class Graph:
    """Nodes and edges as columns; nodes are ordered by layer, position, kind and feature, edges by target and source.

    A graph without nodes stands for one that could not be made: `facts["reason"]` says why.
    """

    kind: Int[np.ndarray, " node"]
    """Index in `KINDS`."""
    layer: Int[np.ndarray, " node"]
    """The block, counted from 0; -1 of embeddings, the number of blocks of logits."""
    position: Int[np.ndarray, " node"]
    """The token, counted from 0."""
    feature: Int[np.ndarray, " node"]
    """The latent's number in its transcoder; the token id of an embedding or a logit; -1 of errors."""
    activation: Float[np.ndarray, " node"]
    """How strongly the latent fires; NaN of other nodes."""
    influence: Float[np.ndarray, " node"]
    """Share of all influence on the logits that passes through the node's outgoing paths, in the whole graph (summed
    over the nodes of the whole graph it is the mean length of a path); NaN where it is not known."""
    probability: Float[np.ndarray, " node"]
    """What the model gives to a logit's token, from 0 to 1; NaN of other nodes."""
    source: Int[np.ndarray, " edge"]
    """Node that an edge starts from."""
    target: Int[np.ndarray, " edge"]
    """Node that it ends in."""
    weight: Float[np.ndarray, " edge"]
    """What the source adds to the target, in the target's own units; never 0."""
    tokens: tuple[str, ...]
    """The string of each position."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is known, in JSON's types: where it came from, how it was made, the scores of the whole graph."""

    @property
    def n_nodes(self) -> int:
        return len(self.kind)

    @property
    def n_edges(self) -> int:
        return len(self.source)

    def nodes_of(self, kind: int) -> Int[np.ndarray, " chosen"]:
        """Indices of the nodes of one kind."""
        return np.flatnonzero(self.kind == kind)

    def part(self, nodes: Bool[np.ndarray, " node"], edges: Bool[np.ndarray, " edge"]) -> Graph:
        """The graph of some nodes, with those of some edges whose two ends are among them."""
        kept = edges & nodes[self.source] & nodes[self.target]
        number = np.cumsum(nodes, dtype=np.int32) - 1
        columns = {name: getattr(self, name)[nodes] for name in list(_ARRAYS)[:7]}
        return Graph(
            **columns,
            source=number[self.source[kept]],
            target=number[self.target[kept]],
            weight=self.weight[kept],
            tokens=self.tokens,
            facts=self.facts,
        )


def make_graph(tokens: tuple[str, ...], facts: Mapping[str, Any], **columns: Any) -> Graph:
    """A graph from columns in any order of nodes and edges; edges of weight 0 are left out.

    Raises:
        ValueError: columns of unequal length, an edge to a node that is not there, a weight that is not finite, two
            nodes alike, two edges between the same nodes, or an edge that does not lead to a later layer.
    """
    plain = {name: np.asarray(columns[name]).astype(dtype) for name, dtype in _ARRAYS.items()}
    nodes, edges = ({len(plain[name]) for name in names} for names in (list(_ARRAYS)[:7], list(_ARRAYS)[7:]))
    if len(nodes) > 1 or len(edges) > 1:
        raise ValueError(f"columns of nodes have lengths {sorted(nodes)}, those of edges {sorted(edges)}")
    order = np.lexsort([plain[name] for name in ("feature", "kind", "position", "layer")])
    number = np.empty(len(order), dtype=np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    for name in list(_ARRAYS)[:7]:
        plain[name] = plain[name][order]
    for name in ("source", "target"):
        if len(plain[name]) and not (0 <= plain[name].min() and plain[name].max() < len(order)):
            raise ValueError(f"an edge has a {name} that is none of the {len(order)} nodes")
        plain[name] = number[plain[name]]
    kept = plain["weight"] != 0
    rows = np.lexsort([plain["source"][kept], plain["target"][kept]])
    for name in list(_ARRAYS)[7:]:
        plain[name] = plain[name][kept][rows]
    graph = Graph(**plain, tokens=tuple(tokens), facts=dict(facts))
    _refuse_impossible(graph)
    return graph


def no_graph(tokens: tuple[str, ...], facts: Mapping[str, Any], reason: str) -> Graph:
    """What stands for a graph that could not be made, and says why."""
    nothing = {name: np.zeros(0, dtype) for name, dtype in _ARRAYS.items()}
    return Graph(**nothing, tokens=tuple(tokens), facts={**facts, "reason": reason})


def _refuse_impossible(graph: Graph) -> None:
    if not np.isfinite(graph.weight).all():
        raise ValueError(f"{int((~np.isfinite(graph.weight)).sum())} edge weights are not finite")
    keys = np.stack([graph.layer, graph.position, graph.kind, graph.feature.astype(np.int64)], axis=1)
    if len(keys) > 1 and (keys[1:] == keys[:-1]).all(1).any():
        raise ValueError("two nodes are alike (same layer, position, kind and feature)")
    ends = np.stack([graph.target, graph.source], axis=1)
    if len(ends) > 1 and (ends[1:] == ends[:-1]).all(1).any():
        raise ValueError("two edges join the same two nodes")
    if backward := int((graph.layer[graph.source] >= graph.layer[graph.target]).sum()):
        raise ValueError(f"{backward} edges do not lead to a later layer: the graph would not be acyclic")


# ----------------------------------------------------------------------------------------------- on disk


def write_graph(path: str | Path, graph: Graph, card: Mapping[str, Any]) -> None:
    """Writes a graph as one `.npz`, whole or not at all."""
    arrays = {name: getattr(graph, name) for name in _ARRAYS}
    texts = {"tokens": json.dumps(list(graph.tokens)), "facts": json.dumps(dict(graph.facts), sort_keys=True)}
    write_arrays(path, {**arrays, **{name: np.array(text) for name, text in texts.items()}}, card)


def read_graph(path: str | Path) -> Graph:
    """A graph written by `write_graph`.

    Raises:
        ArtefactError: the file is missing, broken, or lacks an array.
    """
    arrays, _ = read_arrays(path)
    if missing := sorted({*(one.name for one in fields(Graph))} - set(arrays)):
        raise ArtefactError(f"{path} lacks {', '.join(missing)}: it is no graph of this workflow; delete it, run again")
    texts = {name: json.loads(str(arrays.pop(name))) for name in ("tokens", "facts")}
    try:
        return make_graph(tuple(texts["tokens"]), texts["facts"], **arrays)
    except ValueError as error:
        raise ArtefactError(f"{path} is no graph: {error}; delete it and run again") from error
